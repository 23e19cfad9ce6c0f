"""Whether definitions may have changed, told from the files that they come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from server.config import FeastSource
from server.feast.registry_file import keeps_versions_apart, registry_file
from server.repo import STORE_FILE

Stamp = tuple[str, int, int, int]


class Watch:
    """Looks at the files of a repo, or at the file of its registry; at both where the registry keeps versions apart.

    Folders are walked again only when one that holds definitions has changed, so that a look costs a handful of
    system calls however much data lies beside the definitions.
    """

    def __init__(self, root: Path, source: FeastSource) -> None:
        self._root = root
        self._source = source
        self._folders: dict[Path, int] = {}
        self._files: list[Path] = []
        self._seen, _ = self._stamps()

    def changed(self) -> bool | None:
        """Whether anything has changed since the last call; None where only loading would tell."""
        before, (self._seen, hidden) = self._seen, self._stamps()
        if self._seen != before:
            return True
        return None if hidden else False

    def _stamps(self) -> tuple[list[Stamp], bool]:
        """Of all files that count, and whether there is a registry beside them that cannot be looked at."""
        store_file = self._root / STORE_FILE
        files, hidden = [store_file], False
        if self._source is FeastSource.REGISTRY or keeps_versions_apart(store_file):
            registry = registry_file(store_file)
            hidden = registry is None
            files += [] if registry is None else [registry]
        if self._source is FeastSource.REPO:
            if not self._folders or any(_changed_at(folder) != at for folder, at in self._folders.items()):
                self._walk()
            files += self._files
        return list(_stamped(files)), hidden

    def _walk(self) -> None:
        """Find the definitions, and the folders on the way to them."""
        files, folders = [], {self._root}
        for folder, names, found in os.walk(self._root):
            names[:] = [name for name in names if not name.startswith((".", "__pycache__"))]
            inner = Path(folder)
            python = [inner / name for name in found if name.endswith(".py")]
            files += python
            if python:
                folders |= {path for path in (inner, *inner.parents) if path.is_relative_to(self._root)}
        self._files = sorted(files)
        self._folders = {folder: _changed_at(folder) for folder in folders}


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _stamped(files: list[Path]) -> Iterator[Stamp]:
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        yield str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino
