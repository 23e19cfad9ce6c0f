"""A supervised process comes back when it is killed, and is given up when it keeps ending by itself."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

import server.supervisor
from server.config import Settings
from server.supervisor import MAX_QUICK_DEATHS, Child, Stack, StackError

WAIT_S = 30.0

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


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _count(said: list[EventDict], event: str) -> int:
    return sum(line["event"] == event for line in said)


def test_a_store_that_cannot_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on without it is not ended, and it comes back where it was when it can."""
    monkeypatch.setattr(server.supervisor, "STORE_RETRY_S", 0.01)
    stopping = threading.Event()
    with capture_logs() as said, Stack(Settings(repo=tmp_path, data_dir=tmp_path)) as stack:
        url, store = stack.start_store(), stack.store
        assert store is not None
        store.kill()
        with (store.data_dir / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            supervised = threading.Thread(target=stack.supervise, args=[stopping])
            supervised.start()
            _wait_until(lambda: _count(said, "store.not_started") > 1)
            assert _count(said, "store.died") == 1
        _wait_until(lambda: store.running)
        stopping.set()
        supervised.join(WAIT_S)
        assert not supervised.is_alive()
        assert store.url == url


def test_an_address_that_cannot_be_listened_on_is_told_with_its_fix(tmp_path: Path) -> None:
    """Another host where the machine has no such address, another port where that one is taken."""

    def said(host: str, port: int) -> str:
        settings = Settings(
            repo=tmp_path, data_dir=tmp_path, redis_url="redis://x", host=host, grpc_port=port
        )
        with pytest.raises(StackError) as caught, Stack(settings) as stack:
            stack.start_services()
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "another server running there? choose another port" in said("127.0.0.1", port)
    assert "choose another --host" in said("192.0.2.1", port)
    assert "choose another --host" in said("no-host.invalid", port)
    assert "choose another --host" in said("192.0.2.1", 0)
