"""Whether definitions may have changed, told from the files that they come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import yaml

from server.config import FeastSource
from server.repo import STORE_FILE

Stamp = tuple[str, int, int, int]


class Watch:
    """Looks at the files of a repo, or at the file of its registry.

    Folders are walked again only when one that holds definitions has changed, so that a look costs a handful of
    system calls however much data lies beside the definitions.
    """

    def __init__(self, root: Path, source: FeastSource) -> None:
        self._root = root
        self._source = source
        self._folders: dict[Path, int] = {}
        self._files: list[Path] = []
        self._seen = self._stamps()

    def changed(self) -> bool | None:
        """Whether anything has changed since the last call; None where only loading would tell."""
        stamps = self._stamps()
        if stamps is None:
            return None
        before, self._seen = self._seen, stamps
        return stamps != before

    def _stamps(self) -> list[Stamp] | None:
        store_file = self._root / STORE_FILE
        if self._source is FeastSource.REGISTRY:
            registry = _registry_file(self._root)
            return None if registry is None else list(_stamped([store_file, registry]))
        if not self._folders or any(_changed_at(folder) != at for folder, at in self._folders.items()):
            self._walk()
        return list(_stamped([store_file, *self._files]))

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


def _registry_file(root: Path) -> Path | None:
    """The registry's file, where it is one on this machine."""
    try:
        settings = yaml.safe_load((root / STORE_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    registry = settings.get("registry") if isinstance(settings, dict) else None
    if isinstance(registry, dict):
        registry = registry.get("path") if registry.get("registry_type", "file") == "file" else None
    if not isinstance(registry, str) or urlparse(registry).scheme or "$" in registry:
        return None
    return root / registry
