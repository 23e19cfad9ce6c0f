"""The program's own files, and whether they are still those that run: an upgrade may replace them under a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGES = ("decision", "online", "server", "streaming", "training", "waypost")
_HOME = Path(__file__).parents[1]


class Program:
    """The program as its files were when this was made.

    What runs has its modules in memory, but another process that it starts reads them anew, and objects of one version
    are not those of another.

    Args:
        home: The folder that the packages lie in.
    """

    def __init__(self, home: Path = _HOME) -> None:
        self._home = home
        self._digest = _digest(home)

    def replaced(self) -> bool:
        """Whether any file is another one now; reads all of them, which takes some 10 ms."""
        return _digest(self._home) != self._digest


def _digest(home: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (home / package).rglob("*.py")):
        try:
            data = path.read_bytes()
        except OSError:  # it goes while it is looked at
            data = b""
        digest.update(f"{path.relative_to(home)} {len(data)}\n".encode() + data)
    return digest.digest()
