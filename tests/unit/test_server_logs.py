"""What a process writes into its log when something fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIMIT_S = 0.01
"""Of processor time, for each line of the log behind the first."""
WORK = """
import sys
import time
import structlog
import server.cli

def fail(customers):
    raise KeyError("name")

def work():
    for _ in range(2):
        started = time.process_time()
        try:
            fail(["hunter2"] * 100_000)
        except KeyError as error:
            structlog.get_logger("server").error("call.failed", incident="1f", exc_info=error)
    print("went on after", time.process_time() - started, file=sys.stderr)

server.cli.app = work
server.cli.main()
"""


def _run(output: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORK],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_a_failure_is_logged_with_its_frames_and_without_values() -> None:
    """The incident and where it happened, and nothing that somebody's variable held."""
    said = _run(subprocess.PIPE).stdout
    assert "call.failed" in said
    assert "in fail" in said
    assert said.endswith("KeyError: 'name'\n")
    assert "hunter2" not in said


def test_a_failure_is_logged_quickly() -> None:
    """The event loop waits for it, and whoever can make a call fail can make it fail often."""
    assert float(_run(subprocess.PIPE).stderr.rpartition(" ")[2]) < LIMIT_S


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    """Where a disk is full, what does not need it goes on."""
    with Path("/dev/full").open("w") as full:
        assert "went on" in _run(full.fileno()).stderr
