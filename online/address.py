"""Where a store is and how to get in: URLs and Feast's `connection_string`, read into one form.

redis://user:password@host:6379/0          rediss://…           unix:///run/valkey.sock?db=0
redis+cluster://user:password@a:6379,b     rediss+cluster://…
redis+sentinel://user:password@a:26379,b/mymaster/0             rediss+sentinel://…
localhost:6379,db=0,password=…,ssl=true    (Feast's form, with Feast's `redis_type`)
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from online.errors import ConnectionStringError

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
DEFAULT_MASTER = "mymaster"

_HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-:%")
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MOST_DB_DIGITS = 9
_FLOAT_OPTIONS = frozenset({"socket_timeout", "socket_connect_timeout"})
_TEXT_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "client_name"})
_BOOL_OPTIONS = frozenset({"ssl_check_hostname"})
_CERT_REQS = ("none", "optional", "required")
_OPTIONS = _FLOAT_OPTIONS | _TEXT_OPTIONS | _BOOL_OPTIONS
_FEAST_ONLY = frozenset(
    {
        "decode_responses",
        "health_check_interval",
        "max_connections",
        "protocol",
        "require_full_coverage",
        "retry_on_timeout",
        "skip_full_coverage_check",
        "socket_keepalive",
    }
)
"""Settings of Feast's own client that change nothing about where the store is; Waypost has its own."""


class Kind(StrEnum):
    """How a store is laid out; the values are Feast's `redis_type`."""

    STANDALONE = "redis"
    CLUSTER = "redis_cluster"
    SENTINEL = "redis_sentinel"


class Node(NamedTuple):
    """One server.

    Attributes:
        unix_socket: Path of a unix socket; host and port are unused then.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    unix_socket: str | None = None

    def __str__(self) -> str:
        if self.unix_socket is not None:
            return self.unix_socket
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """How the sentinels themselves are asked, and for what.

    Attributes:
        master: Name of the master that they watch.
        tls: Whether they speak TLS; the store's own setting is apart from it.
    """

    master: str = DEFAULT_MASTER
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is and how to get in.

    Attributes:
        nodes: The server; or some nodes of a cluster, which know the others; or the sentinels.
        sentinels: Used where the kind is SENTINEL.
        options: Further redis-py settings: timeouts in seconds and TLS files.
    """

    nodes: tuple[Node, ...] = (Node(),)
    kind: Kind = Kind.STANDALONE
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    sentinels: Sentinels = Sentinels()
    options: Mapping[str, str | float | bool] = field(default_factory=dict)


def parse_address(text: str, redis_type: str | None = None, sentinel_master: str | None = None) -> Address:
    """Read a URL or Feast's connection string.

    Args:
        text: Either form.
        redis_type: Feast's setting of that name, for Feast's form; a URL says it itself.
        sentinel_master: Feast's setting of that name.

    Raises:
        ConnectionStringError: It is neither, does not fit its kind, or has an option that is not understood.
    """
    if "://" in text:
        return _from_url(text)
    return _from_feast(text, Kind(redis_type or Kind.STANDALONE), sentinel_master or DEFAULT_MASTER)


def url_of(address: Address) -> str:
    """Say an address as a URL, password included; `parse_address` reads it back."""
    node = address.nodes[0]
    login = _login(address.username, address.password)
    query: dict[str, str] = {name: _text(value) for name, value in address.options.items()}
    if node.unix_socket is not None:
        return _with_query(f"unix://{login}{quote(node.unix_socket)}", {"db": str(address.db)} | query)
    hosts = ",".join(str(node) for node in address.nodes)
    scheme = "rediss" if address.tls else "redis"
    if address.kind is Kind.CLUSTER:
        return _with_query(f"{scheme}+cluster://{login}{hosts}", query)
    if address.kind is Kind.STANDALONE:
        return _with_query(f"{scheme}://{login}{hosts}/{address.db}", query)
    asked = address.sentinels
    query |= {"sentinel_tls": _text(asked.tls)} if asked.tls != address.tls else {}
    query |= {"sentinel_username": asked.username} if asked.username else {}
    query |= {"sentinel_password": asked.password} if asked.password else {}
    return _with_query(
        f"{scheme}+sentinel://{login}{hosts}/{quote(asked.master, safe='')}/{address.db}", query
    )


