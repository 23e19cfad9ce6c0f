"""Who may do what to the files of a project's archive, and when: locks in its folder, which end with who holds them.

A store's script is refused to an owner that lost its lease; a rename is not. So owners write their files under a lock
that they share, and look there whether they are owners still. Whoever must know that no file of an earlier owner can
come any more waits until nobody has that lock: who takes it afterwards finds that another has come. It is only asked
after and never taken from them, so that nobody who stands still can keep owners from writing.

Merging and backfilling are each for one process at a time, under locks of their own.
"""

from __future__ import annotations

import fcntl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streaming.errors import StreamingError
from streaming.sink import make_folder

LOCK_WAIT_S = 30.0
_POLL_S = 0.02
_PARTS = ".lock"
_BACKFILL = ".backfill"
_WRITING = ".writing-"
_FLOCK = struct.Struct("@hhqqi4x")
"""C's `struct flock`: kind, from where, first, count, process. Locks of open files belong to no process."""


class FilesHeld(StreamingError):
    """A process that has begun something with files is still at it, or stands still."""


@contextmanager
def lock_parts(folder: Path, wait_s: float | None = None) -> Iterator[bool]:
    """Keep others from replacing or moving parts; whether that came about. Its holder's death ends it.

    Args:
        folder: The project's archive.
        wait_s: How long to wait for who has it; None for as long as merging takes.
    """
    with _locked(folder / _PARTS, LOCK_WAIT_S if wait_s is None else wait_s) as locked:
        yield locked


@contextmanager
def lock_backfill(folder: Path) -> Iterator[None]:
    """Have no other backfill write, or remove, files of a project. Its holder's death ends it.

    Args:
        folder: The project's archive.

    Raises:
        FilesHeld: Another does already.
    """
    with _locked(folder / _BACKFILL, wait_s=0.0) as locked:
        if not locked:
            raise FilesHeld(
                f"another backfill is at work on the archive {folder}, or stands still: let it finish, or end it"
            )
        yield


@contextmanager
def writing_files(folder: Path, partition: int) -> Iterator[None]:
    """Write files of a partition, offline rows among them; several may, of whom one at most is the owner.

    Args:
        folder: The project's archive.
        partition: Whose.
    """
    make_folder(folder, durable=True)
    with (folder / f"{_WRITING}{partition}").open("ab+") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_RDLCK, 0, 0, 0, 0))
        yield


def outlast_writers(folder: Path, partition: int) -> None:
    """Wait until nobody is at writing files of a partition.

    Raises:
        FilesHeld: Somebody stands still at it.
    """
    if not folder.is_dir():
        return
    wanted, give_up_at = _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0), time.monotonic() + LOCK_WAIT_S
    with (folder / f"{_WRITING}{partition}").open("ab+") as file:
        while _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK:
            check_locked(folder, "writes", locked=time.monotonic() < give_up_at)
            time.sleep(_POLL_S)


def check_locked(folder: Path, does: str, *, locked: bool) -> None:
    """See that a lock came about.

    Raises:
        FilesHeld: It did not.
    """
    if not locked:
        raise FilesHeld(
            f"a process that {does} parts of the archive {folder} stands still: let it go on, or end it, and try again"
        )


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[bool]:
    make_folder(path.parent, durable=True)
    give_up_at = time.monotonic() + wait_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    yield False
                    return
            time.sleep(_POLL_S)
        yield True
