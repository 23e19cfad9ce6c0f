from __future__ import annotations

from contextlib import nullcontext

import pytest
import redis

from online.address import Address, Kind, Node, Sentinels, url_of
from online.errors import ConnectionStringError, StoreUnsupportedError
from online.store import (
    _check_version,
    connect,
    connect_async,
    feast_connection_string,
    parse_address,
)

WORD, COMMA, DIGITS, EQUALS = "secret", "p,w", "12", "a=b"
CACHE = (Node("cache", 7000),)
THREE = (Node("a"), Node("::1", 7001), Node("b", 2))
TWO = (Node("a", 26379), Node("b", 1))
SHOP = Sentinels(master="shop")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://localhost:6379", Address()),
        ("redis://cache:7000/3", Address(nodes=CACHE, db=3)),
        ("rediss://me:p%2Cw@cache:7000", Address(nodes=CACHE, username="me", password=COMMA, tls=True)),
        ("unix:///run/v.sock?db=2", Address(nodes=(Node(unix_socket="/run/v.sock"),), db=2)),
        ("redis://[::1]:6380/0", Address(nodes=(Node("::1", 6380),))),
        ("redis://h?socket_timeout=0.5", Address(nodes=(Node("h"),), options={"socket_timeout": 0.5})),
        ("redis+cluster://:secret@a,[::1]:7001,b:2", Address(nodes=THREE, kind=Kind.CLUSTER, password=WORD)),
        ("rediss+cluster://a,[::1]:7001,b:2", Address(nodes=THREE, kind=Kind.CLUSTER, tls=True)),
        ("redis+sentinel://a,b:1/shop/2", Address(nodes=TWO, kind=Kind.SENTINEL, db=2, sentinels=SHOP)),
        ("redis+sentinel://a,b:1", Address(nodes=TWO, kind=Kind.SENTINEL)),
        (
            "rediss+sentinel://:secret@a,b:1/shop?sentinel_tls=false&sentinel_password=12",
            Address(
                nodes=TWO,
                kind=Kind.SENTINEL,
                tls=True,
                password=WORD,
                sentinels=Sentinels(master="shop", password=DIGITS),
            ),
        ),
        ("localhost:6379", Address()),
        ("cache:7000,db=3,password=secret", Address(nodes=CACHE, db=3, password=WORD)),
        ('cache:7000,password="12"', Address(nodes=CACHE, password=DIGITS)),
        ("cache:7000,password=a=b", Address(nodes=CACHE, password=EQUALS)),
        ("cache:7000,ssl=true", Address(nodes=CACHE, tls=True)),
        ("cache:7000,ssl=False", Address(nodes=CACHE, tls=False)),
        ("cache:7000,skip_full_coverage_check=true", Address(nodes=CACHE)),
        ("localhost:6379,unix_socket_path=/run/v.sock", Address(nodes=(Node(unix_socket="/run/v.sock"),))),
    ],
)
def test_addresses_are_read_in_both_forms(text: str, expected: Address) -> None:
    """URLs and Feast's connection strings name the same things; `ssl=False` is off."""
    assert parse_address(text) == expected
    assert parse_address(url_of(expected)) == expected


@pytest.mark.parametrize(
    ("redis_type", "text", "expected"),
    [
        ("redis", "cache:7000", Address(nodes=CACHE)),
        (
            "redis_cluster",
            "a,b:1,ssl=true",
            Address(nodes=(Node("a"), Node("b", 1)), kind=Kind.CLUSTER, tls=True),
        ),
        ("redis_sentinel", "a,b:1,db=2", Address(nodes=TWO, kind=Kind.SENTINEL, db=2, sentinels=SHOP)),
        (
            "redis_sentinel",
            'a,b:1,sentinel_kwargs={"password":"secret"}',
            Address(nodes=TWO, kind=Kind.SENTINEL, sentinels=Sentinels(master="shop", password=WORD)),
        ),
    ],
)
def test_addresses_follow_feasts_redis_type(redis_type: str, text: str, expected: Address) -> None:
    """Feast's `redis_type` and `sentinel_master` say what the hosts of a connection string are."""
    assert parse_address(text, redis_type, "shop") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://localhost", "unknown scheme 'http'"),
        ("redis://localhost:99999", "port"),
        ("redis://localhost/one", "db is 'one'; use the number of a database"),
        ("rediss://localhost/-1", "db is '-1'; use the number of a database"),
        ("redis://localhost/12345678901234567890", "db has 20 digits"),
        ("localhost:6379,db=one", "db is 'one'; use the number of a database"),
        ("redis://localhost?colour=red", "unknown option 'colour'"),
        ("rediss://localhost?ssl_cert_reqs=never", "ssl_cert_reqs is 'never'; use none, optional, required"),
        ("a:1,b:2", "found 2"),
        ("redis://a:1,b:2", "found 2"),
        ("redis+cluster://a/1", "database 0 alone"),
        ("redis+proxy://a", "unknown scheme 'redis.proxy'"),
        ("redis+sentinel://a/shop/0/more", "goes on with 'more'"),
        ("db=1", "found 0"),
        ("localhost:port", "'port' is no port"),
        ("redis://:p@s:s/w@localhost:6379", "of a password must be encoded"),
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