def feast_connection_string(url: str) -> str:
    """Say an address in Feast's form, for `online_store.connection_string` of a `feature_store.yaml`.

    Raises:
        ConnectionStringError: Feast cannot parse it: an IPv6 host, a comma in a password or path, or sentinels that
            want a login of their own.
    """
    address = parse_address(url)
    for node in address.nodes:
        if ":" in node.host:
            raise ConnectionStringError(f"Feast cannot parse the IPv6 host {node.host!r}; use a host name")
    asked = address.sentinels
    if address.kind is Kind.SENTINEL and (asked.username or asked.password or asked.tls):
        raise ConnectionStringError("Feast asks sentinels without login and TLS; it cannot use this address")
    parts = [f"{node.host}:{node.port}" for node in address.nodes]
    parts += [] if address.kind is Kind.CLUSTER else [f"db={address.db}"]
    settings: dict[str, str | float | None] = {
        "username": address.username,
        "password": address.password,
        "ssl": "true" if address.tls else None,
        "unix_socket_path": address.nodes[0].unix_socket,
        **{
            name: _text(value) if isinstance(value, bool) else value
            for name, value in address.options.items()
        },
    }
    parts += [_feast_option(name, value) for name, value in settings.items() if value is not None]
    return ",".join(parts)


def _login(username: str | None, password: str | None) -> str:
    if username is None and password is None:
        return ""
    secret = "" if password is None else f":{quote(password, safe='')}"
    return f"{quote(username or '', safe='')}{secret}@"


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(query)}" if query else url


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_url(url: str) -> Address:
    # Brackets behind the first host are no URL to `urlsplit` of newer Pythons.
    parts = urlsplit(url.replace("[", "%5B").replace("]", "%5D"))
    layout, tls = _scheme(parts.scheme)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, _, hosts = parts.netloc.rpartition("@")
    hosts = hosts.replace("%5B", "[").replace("%5D", "]")
    username, _, password = login.partition(":")
    unix = parts.scheme == "unix"
    path = [] if unix else [unquote(piece) for piece in parts.path.split("/") if piece]
    sentinels = Sentinels()
    if layout is Kind.SENTINEL:
        sentinels = _sentinels(path.pop(0) if path else DEFAULT_MASTER, query, tls=tls)
    db = query.pop("db", None) or (path.pop(0) if path else "0")
    if path:
        raise ConnectionStringError(f"the path goes on with {path[0]!r}; leave that out")
    nodes = (Node(unix_socket=unquote(parts.path)),) if unix else _nodes(hosts.split(","), layout)
    return _checked(
        Address(
            nodes=nodes,
            kind=layout,
            db=_database(db),
            username=unquote(username) or None,
            password=unquote(password) or None,
            tls=tls,
            sentinels=sentinels,
            options=_options(query),
        )
    )


def _scheme(scheme: str) -> tuple[Kind, bool]:
    protocol, _, layout = scheme.partition("+")
    kinds = {"": Kind.STANDALONE, "cluster": Kind.CLUSTER, "sentinel": Kind.SENTINEL}
    if scheme == "unix":
        return Kind.STANDALONE, False
    if protocol not in {"redis", "rediss"} or layout not in kinds:
        raise ConnectionStringError(
            f"unknown scheme {scheme!r}; use redis://, redis+cluster://, redis+sentinel:// "
            "(with TLS rediss…) or unix://"
        )
    return kinds[layout], protocol == "rediss"


def _sentinels(master: str, query: dict[str, str], *, tls: bool) -> Sentinels:
    return Sentinels(
        master=master,
        username=query.pop("sentinel_username", None),
        password=query.pop("sentinel_password", None),
        tls=_bool("sentinel_tls", query.pop("sentinel_tls", _text(tls))),
    )


