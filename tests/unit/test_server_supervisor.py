"""A supervised process comes back when it is killed, and is given up when it keeps ending by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.supervisor import MAX_QUICK_DEATHS, Child, StackError

WAITS = "import signal; signal.pause()"
FAILS = "raise SystemExit('no such shop')"


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Child]:
    child = Child("waiting", [sys.executable, "-c", WAITS], os.environ, tmp_path / "waiting.log")
    child.start()
    yield child
    child.stop()


def test_killed_child_always_comes_back(waiting: Child) -> None:
    """However often somebody kills it."""
    for _ in range(MAX_QUICK_DEATHS + 3):
        waiting.kill()
        waiting.revive()
        assert waiting.alive
    assert waiting.restarts == MAX_QUICK_DEATHS + 3


def _outlive(child: Child) -> None:
    """Revive a process that ends by itself, more often than is allowed."""
    for _ in range(MAX_QUICK_DEATHS + 1):
        while child.alive:
            pass
        child.revive()


def test_child_that_keeps_ending_is_given_up_with_its_words(tmp_path: Path) -> None:
    """The error names the log and ends with what the process said last."""
    child = Child("failing", [sys.executable, "-c", FAILS], os.environ, tmp_path / "failing.log")
    child.start()
    with pytest.raises(StackError, match="no such shop"):
        _outlive(child)
    child.stop()
