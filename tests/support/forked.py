"""Processes forked from one that has imported everything: as real as others, without the seconds that imports take."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1
CONTEXT = multiprocessing.get_context("forkserver")
# By name, since a process that has not imported them yet is to do so; what cannot be imported there is imported later.
CONTEXT.set_forkserver_preload(["tests.support.forked_imports"])


class Forked:
    """A process that runs a `waypost` command; told and asked as `subprocess.Popen` is.

    Args:
        arguments: Of the command.
        output: File that standard output and error are appended to.
        env: The whole environment.
    """

    def __init__(self, arguments: Sequence[str], output: Path, env: Mapping[str, str]) -> None:
        start_server()
        self._process = CONTEXT.Process(target=_run, args=(list(arguments), output, dict(env)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end; returns how it ended.

        Raises:
            subprocess.TimeoutExpired: It did not.
        """
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired([self._process.name], timeout_s or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start_server() -> None:
    """Start what forks, once, where it finds this checkout's modules and no other's."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(arguments: list[str], output: Path, env: dict[str, str]) -> None:
    """Become the command, as `server.children.spawn` would start it."""
    os.setsid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    with output.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["waypost", *arguments]
    from server.cli import main

    main()
