"""Connections to the store, from a URL or Feast's `connection_string`, with bounds on all that can wait.

    redis://user:password@host:6379/0      rediss://…      unix:///run/valkey.sock?db=0
    localhost:6379,db=0,password=…,ssl=true                (Feast's form)

Commands are never repeated behind the caller's back: whether a write that got no answer happened is for the writer
to find out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from online.errors import ConnectionStringError, StoreUnavailableError, StoreUnsupportedError

MAX_CONNECTIONS = 32
POOL_WAIT_S = 5.0
SOCKET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0
OLDEST_VERSION = (7, 0)

_SCHEMES = ("redis", "rediss", "unix")
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_FLOAT_OPTIONS = frozenset({"socket_timeout", "socket_connect_timeout"})
_TEXT_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "client_name"})
_OPTIONS = _FLOAT_OPTIONS | _TEXT_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is and how to get in.

    Attributes:
        unix_socket: Path of a unix socket; host and port are unused then.
        options: Further redis-py settings: timeouts in seconds and TLS files.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    unix_socket: str | None = None
    options: Mapping[str, str | float] = field(default_factory=dict)


def parse_address(text: str) -> Address:
    """Read a URL or Feast's connection string.

    Raises:
        ConnectionStringError: It is neither, names several hosts, or has an option that is not understood.
    """
    return _from_url(text) if "://" in text else _from_feast(text)


def connect(url: str) -> redis.Redis:
    """Make a client for threads; nothing is sent before its first command."""
    address = parse_address(url)
    pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        connection_class=_connection_class(address, redis),
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        retry=Retry(NoBackoff(), 0),
        **_connection_options(address),
    )
    return redis.Redis.from_pool(pool)


def connect_async(url: str) -> redis.asyncio.Redis:
    """Make a client for asyncio; it belongs to the loop that first uses it."""
    address = parse_address(url)
    pool = redis.asyncio.BlockingConnectionPool(
        connection_class=_connection_class(address, redis.asyncio),
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        **_connection_options(address),
    )
    return redis.asyncio.Redis.from_pool(pool)


def feast_connection_string(url: str) -> str:
    """Say an address in Feast's form, for `online_store.connection_string` of a `feature_store.yaml`.

    Raises:
        ConnectionStringError: Feast cannot parse it: an IPv6 host, or a comma in a password or path.
    """
    address = parse_address(url)
    if ":" in address.host:
        raise ConnectionStringError(f"Feast cannot parse the IPv6 host {address.host!r}; use a host name")
    parts = [f"{address.host}:{address.port}", f"db={address.db}"]
    settings: dict[str, str | float | None] = {
        "username": address.username,
        "password": address.password,
        "ssl": "true" if address.tls else None,
        "unix_socket_path": address.unix_socket,
        **address.options,
    }
    parts += [_feast_option(name, value) for name, value in settings.items() if value is not None]
    return ",".join(parts)


def check_store(client: redis.Redis) -> list[str]:
    """Return what about the server's settings weakens Waypost's guarantees, in words for an operator.

    Raises:
        StoreUnsupportedError: The server is older than Redis 7.0.
        StoreUnavailableError: It does not answer.
    """
    try:
        info = cast("Mapping[str, object]", client.info("server"))
        _check_version(str(info.get("redis_version", "0")))
        return _settings_warnings(client)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(f"the store does not answer: {error}") from error


def _check_version(version: str) -> None:
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise StoreUnsupportedError(f"the store is Redis {version}; use Redis 7.0, Valkey 8 or newer")


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


def _from_url(url: str) -> Address:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ConnectionStringError(f"unknown scheme {parts.scheme!r}; use redis://, rediss:// or unix://")
    query = dict(parse_qsl(parts.query))
    unix = parts.scheme == "unix"
    db = query.pop("db", None) or ("0" if unix else parts.path.strip("/") or "0")
    try:
        port = parts.port or 6379
    except ValueError as error:
        raise ConnectionStringError("the port is not a number from 1 to 65535") from error
    return Address(
        host=parts.hostname or "localhost",
        port=port,
        db=_number("db", db),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        unix_socket=unquote(parts.path) if unix else None,
        options=_options(query),
    )


def _from_feast(text: str) -> Address:
    items = [item.strip() for item in text.split(",") if item.strip()]
    hosts = [item for item in items if "=" not in item]
    if len(hosts) != 1:
        raise ConnectionStringError(f"expected one host:port, found {len(hosts)}; name one standalone server")
    host, _, port = hosts[0].rpartition(":")
    settings = {
        name: _unquoted(value) for name, _, value in (item.partition("=") for item in items if "=" in item)
    }
    return Address(
        host=host or hosts[0],
        port=_number("port", port) if host else 6379,
        db=_number("db", settings.pop("db", "0")),
        username=settings.pop("username", None),
        password=settings.pop("password", None),
        tls=_bool("ssl", settings.pop("ssl", "false")),
        unix_socket=settings.pop("unix_socket_path", None),
        options=_options(settings),
    )


def _unquoted(value: str) -> str:
    """Undo the JSON quotes in which Feast's form carries text that looks like a number."""
    return str(json.loads(value)) if len(value) > 1 and value[0] == value[-1] == '"' else value


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConnectionStringError(f"{name} is {text!r}, not a number")
    return int(text)


def _bool(name: str, text: str) -> bool:
    """Read a bool in any case: Feast itself takes `ssl=False` for the text "False" and turns TLS on."""
    found = _BOOLS.get(text.lower())
    if found is None:
        raise ConnectionStringError(f"{name} is {text!r}; use true or false")
    return found


def _options(settings: Mapping[str, str]) -> dict[str, str | float]:
    unknown = sorted(set(settings) - _OPTIONS)
    if unknown:
        raise ConnectionStringError(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}")
    return {
        name: _seconds(name, value) if name in _FLOAT_OPTIONS else value for name, value in settings.items()
    }


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3_600:
        raise ConnectionStringError(f"{name} is {text!r}; use seconds between 0 and 3600")
    return seconds


def _feast_option(name: str, value: str | float) -> str:
    text = str(value)
    if "," in text:
        raise ConnectionStringError(f"Feast cannot parse a comma in {name}; choose one without")
    return f"{name}={json.dumps(text) if isinstance(value, str) and _looks_like_json(text) else text}"


def _looks_like_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return text != "true"


def _connection_class(address: Address, module: Any) -> Any:
    if address.unix_socket is not None:
        return module.UnixDomainSocketConnection
    return module.SSLConnection if address.tls else module.Connection


def _connection_options(address: Address) -> dict[str, Any]:
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        **address.options,
    }
    if address.unix_socket is not None:
        return options | {"path": address.unix_socket}
    return options | {"host": address.host, "port": address.port, "socket_keepalive": True}
