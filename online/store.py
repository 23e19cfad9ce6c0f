"""Connections to the store, with bounds on all that can wait, and what is to be known before trusting it.

Commands are never repeated behind the caller's back: whether a write that got no answer happened is for the writer
to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import redis
import redis.asyncio

from online.address import Address, Kind, feast_connection_string, parse_address
from online.errors import StoreTopologyError, StoreUnavailableError, StoreUnsupportedError
from online.routed import AsyncRoutedClient, RoutedClient, async_node_client, node_client
from online.topology import Topology, told

__all__ = [
    "Address",
    "check_store",
    "connect",
    "connect_async",
    "feast_connection_string",
    "nodes",
    "open_topology",
    "parse_address",
]

OLDEST_VERSION = (7, 0)
_MODES = {Kind.STANDALONE: "standalone", Kind.SENTINEL: "standalone", Kind.CLUSTER: "cluster"}
_USE = {"standalone": "redis://", "cluster": "redis+cluster://", "sentinel": "redis+sentinel://HOST/MASTER"}


def open_topology(url: str) -> Topology:
    """Return what there is to know about a store's servers; nothing is asked before it is used."""
    return Topology(parse_address(url))


def connect(url: str) -> redis.Redis:
    """Make a client for threads; nothing is sent before its first command."""
    topology = open_topology(url)
    if topology.address.kind is Kind.STANDALONE:
        return node_client(topology, topology.address.nodes[0])
    return RoutedClient(topology)


def connect_async(url: str, topology: Topology | None = None) -> redis.asyncio.Redis:
    """Make a client for asyncio; it belongs to the loop that first uses it.

    Args:
        url: The store.
        topology: Of the same store, to share what is learnt about its servers.
    """
    topology = topology or open_topology(url)
    if topology.address.kind is Kind.STANDALONE:
        return async_node_client(topology, topology.address.nodes[0])
    return AsyncRoutedClient(topology)


def nodes(client: redis.Redis) -> list[redis.Redis]:
    """Return a client for each server that holds keys: the one of a standalone store is the client itself."""
    return client.nodes() if isinstance(client, RoutedClient) else [client]


def check_store(client: redis.Redis) -> list[str]:
    """Return what about the settings of any of the store's servers weakens Waypost's guarantees, in words.

    Raises:
        StoreUnsupportedError: A server is older than Redis 7.0.
        StoreTopologyError: The store is not what its address says.
        StoreUnavailableError: A server does not answer; the message names it and what may be done.
    """
    servers = nodes(client)
    kind = client.topology.address.kind if isinstance(client, RoutedClient) else Kind.STANDALONE
    found = [
        warning if len(servers) == 1 else f"{place(server)}: {warning}"
        for server in servers
        for warning in _check_server(server, kind)
    ]
    return list(dict.fromkeys(found))


def place(server: redis.Redis) -> str:
    """Return where a server is: host and port, or the path of its socket."""
    options = server.connection_pool.connection_kwargs
    return str(options["path"]) if "path" in options else f"{options['host']}:{options['port']}"


def _check_server(server: redis.Redis, kind: Kind) -> list[str]:
    try:
        info = cast("Mapping[str, object]", server.info("server"))
        _check_version(str(info.get("redis_version", "0")))
        mode = (
            info.get("redis_mode") or info.get("server_mode") or "standalone"
        )  # Redis calls it so, Valkey so
        _check_mode(place(server), str(mode), kind)
        return _settings_warnings(server)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(f"the store at {place(server)} does not answer: {told(error)}") from error
    except redis.ResponseError as error:
        if "DB index" in str(error):
            number = server.connection_pool.connection_kwargs.get("db")
            raise StoreTopologyError(
                f"the store at {place(server)} has no database {number}: have the address end in the number of one, "
                "such as /0 (`CONFIG GET databases` says how many there are)"
            ) from error
        if "SELECT is not allowed" in str(error):
            _check_mode(place(server), "cluster", kind)
        raise StoreUnavailableError(
            f"the store at {place(server)} refuses to be asked: {error}; allow the user of the address all keys and "
            "channels, and `+@all -@dangerous +info` at least"
        ) from error
    except redis.InvalidResponse as error:
        message = f"what answers at {place(server)} is neither Redis nor Valkey: {error}"
        raise StoreUnavailableError(message) from error


def _check_version(version: str) -> None:
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise StoreUnsupportedError(f"the store is Redis {version}; use Redis 7.0, Valkey 8 or newer")


def _check_mode(where: str, mode: str, kind: Kind) -> None:
    if mode != _MODES[kind]:
        article = {"cluster": "a node of a cluster", "sentinel": "a Sentinel"}.get(mode, f"a {mode} server")
        raise StoreTopologyError(
            f"{where} is {article} and the address is of kind {kind.value}; use {_USE.get(mode, 'redis://')}, "
            "or the redis_type that fits"
        )


def _settings_warnings(client: redis.Redis) -> list[str]:
    warnings = []
    for name, wanted, consequence in (
        ("appendonly", "yes", "acknowledged writes are lost in a crash"),
        ("appendfsync", "always", "the last second of acknowledged writes may be lost in a crash"),
        ("maxmemory-policy", "noeviction", "features and state may be evicted when memory is full"),
    ):
        try:
            found = cast("Mapping[str, str | bytes]", client.config_get(name)).get(name)
        except redis.ResponseError as error:
            return [f"the store does not tell its settings ({error}); durability is unknown"]
        if found != wanted and found != wanted.encode():
            shown = found.decode() if isinstance(found, bytes) else found
            warnings.append(f"{name} is {shown!r}, not {wanted!r}: {consequence}")
    return warnings
