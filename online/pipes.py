"""Packed commands on the connections of pools: all out first, then the replies back in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA

from online.errors import StoreUnavailableError
from online.route import Command

_SEND_BYTES = 64 << 10


class Packed(NamedTuple):
    """The last words of a command, in the store's protocol, and how many they are."""

    size: int
    data: bytes | memoryview


class Asked:
    """Commands on their way, whose replies are still to be read."""

    def __init__(self, parts: Sequence[tuple[Any, Sequence[Command]]]) -> None:
        """Send each pool's commands on one of its connections.

        Raises:
            StoreUnavailableError: As `take`.
        """
        self._sizes = [len(commands) for _, commands in parts]
        self._taken: list[tuple[Any, Any]] = []
        try:
            for pool, _ in parts:
                self._taken.append((pool, connection_of(pool)))
            for (_, connection), (_, commands) in zip(self._taken, parts, strict=True):
                _send(connection, commands)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._release(0)
            raise StoreUnavailableError(f"the store stopped answering: {error}") from error
        except BaseException:
            self._release(0)
            raise

    def take(self) -> list[list[object]]:
        """Read the replies; once.

        Raises:
            StoreUnavailableError: One of the servers could not be reached, broke off or timed out. Connections with
                replies outstanding are closed.
        """
        replies: list[list[object]] = []
        try:
            for (_, connection), size in zip(self._taken, self._sizes, strict=True):
                replies.append(_replies(connection, size))
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise StoreUnavailableError(f"the store stopped answering: {error}") from error
        finally:
            self._release(len(replies))
        return replies

    def _release(self, read: int) -> None:
        """Give the connections back, closed but for the first so many, whose replies are read."""
        for place, (pool, connection) in enumerate(self._taken):
            if place >= read:
                connection.disconnect()
            pool.release(connection)


def send_parts(parts: Sequence[tuple[Any, Sequence[Command]]]) -> list[list[object]]:
    """Send each pool's commands on one of its connections, all before the first reply is read.

    Raises:
        StoreUnavailableError: As `Asked.take`.
    """
    return Asked(parts).take()


def connection_of(pool: Any) -> Any:
    """Take a connection, which is open.

    Raises:
        StoreUnavailableError: It cannot be made.
    """
    try:
        return pool.get_connection()
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailableError(f"the store cannot be reached: {error}") from error


def pack(command: Command) -> bytes:
    """A command in the store's protocol; its last word may stand for many that are packed already."""
    rest = command[-1]
    if not isinstance(rest, Packed):
        whole: bytes = hiredis.pack_command(command)
        return whole
    words = command[:-1]
    head = hiredis.pack_command(words)
    start = head.index(b"\n") + 1
    return b"".join((b"*%d\r\n" % (len(words) + rest.size), head[start:], rest.data))


def _send(connection: Any, commands: Sequence[Command]) -> None:
    pieces: list[bytes] = []
    size = 0
    for command in commands:
        piece = pack(command)
        pieces.append(piece)
        size += len(piece)
        if size >= _SEND_BYTES:
            connection.send_packed_command([b"".join(pieces)], check_health=False)
            pieces, size = [], 0
    if pieces:
        connection.send_packed_command([b"".join(pieces)], check_health=False)


def _replies(connection: Any, count: int) -> list[object]:
    """Read replies. Those that came along with another are taken from its parser: redis-py takes a µs around each."""
    replies: list[object] = []
    while len(replies) < count:
        replies.append(_reply(connection))
        parser = getattr(connection._parser, "_reader", None)  # noqa: SLF001
        while parser is not None and len(replies) < count:
            reply = parser.gets()
            if reply is NOT_ENOUGH_DATA:
                break
            if isinstance(reply, redis.ConnectionError):
                raise reply
            replies.append(reply)
    return replies


def _reply(connection: Any) -> object:
    try:
        reply: object = connection.read_response()
    except redis.ResponseError as error:
        return error
    return reply