def _from_feast(text: str, kind: Kind, master: str) -> Address:
    items = [item.strip() for item in text.split(",") if item.strip()]
    settings = {
        name: _unquoted(value) for name, _, value in (item.partition("=") for item in items if "=" in item)
    }
    sentinels = Sentinels()
    if kind is Kind.SENTINEL:
        sentinels = _feast_sentinels(master, settings.pop("sentinel_kwargs", "{}"))
    nodes = _nodes([item for item in items if "=" not in item], kind)
    unix_socket = settings.pop("unix_socket_path", None)
    return _checked(
        Address(
            nodes=nodes if unix_socket is None else (Node(unix_socket=unix_socket),),
            kind=kind,
            db=_database(settings.pop("db", "0")),
            username=settings.pop("username", None),
            password=settings.pop("password", None),
            tls=_bool("ssl", settings.pop("ssl", "false")),
            sentinels=sentinels,
            options=_options({name: value for name, value in settings.items() if name not in _FEAST_ONLY}),
        )
    )


def _feast_sentinels(master: str, text: str) -> Sentinels:
    """Read `sentinel_kwargs`, the JSON that Feast hands to redis-py for the sentinels' own connections."""
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ConnectionStringError('sentinel_kwargs is no JSON object; give it as {"password": "…"}')
    return Sentinels(
        master=master,
        username=settings.get("username"),
        password=settings.get("password"),
        tls=bool(settings.get("ssl")),
    )


def _nodes(hosts: list[str], kind: Kind) -> tuple[Node, ...]:
    default_port = DEFAULT_SENTINEL_PORT if kind is Kind.SENTINEL else DEFAULT_PORT
    return tuple(_node(host, default_port) for host in hosts)


def _node(text: str, default_port: int) -> Node:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not set(host) <= _HOST_CHARACTERS:
        raise ConnectionStringError(f"{host!r} is no host name; if it is a variable, set it")
    if port and not (port.isascii() and port.isdigit()):
        raise ConnectionStringError(
            f"{port!r} is no port; @, :, / and , of a password must be encoded in a URL (%40, %3A, %2F, %2C)"
        )
    number = int(port) if port else default_port
    if not 0 < number < 65_536:
        raise ConnectionStringError(f"the port is {number}, not a number from 1 to 65535")
    return Node(host or "localhost", number)


def _checked(address: Address) -> Address:
    """Refuse what its kind cannot have."""
    count = len(address.nodes)
    if not count:
        raise ConnectionStringError("no host is named, found 0; begin with host:port")
    if address.kind is Kind.STANDALONE and count != 1:
        raise ConnectionStringError(
            f"one standalone server has one host:port, found {count}; for a cluster use redis+cluster:// or "
            "redis_type: redis_cluster, for sentinels redis+sentinel:// or redis_type: redis_sentinel"
        )
    if address.kind is Kind.CLUSTER and address.db:
        raise ConnectionStringError(f"db is {address.db}; a cluster has database 0 alone")
    if address.kind is not Kind.STANDALONE and address.nodes[0].unix_socket is not None:
        raise ConnectionStringError("a unix socket leads to one server; name hosts instead")
    return address


def _unquoted(value: str) -> str:
    """Undo the JSON quotes in which Feast's form carries text that looks like a number."""
    return str(json.loads(value)) if len(value) > 1 and value[0] == value[-1] == '"' else value


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConnectionStringError(f"db is {text!r}; use the number of a database, such as 0")
    if len(text) > _MOST_DB_DIGITS:
        raise ConnectionStringError(
            f"db has {len(text)} digits; no store has as many databases, 0 is the first"
        )
    return int(text)


def _bool(name: str, text: str) -> bool:
    """Read a bool in any case: Feast itself takes `ssl=False` for the text "False" and turns TLS on."""
    found = _BOOLS.get(text.lower())
    if found is None:
        raise ConnectionStringError(f"{name} is {text!r}; use true or false")
    return found


def _options(settings: Mapping[str, str]) -> dict[str, str | float | bool]:
    unknown = sorted(set(settings) - _OPTIONS)
    if unknown:
        raise ConnectionStringError(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}")
    return {name: _option(name, value) for name, value in settings.items()}


def _option(name: str, text: str) -> str | float | bool:
    if name in _BOOL_OPTIONS:
        return _bool(name, text)
    if name == "ssl_cert_reqs" and text not in _CERT_REQS:
        raise ConnectionStringError(f"{name} is {text!r}; use {', '.join(_CERT_REQS)}")
    return _seconds(name, text) if name in _FLOAT_OPTIONS else text


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
    return text not in {"true", "false"}
