"""Which server answers for a key, now: one standalone server, the master that sentinels name, or a cluster's nodes.

A `Topology` is shared by everything in a process that talks to the store. What it knows is an immutable `SlotMap`,
replaced whole; asking it costs an index. It learns by asking the store itself, over plain short-lived connections,
so that threads and event loops follow a failover by the same code.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import hiredis
import redis

from online.address import Address, Kind, Node
from online.errors import ConnectionStringError, StoreTopologyError, StoreUnavailableError
from online.slots import SLOTS

SOCKET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0
DISCOVER_TIMEOUT_S = 2.0
PAUSE_S = 0.1
"""After a failed discovery the next one fails with it for so long: a store that is down is not asked in a storm."""

_NOBODY = 0xFFFF
_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who serves each of the 16,384 slots.

    Attributes:
        generation: Grows with every change; tells a reader whether it looked at the newest map.
        nodes: The primaries.
        owners: For each slot the index into `nodes`; 65,535 where nobody serves it.
    """

    generation: int
    nodes: tuple[Node, ...]
    owners: array[int]

    @classmethod
    def of_one(cls, node: Node, generation: int = 0) -> SlotMap:
        """Make the map of a store whose one server has all slots."""
        return cls(generation, (node,), array("H", bytes(2 * SLOTS)))

    def node_of(self, slot: int) -> Node:
        """Return the server of a slot.

        Raises:
            StoreUnavailableError: Nobody serves it.
        """
        owner = self.owners[slot]
        if owner == _NOBODY:
            raise StoreUnavailableError(
                f"no node of the cluster serves slot {slot}; see `CLUSTER INFO` for the slots that failed"
            )
        return self.nodes[owner]

    @property
    def covers_all(self) -> bool:
        return _NOBODY not in self.owners

    def with_owner(self, slot: int, node: Node) -> SlotMap:
        """Return the map in which a slot has another owner."""
        nodes = self.nodes if node in self.nodes else (*self.nodes, node)
        owners = array("H", self.owners)
        owners[slot] = nodes.index(node)
        return SlotMap(self.generation + 1, nodes, owners)


