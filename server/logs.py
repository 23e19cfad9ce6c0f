"""How a process logs: a failure costs no more than its lines, shows no values, and logging itself never fails.

What structlog does with an exception by itself, where rich is there, is to colour the source and print the variables of
every frame. That held the event loop for seconds, and put customers' data and addresses with passwords into the log.
"""

from __future__ import annotations

import contextlib

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback


class _Printer(structlog.PrintLogger):
    """Prints lines; one that cannot be written, to a full disk, a closed pipe or as UTF-8, is lost and stops nobody."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def configure() -> None:
    """Have every logger of the process log so."""
    ConsoleRenderer.get_active().exception_formatter = plain_traceback
    structlog.configure(logger_factory=lambda *_: _Printer())
