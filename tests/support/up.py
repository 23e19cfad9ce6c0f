"""A real `waypost up` on a repo that `waypost init` made, and commands that talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
READY_S = 200.0
ENV = os.environ | {
    "PYTHONPATH": str(ROOT),
    "NO_COLOR": "1",
    "COLUMNS": "200",
}


def waypost(*arguments: str) -> str:
    """Run a command to its end; returns what it printed."""
    command = [sys.executable, "-m", "server.cli", *arguments]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=READY_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def buf_curl(target: str, method: str, request: object) -> dict[str, object]:
    """Call a method as the page says."""
    command = [str(BIN / "buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    command += ["-d", json.dumps(request), f"http://{target}/{method}"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=READY_S)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


class Up:
    """A running `waypost up`."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Make a new repo and serve it.

        Args:
            folder: Where the repo and its data go.
            options: Further ones of `waypost up`.
        """
        self.repo, self.data_dir, self._output = folder / "library", folder / "data", folder / "up.log"
        waypost("init", str(self.repo))
        command = [
            sys.executable,
            "-m",
            "server.cli",
            "up",
            "--repo",
            str(self.repo),
            "--data-dir",
            str(self.data_dir),
            *options,
        ]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--grpc-port", "0", "--http-port", "0"], env=ENV, stdout=output, stderr=output
            )

    def target(self) -> str:
        """Wait until it serves; returns where."""
        deadline = time.monotonic() + READY_S
        while "serving;" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        found = re.search(r"gRPC\s+(\S+)", self.said())
        assert found is not None
        return found[1]

    def said(self) -> str:
        """What it printed so far."""
        return self._output.read_text(errors="replace")

    def end(self) -> int:
        """Press Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)
