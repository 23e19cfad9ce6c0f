"""redis-py's clients, for stores whose servers change: every command goes to the server that holds its key now.

They are used like a client of one server, pipelines included, with two differences: a command without a key is for
one server (`nodes`), and there are no transactions. Redirections and failovers are followed; a command is sent again
only where its server said that it did not carry it out.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from online.address import Node
from online.errors import StoreUnavailableError
from online.pipes import pack, send_parts
from online.pool import Pool
from online.route import PAUSE_S, Command, Route
from online.topology import Topology

MAX_CONNECTIONS = 32
POOL_WAIT_S = 5.0
_Client = TypeVar("_Client")


class RoutedClient(redis.Redis):
    """A client for threads on a cluster, or on the master that sentinels name.

    Attributes:
        topology: What it knows about the servers.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()  # never connects: its own pool serves as the encoder's settings alone
        self.topology = topology
        self._nodes: _PerNode[redis.Redis] = _PerNode(lambda node: node_client(topology, node))

    def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Send commands and return their replies in order; an error of one command is its reply.

        Raises:
            StoreUnavailableError: A server did not answer; some commands may have been carried out.
        """
        route = Route(self.topology, commands)
        while parts := route.parts():
            try:
                replies = send_parts([(self._pool(node), part) for node, _, part in parts])
            except StoreUnavailableError:
                self.topology.suspect()
                raise
            route.take([(places, part) for (_, places, _), part in zip(parts, replies, strict=True)])
            if route.held_up:
                time.sleep(PAUSE_S)
        return route.replies

    def nodes(self) -> list[redis.Redis]:
        """Return a client for each primary; closed with this one."""
        return [self._nodes.of(node) for node in self.topology.slots().nodes]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, as redis-py does.

        Raises:
            redis.RedisError: The server refused it, or cannot be reached.
        """
        (reply,) = _or_connection_error(lambda: self.exchange([_words(args)]))
        return _parsed(self, args, options, reply)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> _Pipeline:  # noqa: ARG002
        """Collect commands; transactions are not for stores of several servers, so the argument changes nothing."""
        return _Pipeline(self)

    def close(self) -> None:
        """Close all connections."""
        super().close()
        for client in self._nodes.all():
            client.connection_pool.disconnect()

    def _pool(self, node: Node) -> Any:
        return self._nodes.of(node).connection_pool


class _Pipeline(redis.client.Pipeline):
    def __init__(self, client: RoutedClient) -> None:
        super().__init__(
            client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None
        )
        self._routed = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands and return their answers."""
        stack, self.command_stack = self.command_stack, []
        commands = [_words(args) for args, _ in stack]
        replies = _or_connection_error(lambda: self._routed.exchange(commands))
        return _answers(self._routed, stack, replies, raise_on_error=raise_on_error)


class AsyncRoutedClient(redis.asyncio.Redis):
    """As `RoutedClient`, for asyncio; it belongs to the loop that first uses it."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.topology = topology
        self._nodes: _PerNode[redis.asyncio.Redis] = _PerNode(lambda node: async_node_client(topology, node))

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Send commands, to all servers at once, and return their replies in order.

        Raises:
            StoreUnavailableError: A server did not answer; some commands may have been carried out.
        """
        await self.topology.slots_async()
        route = Route(self.topology, commands)
        while parts := route.parts():
            outcomes = await asyncio.gather(
                *(send_async(self._nodes.of(node), part) for node, _, part in parts), return_exceptions=True
            )
            _raise_first(self.topology, outcomes)
            route.take([(places, part) for (_, places, _), part in zip(parts, outcomes, strict=True)])  # type: ignore[misc]
            if route.held_up:
                await asyncio.sleep(PAUSE_S)
            if route.stale or route.held_up:
                await self.topology.slots_async()
        return route.replies

    async def nodes(self) -> list[redis.asyncio.Redis]:
        """Return a client for each primary; closed with this one."""
        slots = await self.topology.slots_async()
        return [self._nodes.of(node) for node in slots.nodes]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command, as redis-py does.

        Raises:
            redis.RedisError: The server refused it, or cannot be reached.
        """
        try:
            (reply,) = await self.exchange([_words(args)])
        except StoreUnavailableError as error:
            raise redis.ConnectionError(str(error)) from error
        return _parsed(self, args, options, reply)

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> _AsyncPipeline:  # noqa: ARG002
        """Collect commands; transactions are not for stores of several servers, so the argument changes nothing."""
        return _AsyncPipeline(self)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        await super().aclose(close_connection_pool)
        for client in self._nodes.all():
            await client.connection_pool.disconnect()


