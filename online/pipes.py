"""Packed commands on the connections of pools, one part for each: all out first, then the replies back in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from online.errors import StoreUnavailableError
from online.route import Command

_SEND_BYTES = 64 << 10


def send_parts(parts: Sequence[tuple[Any, Sequence[Command]]]) -> list[list[object]]:
    """Send each pool's commands on one of its connections, all before the first reply is read.

    Raises:
        StoreUnavailableError: One of the servers could not be reached, broke off or timed out. Connections with
            replies outstanding are closed.
    """
    taken: list[tuple[Any, Any]] = []
    unread = len(parts)
    try:
        for pool, _ in parts:
            taken.append((pool, _connection(pool)))
        for (_, connection), (_, commands) in zip(taken, parts, strict=True):
            _send(connection, commands)
        replies = []
        for (_, connection), (_, commands) in zip(taken, parts, strict=True):
            replies.append([_reply(connection) for _ in commands])
            unread -= 1
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise StoreUnavailableError(f"the store stopped answering: {error}") from error
    finally:
        for place, (pool, connection) in enumerate(taken):
            if place >= len(parts) - unread:
                connection.disconnect()
            pool.release(connection)
    return replies


def _connection(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailableError(f"the store cannot be reached: {error}") from error


def _send(connection: Any, commands: Sequence[Command]) -> None:
    pieces: list[bytes] = []
    size = 0
    for command in commands:
        piece = hiredis.pack_command(command)
        pieces.append(piece)
        size += len(piece)
        if size >= _SEND_BYTES:
            connection.send_packed_command([b"".join(pieces)], check_health=False)
            pieces, size = [], 0
    if pieces:
        connection.send_packed_command([b"".join(pieces)], check_health=False)


def _reply(connection: Any) -> object:
    try:
        reply: object = connection.read_response()
    except redis.ResponseError as error:
        return error
    return reply
