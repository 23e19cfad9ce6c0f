"""A program knows when its files are others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.program import PACKAGES, Program


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A program of two modules."""
    for name in ("server/one.py", "decision/deep/two.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"NAME = {name!r}")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda home: (home / "server/one.py").write_text("NAME = 'other'"),
        lambda home: (home / "server/three.py").write_text(""),
        lambda home: (home / "decision/deep/two.py").unlink(),
        lambda home: (home / "decision/deep/two.py").rename(home / "decision/two.py"),
    ],
    ids=["changed", "added", "removed", "moved"],
)
def test_other_files_are_noticed(home: Path, change: Callable[[Path], object]) -> None:
    """Whatever differs in what would be imported."""
    program = Program(home)
    change(home)
    assert program.replaced()


def test_the_same_files_are_the_same_program(home: Path) -> None:
    """Written anew with the same text, or beside files that are no modules of it."""
    program = Program(home)
    file = home / "server" / "one.py"
    file.write_text(file.read_text())
    (home / "server" / "one.pyc").write_bytes(b"cache")
    (home / "tests").mkdir()
    (home / "tests" / "test.py").write_text("")
    assert not program.replaced()


def test_every_package_of_the_program_is_looked_at() -> None:
    """A new top-level package that the server imports belongs on the list."""
    root = Path(__file__).parents[2]
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    assert set(PACKAGES) == packages - {"demo", "loadtest", "scripts", "tests", "feature_repo"}