class _AsyncPipeline(redis.asyncio.client.Pipeline):
    def __init__(self, client: AsyncRoutedClient) -> None:
        super().__init__(
            client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None
        )
        self._routed = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands and return their answers."""
        stack, self.command_stack = self.command_stack, []
        try:
            replies = await self._routed.exchange([_words(args) for args, _ in stack])
        except StoreUnavailableError as error:
            raise redis.ConnectionError(str(error)) from error
        return _answers(self._routed, stack, replies, raise_on_error=raise_on_error)


class _PerNode(Generic[_Client]):
    """A client for each server, made when it is first needed."""

    def __init__(self, make: Callable[[Node], _Client]) -> None:
        self._make = make
        self._clients: dict[Node, _Client] = {}
        self._lock = threading.Lock()

    def of(self, node: Node) -> _Client:
        client = self._clients.get(node)
        if client is None:
            with self._lock:
                client = self._clients.setdefault(node, self._make(node))
        return client

    def all(self) -> list[_Client]:
        return list(self._clients.values())


def node_client(topology: Topology, node: Node) -> redis.Redis:
    """Make a client of one server, for threads."""
    pool = Pool(  # type: ignore[no-untyped-call]
        connection_class=topology.connection_class(redis),
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        retry=Retry(NoBackoff(), 0),
        **topology.connection_options(node),
    )
    return redis.Redis.from_pool(pool)


def async_node_client(topology: Topology, node: Node) -> redis.asyncio.Redis:
    """Make a client of one server, for asyncio."""
    pool = redis.asyncio.BlockingConnectionPool(
        connection_class=topology.connection_class(redis.asyncio),
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        **topology.connection_options(node),
    )
    return redis.asyncio.Redis.from_pool(pool)


async def send_async(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[object]:
    """Send one server's part and return its raw replies, an error among them as it is.

    As a pipeline of redis-py's does, in two thirds of its time.
    """
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        await connection.send_packed_command(b"".join(map(pack, commands)), check_health=False)
        return [await _reply(connection) for _ in commands]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


async def _reply(connection: Any) -> object:
    try:
        reply: object = await connection.read_response()
    except redis.ResponseError as error:
        return error
    return reply


def _raise_first(topology: Topology, outcomes: Sequence[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, redis.RedisError | OSError):
            topology.suspect()
            raise StoreUnavailableError(f"the store stopped answering: {outcome}") from outcome
        if isinstance(outcome, BaseException):
            raise outcome


def _or_connection_error(work: Callable[[], list[object]]) -> list[object]:
    try:
        return work()
    except StoreUnavailableError as error:
        raise redis.ConnectionError(str(error)) from error


def _words(args: Sequence[Any]) -> Command:
    """Split a name of two words, as redis-py's packer does."""
    name = args[0].encode() if isinstance(args[0], str) else args[0]
    return (*name.split(), *args[1:])


def _parsed(client: Any, args: Sequence[Any], options: Mapping[str, Any], reply: object) -> Any:
    if isinstance(reply, redis.RedisError):
        raise reply
    callback = client.response_callbacks.get(args[0])
    if callback is None:
        return reply
    return callback(reply, **{name: value for name, value in options.items() if name != "keys"})


def _answers(
    client: Any,
    stack: Sequence[tuple[Sequence[Any], Mapping[str, Any]]],
    replies: Sequence[object],
    *,
    raise_on_error: bool,
) -> list[Any]:
    if raise_on_error:
        return [
            _parsed(client, args, options, reply)
            for (args, options), reply in zip(stack, replies, strict=True)
        ]
    return [
        reply if isinstance(reply, redis.RedisError) else _parsed(client, args, options, reply)
        for (args, options), reply in zip(stack, replies, strict=True)
    ]
