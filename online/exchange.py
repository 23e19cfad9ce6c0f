"""One pipeline on one connection: packed commands out, replies back in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import hiredis
import redis

from online.errors import StoreUnavailableError

MAX_PIPELINE_COMMANDS = 1_000
_SEND_BYTES = 64 << 10

Argument = bytes | int
Command = tuple[Argument, ...]


def exchange(client: redis.Redis, commands: Iterable[Command]) -> list[object]:
    """Send commands and return their replies in order; an error of one command is its reply.

    Up to `MAX_PIPELINE_COMMANDS` go in one pipeline, more in several. Packing overlaps with the server's work.

    Raises:
        StoreUnavailableError: The connection could not be made, broke or timed out. It is closed, never reused with
            replies outstanding; some commands may have been carried out.
    """
    remaining = iter(commands)
    replies: list[object] = []
    while pipeline := list(islice(remaining, MAX_PIPELINE_COMMANDS)):
        replies += _exchange_pipeline(client, pipeline)
    return replies


def _exchange_pipeline(client: redis.Redis, commands: Sequence[Command]) -> list[object]:
    pool = client.connection_pool
    try:
        connection: Any = pool.get_connection()
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailableError(f"the store cannot be reached: {error}") from error
    try:
        _send(connection, commands)
        return [_reply(connection) for _ in commands]
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        connection.disconnect()
        raise StoreUnavailableError(f"the store stopped answering: {error}") from error
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _send(connection: Any, commands: Sequence[Command]) -> None:
    pieces: list[bytes] = []
    size = 0
    for command in commands:
        piece = hiredis.pack_command(command)  # type: ignore[arg-type]
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
