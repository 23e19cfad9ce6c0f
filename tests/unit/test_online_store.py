from __future__ import annotations

from contextlib import nullcontext

import pytest
import redis

from online.errors import ConnectionStringError, StoreUnsupportedError
from online.store import (
    Address,
    _check_version,
    connect,
    connect_async,
    feast_connection_string,
    parse_address,
)

WORD, COMMA, DIGITS, EQUALS = "secret", "p,w", "12", "a=b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://localhost:6379", Address()),
        ("redis://cache:7000/3", Address(host="cache", port=7000, db=3)),
        ("rediss://me:p%2Cw@cache", Address(host="cache", username="me", password=COMMA, tls=True)),
        ("unix:///run/v.sock?db=2", Address(unix_socket="/run/v.sock", db=2)),
        ("redis://[::1]:6380/0", Address(host="::1", port=6380)),
        ("redis://h?socket_timeout=0.5", Address(host="h", options={"socket_timeout": 0.5})),
        ("localhost:6379", Address()),
        ("cache:7000,db=3,password=secret", Address(host="cache", port=7000, db=3, password=WORD)),
        ('cache:7000,password="12"', Address(host="cache", port=7000, password=DIGITS)),
        ("cache:7000,password=a=b", Address(host="cache", port=7000, password=EQUALS)),
        ("cache:7000,ssl=true", Address(host="cache", port=7000, tls=True)),
        ("cache:7000,ssl=False", Address(host="cache", port=7000, tls=False)),
        ("localhost:6379,unix_socket_path=/run/v.sock", Address(unix_socket="/run/v.sock")),
    ],
)
def test_addresses_are_read_in_both_forms(text: str, expected: Address) -> None:
    """URLs and Feast's connection strings name the same things; `ssl=False` is off."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://localhost", "unknown scheme 'http'"),
        ("redis://localhost:99999", "port"),
        ("redis://localhost/one", "db is 'one'"),
        ("redis://localhost?colour=red", "unknown option 'colour'"),
        ("a:1,b:2", "found 2"),
        ("db=1", "found 0"),
        ("localhost:port", "port is 'port'"),
        ("localhost:1,ssl=maybe", "use true or false"),
        ("localhost:1,socket_timeout=-1", "seconds between"),
    ],
)
def test_addresses_that_make_no_sense_are_refused(text: str, message: str) -> None:
    """A wrong address fails with what is wrong, before anything connects."""
    with pytest.raises(ConnectionStringError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://me:secret@cache:7000/2?ssl_cert_reqs=none",
        "redis://:123@cache:7000/0",
        "redis://:true@cache:7000/0",
        "redis://:null@cache:7000/0",
        "unix:///run/v.sock?db=1",
    ],
)
def test_feast_connection_strings_mean_the_same(url: str) -> None:
    """What is written for Feast reads back as the same address."""
    assert parse_address(feast_connection_string(url)) == parse_address(url)


@pytest.mark.parametrize("url", ["redis://:a%2Cb@h:1/0", "redis://[::1]:6379/0"])
def test_feast_connection_strings_refuse_what_feast_cannot_parse(url: str) -> None:
    """An address that Feast would misread is refused instead of written."""
    with pytest.raises(ConnectionStringError, match="Feast cannot parse"):
        feast_connection_string(url)


@pytest.mark.parametrize(("version", "supported"), [("6.2.14", False), ("7.0.15", True), ("8.1.0", True)])
def test_stores_older_than_redis_seven_are_refused(version: str, supported: bool) -> None:
    """An old server is refused by name before anything is written to it."""
    expectation = nullcontext() if supported else pytest.raises(StoreUnsupportedError, match=version)
    with expectation:
        _check_version(version)


def test_clients_are_bounded_in_connections_and_time() -> None:
    """Pools have a limit, sockets have timeouts, and nothing is repeated silently."""
    for client in (connect("redis://:secret@localhost:1/0"), connect_async("redis://:secret@localhost:1/0")):
        pool = client.connection_pool
        assert pool.max_connections == 32
        assert pool.connection_kwargs["socket_timeout"] == 10
        assert pool.connection_kwargs["socket_connect_timeout"] == 3
    assert connect("redis://localhost:1/0").connection_pool.connection_kwargs["retry"].get_retries() == 0
    with pytest.raises(redis.ConnectionError):
        connect("redis://localhost:1/0").ping()


def test_addresses_keep_passwords_out_of_logs() -> None:
    """The text form of an address does not show the password."""
    assert "secret" not in repr(parse_address("redis://:secret@localhost/0"))