class Topology:
    """The servers of a store: who they are, how to reach them, and how to learn of changes. Safe for threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.tls = ssl_context(address) if address.tls or address.sentinels.tls else None
        self._lock = threading.Lock()
        self._known = SlotMap.of_one(address.nodes[0]) if address.kind is Kind.STANDALONE else None
        self._suspect = False
        self._failed: tuple[float, Exception] | None = None
        self._turn = 0
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def doubtful(self) -> bool:
        """Whether the next to call `slots` asks the store anew."""
        return self._suspect

    @property
    def connect_timeout_s(self) -> float:
        return float(self.address.options.get("socket_connect_timeout", CONNECT_TIMEOUT_S))

    @property
    def known(self) -> SlotMap | None:
        """The newest map, without asking anybody; None before the first."""
        return self._known

    @property
    def settled(self) -> SlotMap | None:
        """The newest map where nobody has to be asked, else None."""
        return None if self._suspect else self._known

    def slots(self) -> SlotMap:
        """Return the newest map; asks the store where there is none or the last is in doubt.

        Raises:
            StoreUnavailableError: Nobody answers.
            StoreTopologyError: The store is not what the address says.
        """
        known = self._known
        if known is None or self._suspect:
            self.refresh(known.generation if known else None)
            known = self._known
        assert known is not None
        return known

    async def slots_async(self) -> SlotMap:
        """As `slots`, without holding the event loop."""
        known = self._known
        if known is None or self._suspect:
            await self.refresh_async(known.generation if known else None)
            known = self._known
        assert known is not None
        return known

    def suspect(self) -> None:
        """Note that a server failed or answered as a replica: the next to call `slots` asks the store anew.

        Nothing comes of it on a standalone server.
        """
        self._suspect = self.address.kind is not Kind.STANDALONE

    def moved(self, slot: int, node: Node) -> None:
        """Take over what a MOVED says, ahead of the next refresh."""
        with self._lock:
            if self._known is not None:
                self._known = self._known.with_owner(slot, node)
            self._suspect = True

    def refresh(self, seen: int | None) -> None:
        """Learn the map anew, unless somebody did since generation `seen`.

        Raises:
            StoreUnavailableError: Nobody answers.
            StoreTopologyError: The store is not what the address says.
        """
        if self.address.kind is Kind.STANDALONE:
            return
        with self._lock:
            known = self._known
            if known is not None and known.generation != seen and not self._suspect:
                return
            if self._failed is not None and time.monotonic() - self._failed[0] < PAUSE_S:
                raise type(self._failed[1])(*self._failed[1].args)
            try:
                self._known = self._discover(known)
            except (StoreUnavailableError, StoreTopologyError) as error:
                self._failed = time.monotonic(), error
                raise
            self._suspect, self._failed = False, None

    async def refresh_async(self, seen: int | None) -> None:
        """As `refresh`, off the event loop; callers at the same moment share one discovery, and none cancels it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(asyncio.to_thread(self.refresh, seen))
            # Nobody may be left to look at the outcome when all callers have given up.
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._refreshing)

    def connection_class(self, module: Any) -> Any:
        """Return redis-py's connection class: `redis` or `redis.asyncio` is the module."""
        if self.address.nodes[0].unix_socket is not None:
            return module.UnixDomainSocketConnection
        return module.SSLConnection if self.address.tls else module.Connection

    def connection_options(self, node: Node) -> dict[str, Any]:
        """Return redis-py's settings of a connection to a server of the store."""
        address = self.address
        login = {"db": address.db, "username": address.username, "password": address.password}
        return _options(address, node, tls=address.tls) | login

    async def open(
        self, node: Node, protocol_factory: Callable[[], _Protocol]
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Open a socket to a server, TLS included; send `handshake` before anything else.

        Raises:
            OSError: It cannot be reached, or TLS fails (`ssl.SSLError`).
        """
        loop = asyncio.get_running_loop()
        if node.unix_socket is not None:
            transport, protocol = await loop.create_unix_connection(protocol_factory, node.unix_socket)
            return transport, protocol
        tls = self.tls if self.address.tls else None
        transport, protocol = await loop.create_connection(
            protocol_factory, node.host, node.port, ssl=tls, server_hostname=node.host if tls else None
        )
        return transport, protocol

    def handshake(self, resp: int = 3) -> list[bytes]:
        """Return the packed commands that a new connection begins with; each is answered by one reply.

        `HELLO` with the login, then SELECT and CLIENT SETNAME where the address asks for them.
        """
        address = self.address
        hello: list[str] = ["HELLO", str(resp)]
        if address.password is not None:
            hello += ["AUTH", address.username or "default", address.password]
        if "client_name" in address.options:
            hello += ["SETNAME", str(address.options["client_name"])]
        commands = [tuple(hello)]
        if address.db:
            commands.append(("SELECT", str(address.db)))
        return [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]

    def _discover(self, known: SlotMap | None) -> SlotMap:
        generation = 0 if known is None else known.generation + 1
        if self.address.kind is Kind.SENTINEL:
            return SlotMap.of_one(self._master(), generation)
        candidates = list(dict.fromkeys((*(known.nodes if known else ()), *self.address.nodes)))
        # Another one each time, so that a node that was cut off cannot hand out its old map for ever.
        self._turn += 1
        turn = self._turn % len(candidates)
        return self._cluster_slots([*candidates[turn:], *candidates[:turn]], generation)

    def _cluster_slots(self, candidates: Sequence[Node], generation: int) -> SlotMap:
        best: SlotMap | None = None
        reasons: list[str] = []
        for node in candidates:
            try:
                reply = self._ask(
                    self.connection_class(redis), self.connection_options(node), "CLUSTER", "SLOTS"
                )
            except redis.ResponseError as error:
                if "cluster support disabled" in str(error):
                    raise StoreTopologyError(
                        f"{node} is a standalone server and the address is a cluster's; "
                        "use redis://, or redis_type: redis"
                    ) from error
                reasons.append(f"{node}: {error}")
                continue
            except (redis.RedisError, OSError) as error:
                reasons.append(f"{node}: {told(error)}")
                continue
            found = parse_slots(reply, node, generation)
            if found.covers_all:
                return found
            best = found if best is None or _coverage(found) > _coverage(best) else best
        if best is None or not best.nodes:
            raise StoreUnavailableError("no node of the cluster tells its slots: " + "; ".join(reasons))
        return best

    def _master(self) -> Node:
        """Ask the sentinels, one after the other, for a master that says itself that it is one."""
        name = self.address.sentinels.master
        reasons: list[str] = []
        for sentinel in self.address.nodes:
            try:
                master = self._master_by(sentinel, name)
                role = self._ask(self.connection_class(redis), self.connection_options(master), "ROLE")
            except redis.ResponseError as error:
                if "unknown command" in str(error).lower():
                    raise StoreTopologyError(
                        f"{sentinel} is no Sentinel and the address is one of Sentinels; use redis:// for the "
                        "server itself"
                    ) from error
                reasons.append(f"{sentinel}: {error}")
            except (redis.RedisError, StoreUnavailableError, OSError) as error:
                reasons.append(f"{sentinel}: {told(error)}")
            else:
                if isinstance(role, list) and role[:1] == [b"master"]:
                    return master
                reasons.append(f"{sentinel}: {master} is not a master yet")
        raise StoreUnavailableError(
            f"no sentinel names a master {name!r} that answers: " + "; ".join(reasons)
        )

    def _master_by(self, sentinel: Node, name: str) -> Node:
        asked = self.address.sentinels
        kind = redis.SSLConnection if asked.tls else redis.Connection
        options = _options(self.address, sentinel, tls=asked.tls)
        options |= {"username": asked.username, "password": asked.password}
        found = self._ask(kind, options, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        if not isinstance(found, list):
            raise StoreUnavailableError(f"it watches no master {name!r}; name it in the address")
        return Node(found[0].decode(), int(found[1]))

    def _ask(self, connection_class: Any, options: dict[str, Any], *command: str) -> Any:
        bounds = {
            name: min(float(options[name]), DISCOVER_TIMEOUT_S)
            for name in ("socket_timeout", "socket_connect_timeout")
        }
        connection = connection_class(**(options | bounds))
        try:
            connection.connect()
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()


def parse_slots(reply: Any, asked: Node, generation: int) -> SlotMap:
    """Read the answer to CLUSTER SLOTS; a node that does not know its own host is where it was asked."""
    nodes: dict[Node, int] = {}
    owners = array("H", [_NOBODY]) * SLOTS
    for start, end, (host, port, *_), *_replicas in reply:
        name = host.decode() if host else ""
        node = Node(name if name not in {"", "?"} else asked.host, int(port))
        index = nodes.setdefault(node, len(nodes))
        owners[start : end + 1] = array("H", [index]) * (end + 1 - start)
    return SlotMap(generation, tuple(nodes), owners)


def ssl_context(address: Address) -> ssl.SSLContext:
    """Make the TLS settings of an address for sockets that are not redis-py's; as strict as redis-py's.

    Raises:
        ConnectionStringError: A file that the address names is not there, or not what it should be.
    """
    try:
        return _ssl_context(address)
    except OSError as error:  # ssl's own errors are some
        names = [
            name for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if address.options.get(name)
        ]
        given = ", ".join(f"{name}={address.options[name]}" for name in names)
        raise ConnectionStringError(f"{given} cannot be used: {error.strerror or error}") from error


def _ssl_context(address: Address) -> ssl.SSLContext:
    options = address.options
    context = ssl.create_default_context(cafile=_path(options.get("ssl_ca_certs")))
    requirement = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL}.get(
        str(options.get("ssl_cert_reqs", "required")), ssl.CERT_REQUIRED
    )
    context.check_hostname = bool(options.get("ssl_check_hostname", True)) and requirement != ssl.CERT_NONE
    context.verify_mode = requirement
    certificate = _path(options.get("ssl_certfile"))
    if certificate is not None:
        context.load_cert_chain(certificate, _path(options.get("ssl_keyfile")))
    return context


_NAME_FIX = "call the server by a name of its certificate, or say ssl_check_hostname=false"
_CERTIFICATE_FIXES = {62: _NAME_FIX, 64: _NAME_FIX, 10: "have the server's certificate renewed"}
"""By OpenSSL's `X509_V_ERR_HOSTNAME_MISMATCH`, `…_IP_ADDRESS_MISMATCH` and `…_CERT_HAS_EXPIRED`."""


def told(error: Exception) -> str:
    """Say what went wrong on the way to a server, with what to do about it where that can be known."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.AuthenticationError):
        return f"{text.rstrip('.')}: give the store's user and password in the address"
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        fix = _CERTIFICATE_FIXES.get(cause.verify_code, "name the authority that signed it with ssl_ca_certs")
        return f"{text}: {fix}"
    if isinstance(cause, ssl.SSLError):
        return f"{text}: the server speaks no TLS, or wants a client certificate (ssl_certfile, ssl_keyfile)"
    if isinstance(cause, TimeoutError) and "handshake" in str(cause):
        return f"{text}: the server speaks no TLS, so leave rediss:// or ssl=true out"
    if isinstance(cause, ConnectionResetError | EOFError) or "closed by server" in text:
        return f"{text}: if it wants TLS, say rediss:// or ssl=true; if it does not, leave that out"
    return text


def _coverage(slots: SlotMap) -> int:
    return SLOTS - slots.owners.count(_NOBODY)


def _options(address: Address, node: Node, *, tls: bool) -> dict[str, Any]:
    timeouts = {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": CONNECT_TIMEOUT_S}
    given = {name: value for name, value in address.options.items() if tls or not name.startswith("ssl_")}
    options: dict[str, Any] = timeouts | given
    if node.unix_socket is not None:
        return options | {"path": node.unix_socket}
    options |= {"host": node.host, "port": node.port, "socket_keepalive": True}
    return options | ({"ssl_check_hostname": _checks_hostname(address)} if tls else {})


def _checks_hostname(address: Address) -> bool:
    return bool(address.options.get("ssl_check_hostname", True)) and (
        address.options.get("ssl_cert_reqs") != "none"
    )


def _path(value: object) -> str | None:
    return None if value is None else str(value)
