"""Pipelines: commands out to the servers that hold their keys, replies back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import redis
import redis.asyncio

from online.errors import StoreUnavailableError
from online.pipes import Asked, send_parts
from online.route import Command
from online.routed import AsyncRoutedClient, RoutedClient, send_async

MAX_PIPELINE_COMMANDS = 1_100
"""Enough for the thousand events of a call and for what is asked beside them."""
LANES = 8
LANE_COMMANDS = 2
"""Fewest commands for which another lane is worth its connection: two calls of sixteen entities exceed one read."""
LANE_LOADS = 64
"""As much for loads of states: the server writes 64 KiB to a connection at a time."""


def exchange(client: redis.Redis, commands: Iterable[Command]) -> list[object]:
    """Send commands and return their replies in order; an error of one command is its reply.

    Up to `MAX_PIPELINE_COMMANDS` go in one pipeline, more in several. Packing overlaps with the server's work. On a
    cluster each node gets its part, all are sent before the first reply is read, and redirections are followed.

    Raises:
        StoreUnavailableError: The connection could not be made, broke or timed out. It is closed, never reused with
            replies outstanding; some commands may have been carried out.
    """
    replies: list[object] = []
    for pipeline in _pipelines(commands):
        if isinstance(client, RoutedClient):
            replies += client.exchange(pipeline)
        else:
            replies += send_parts([(client.connection_pool, pipeline)])[0]
    return replies


def exchange_apart(
    client: redis.Redis, commands: Sequence[Command], lane_commands: int = LANE_COMMANDS
) -> list[object]:
    """As `exchange`, of commands whose order does not matter: they go over several connections side by side.

    A server that syncs every write does so once for all that it has read from all connections, and it reads little
    from each at a time, and answers little.

    Args:
        client: The store.
        commands: What to send.
        lane_commands: Fewest for which another connection is worth it.

    Raises:
        StoreUnavailableError: As there.
    """
    lanes = min(LANES, len(commands) // lane_commands)
    if isinstance(client, RoutedClient) or lanes < 2:
        return exchange(client, commands)
    replies: list[object] = []
    step = LANES * MAX_PIPELINE_COMMANDS
    for start in range(0, len(commands), step):
        part = commands[start : start + step]
        size = -(-len(part) // lanes)
        parts = [(client.connection_pool, part[first : first + size]) for first in range(0, len(part), size)]
        for answered in send_parts(parts):
            replies += answered
    return replies


def ask(client: redis.Redis, commands: Sequence[Command]) -> Callable[[], list[object]]:
    """Send commands, as `exchange` does; the replies are read once they are asked for, which must happen.

    They are few enough to go in one pipeline; on a cluster everything happens at once.

    Raises:
        StoreUnavailableError: As there, and so does what is returned.
    """
    if isinstance(client, RoutedClient):
        replies = exchange(client, commands)
        return lambda: replies
    asked = Asked([(client.connection_pool, commands)])
    return lambda: asked.take()[0]


async def exchange_async(client: redis.asyncio.Redis, commands: Iterable[Command]) -> list[object]:
    """As `exchange`, on an event loop.

    Raises:
        StoreUnavailableError: As there. A caller that is cancelled leaves no connection with replies outstanding.
    """
    replies: list[object] = []
    for pipeline in _pipelines(commands):
        if isinstance(client, AsyncRoutedClient):
            replies += await client.exchange(pipeline)
            continue
        try:
            replies += await send_async(client, pipeline)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailableError(f"the store stopped answering: {error}") from error
    return replies


def _pipelines(commands: Iterable[Command]) -> Iterator[Sequence[Command]]:
    remaining = iter(commands)
    while pipeline := list(islice(remaining, MAX_PIPELINE_COMMANDS)):
        yield pipeline
