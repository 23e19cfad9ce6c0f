"""A real Valkey for tests: the embedded server itself, on a data directory of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redis

from server.embedded import EmbeddedValkey


@contextmanager
def run_valkey(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedValkey]:
    """Run a server that the test may kill, pause and restart; it is gone afterwards."""
    server = EmbeddedValkey(data_dir, settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def start_valkey(data_dir: Path) -> Iterator[str]:
    """Run a server on a data directory and yield its URL; it is gone afterwards."""
    with run_valkey(data_dir) as server:
        yield server.url


_closers: list[Callable[[], None]] = []


def close_later(close: Callable[[], None]) -> None:
    """Have `close_opened` close what has threads that use a client, before it closes that."""
    _closers.append(close)


def opened(client: redis.Redis) -> redis.Redis:
    """A client whose connections `close_opened` closes."""
    close_later(partial(_close, client))
    return client


def emptied(url: str) -> redis.Redis:
    """A connection to a store that has nothing in it any more; `close_opened` closes it."""
    client = opened(redis.Redis.from_url(url))
    client.flushall()
    return client


def close_opened() -> None:
    """Close connections rather than leave them to a look for garbage, which may come upon their sockets first.

    What was opened last comes first: a thread that is still at work would connect anew.
    """
    while _closers:
        _closers.pop()()


def _close(client: redis.Redis) -> None:
    client.close()
    client.connection_pool.disconnect()  # which may have been made by itself
