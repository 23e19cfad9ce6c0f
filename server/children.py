"""Child processes that end with their parent, whatever ends the parent."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1


def spawn(
    arguments: Sequence[str],
    *,
    output: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_open: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that the parent alone decides in which order children end.

    Args:
        arguments: Program and arguments.
        output: File that standard output and error are appended to; None inherits the parent's.
        env: The whole environment; None inherits the parent's.
        cwd: Working folder.
        keep_open: File descriptors that the child inherits.
    """
    if output is None:
        return _popen(arguments, None, env, cwd, keep_open)
    with output.open("ab") as stream:
        return _popen(arguments, stream.fileno(), env, cwd, keep_open)


def stop(child: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Ask a child to end, and end it by force when it has not after `timeout_s`; twice does nothing."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGCONT)
    child.terminate()
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _popen(
    arguments: Sequence[str],
    output: int | None,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    keep_open: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(arguments),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        pass_fds=keep_open,
        start_new_session=True,
        preexec_fn=_end_with_parent(),  # noqa: PLW1509 - one call into the kernel, no Python state
    )


def _end_with_parent() -> Callable[[], object] | None:
    """On Linux the kernel signals the child when its parent is gone; elsewhere only an orderly end is covered."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
