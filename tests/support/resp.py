"""RESP as a server writes it, and a socket that only takes notes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from online.errors import StoreUnavailableError
from online.kernels import LEAVES, MORE, REPLIES, STATE_SIZE, scan
from online.replies import Replies


def bulk(data: bytes | None) -> bytes:
    """Write a string, or null."""
    return b"_\r\n" if data is None else b"$%d\r\n%b\r\n" % (len(data), data)


def hmget_reply(cells: Sequence[bytes | None]) -> bytes:
    """Write the answer to an HMGET."""
    return b"*%d\r\n" % len(cells) + b"".join(map(bulk, cells))


def hgetall_reply(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write the answer to an HGETALL."""
    return b"%%%d\r\n" % len(fields) + b"".join(bulk(name) + bulk(value) for name, value in fields)


def framed(data: bytes) -> Replies:
    """Frame whole replies."""
    state = np.zeros(STATE_SIZE, np.int64)
    leaves = np.empty((len(data) + 1, 2), np.int64)
    table = np.empty((len(data) + 1, 5), np.int64)
    received = np.frombuffer(data, np.uint8).copy()
    assert scan(received, len(data), state, leaves, table) == MORE
    return Replies(received, leaves[: state[LEAVES]], table[: state[REPLIES]])


class Socket(asyncio.Transport):
    """Takes what is written; closes when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class Waiter:
    """A pipeline that keeps what came of it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent_at = 0.0
        self.replies: Replies | None = None
        self.error: StoreUnavailableError | None = None

    def deliver(self, replies: Replies) -> None:
        self.replies = replies

    def fail(self, error: StoreUnavailableError) -> None:
        self.error = error
