"""Connections to one server, handed out again and again."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from online.exchange import exchange
from online.pool import Pool
from online.store import connect
from server.embedded import EmbeddedValkey
from tests.support.stores import wait_until

FORKING = """
import os, sys
from online.exchange import exchange
from online.store import connect

client = connect(sys.argv[1])
exchange(client, [(b"SET", b"k", b"parent")])
held = client.connection_pool.get_connection()
pid = os.fork()
if not pid:
    own = client.connection_pool.get_connection()
    assert own is not held and own.pid == os.getpid() != held.pid
    client.connection_pool.release(own)
    assert exchange(client, [(b"SET", b"k", b"child"), (b"GET", b"k")]) == [b"OK", b"child"]
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
held.send_command("GET", "k")
assert held.read_response() == b"child"
client.connection_pool.release(held)
assert client.connection_pool.get_connection() is held
"""


@pytest.fixture
def client(store: EmbeddedValkey) -> Iterator[redis.Redis]:
    """A client of the store."""
    with closing(connect(store.url)) as connected:
        yield connected


def _pool(client: redis.Redis) -> Pool:
    pool = client.connection_pool
    assert isinstance(pool, Pool)
    return pool


def test_a_connection_that_stands_ready_is_handed_out_again(client: redis.Redis) -> None:
    """The one used last, and by nobody else meanwhile."""
    pool = _pool(client)
    first = pool.get_connection()
    second = pool.get_connection()
    assert first is not second
    pool.release(first)
    pool.release(second)
    assert pool.get_connection() is second
    assert pool.get_connection() is first


def test_a_connection_that_the_server_closed_is_opened_anew(client: redis.Redis) -> None:
    """Before a command goes out on it, which would be lost."""
    exchange(client, [(b"PING",)])
    with closing(redis.Redis.from_url(f"redis://{_place(client)}")) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert exchange(client, [(b"PING",)]) == [b"PONG"]


def test_a_connection_with_a_reply_left_on_it_is_opened_anew(client: redis.Redis) -> None:
    """Whoever comes next must not take it for the answer to what it asks."""
    pool = _pool(client)
    connection = pool.get_connection()
    for _ in range(2):
        connection.send_command("ECHO", "left")
    assert connection.read_response() == b"left"
    wait_until(connection.can_read, "the other reply is there")
    pool.release(connection)
    assert exchange(client, [(b"PING",)]) == [b"PONG"]


def test_a_connection_is_not_shared_with_a_forked_process(store: EmbeddedValkey) -> None:
    """The child opens its own, and the parent's stays what it is."""
    subprocess.run([sys.executable, "-c", FORKING, store.url], check=True)


def test_no_more_connections_are_open_than_are_allowed(client: redis.Redis) -> None:
    """One too many is waited for, and what was given back twice is there once."""
    options = client.connection_pool.connection_kwargs
    pool = Pool(max_connections=2, timeout=0.01, **options)  # type: ignore[no-untyped-call]
    with closing(redis.Redis.from_pool(pool)):
        held = [pool.get_connection(), pool.get_connection()]
        with pytest.raises(redis.ConnectionError, match="No connection available"):
            pool.get_connection()
        pool.release(held[0])
        assert pool.get_connection() is held[0]
        for connection in (*held, held[0]):
            pool.release(connection)
        assert [pool.get_connection(), pool.get_connection()] == [held[1], held[0]]


def test_a_connection_that_cannot_be_opened_is_tried_once(client: redis.Redis) -> None:
    """Whoever finds the server down waits for that once, the second time too."""
    tried = []

    class Counted(redis.Connection):
        def connect(self) -> None:
            tried.append(self)
            super().connect()  # type: ignore[no-untyped-call]

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        options = {**client.connection_pool.connection_kwargs, "port": nobody.getsockname()[1]}
        pool = Pool(connection_class=Counted, max_connections=2, timeout=0.01, **options)  # type: ignore[no-untyped-call]
        for attempts in (1, 2, 3):
            with pytest.raises(redis.ConnectionError):
                pool.get_connection()
            assert len(tried) == attempts


def test_a_connection_that_is_refused_stays_in_the_pool(client: redis.Redis) -> None:
    """The server may refuse each for a while; the pool has room for as many afterwards."""
    options = {**client.connection_pool.connection_kwargs, "db": 10**6}
    pool = Pool(max_connections=1, timeout=0.01, **options)  # type: ignore[no-untyped-call]
    with closing(redis.Redis.from_pool(pool)):
        for _ in range(3):
            with pytest.raises(redis.ResponseError, match="out of range"):
                pool.get_connection()


def _place(client: redis.Redis) -> str:
    options = client.connection_pool.connection_kwargs
    return f"{options['host']}:{options['port']}"
