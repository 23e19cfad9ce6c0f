"""Processes that stop in their tracks at a step of theirs, as exactly as no signal from outside could stop them."""

from __future__ import annotations

import os
import pydoc
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from tests.support.forked import CONTEXT, start_server

WAIT_S = 60.0


class Stopped:
    """A process that does some work and is frozen (SIGSTOP) before one of its steps.

    Args:
        work: A function of a module.
        arguments: Its arguments.
        steps: Full names of the functions and methods whose calls are counted.
        at: Which of the calls it stops before, from 0.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any, steps: Sequence[str], at: int) -> None:
        start_server()
        self._process = CONTEXT.Process(target=_run, args=(work, arguments, list(steps), at), daemon=True)
        self._process.start()
        give_up_at = time.monotonic() + WAIT_S
        while self._state() != "T":
            assert self._process.exitcode is None, f"it has no step {at}"
            assert time.monotonic() < give_up_at
            time.sleep(0.005)

    def go_on(self) -> int:
        """Let it do the rest; returns how it ended."""
        self._signal(signal.SIGCONT)
        self._process.join(WAIT_S)
        code = self._process.exitcode
        assert code is not None, "it does not end"
        return code

    def kill(self) -> None:
        """End it where it stands."""
        if self._process.exitcode is None:
            self._signal(signal.SIGKILL)
            self._process.join(WAIT_S)

    def _signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def _state(self) -> str:
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except FileNotFoundError:
            return ""
        return text.rpartition(")")[2].split()[0]


def _run(work: Callable[..., None], arguments: Sequence[Any], steps: Sequence[str], at: int) -> None:
    left = at

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def stepped(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                # Sent to this thread, since one sent to the process may be taken by another, and this one goes on.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return step(*args, **named)

        return stepped

    for name in steps:
        where, _, last = name.rpartition(".")
        owner: Any = pydoc.locate(where)
        setattr(owner, last, counted(getattr(owner, last)))
    work(*arguments)
