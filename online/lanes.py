"""Connections of the read path: each carries one pipeline at a time and is closed when that does not end well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio

MAX_LANES = 16


class Lanes:
    """A bounded set of connections made with a client's settings.

    Giving one back never waits, so that a cancelled caller cannot lose it. Time is the caller's: the client's socket
    timeout is off here, and every exchange must run under `asyncio.timeout`.
    """

    def __init__(self, client: redis.asyncio.Redis, limit: int = MAX_LANES) -> None:
        pool = client.connection_pool
        self._connection_class = pool.connection_class
        self._settings = {**pool.connection_kwargs, "socket_timeout": None}
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(limit)

    async def exchange(self, commands: Sequence[bytes]) -> list[object]:
        """Send packed reads in one pipeline and return the replies in order; an error of one command is its reply.

        A connection found dead since its last use (the server was restarted) is replaced once.

        Raises:
            redis.ConnectionError: The store cannot be reached, or it cut the connection.
        """
        async with self._free:
            if self._idle:
                try:
                    return await self._run(self._idle.pop(), commands)
                except redis.ConnectionError:
                    await self._drop_idle()
            return await self._run(self._connection_class(**self._settings), commands)

    async def aclose(self) -> None:
        """Close all idle connections and wait until they are; the next exchange makes a new one."""
        while self._idle:
            await self._idle.pop().disconnect()

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)

    async def _run(self, connection: Any, commands: Sequence[bytes]) -> list[object]:
        try:
            await connection.send_packed_command(b"".join(commands), check_health=False)
            replies = [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return replies


async def _reply(connection: Any) -> object:
    try:
        reply: object = await connection.read_response()
    except redis.ResponseError as error:
        return error
    return reply
