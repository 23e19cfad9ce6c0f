"""One connection for several threads: answers in order, and no way round what broke."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from online.errors import StoreUnavailableError
from online.line import Line
from online.store import connect
from tests.support.stores import run_tls_store, wait_until
from tests.support.valkey import run_valkey, start_valkey


@pytest.fixture(scope="module", params=["plain", "unix", "tls"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store by each kind of connection; options may be added."""
    with _STORES[request.param](tmp_path_factory.mktemp(request.param)) as address:
        yield address + ("&" if "?" in address else "?")


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """One whose connections wait longer for a reply than any test may take."""
    with connect(f"{url}socket_timeout=300") as connection:
        yield connection


@contextmanager
def _unix(folder: Path) -> Iterator[str]:
    path = folder / "v.sock"
    with run_valkey(folder, {"unixsocket": str(path)}):
        yield f"unix://{path}"


@contextmanager
def _tls(folder: Path) -> Iterator[str]:
    with run_tls_store("valkey", folder, "shop on >secret ~* &* +@all") as (port, made):
        files = {
            "ca_certs": made.authority,
            "certfile": made.certificate("client"),
            "keyfile": made.key("client"),
        }
        options = "&".join(f"ssl_{name}={path}" for name, path in files.items())
        yield f"rediss://shop:secret@127.0.0.1:{port}/0?{options}"


_STORES = {"plain": start_valkey, "unix": _unix, "tls": _tls}


@pytest.fixture
def line(client: Any) -> Iterator[Line]:
    """A line to an empty store."""
    client.flushall()
    made = Line(client.connection_pool)
    yield made
    made.close()


def test_answers_come_in_the_order_in_which_it_was_said(line: Line) -> None:
    """Whichever is heard first, more than once, or never; of errors too."""
    heard = [line.ask([(b"INCR", b"count")] * size) for size in (1, 3, 2)]
    wrong = line.ask([(b"SET", b"count")])
    last = line.ask([(b"GET", b"count")])
    assert last() == [b"6"]
    assert [hear() for hear in heard[::-1]] == [[5, 6], [2, 3, 4], [1]]
    assert isinstance(wrong()[0], redis.ResponseError)
    assert last() == [b"6"]
    assert line.is_open()


def test_large_commands_and_answers_come_through(line: Line) -> None:
    """More of both than goes through at a time."""
    data = random.Random(1).randbytes(3_000_000)
    line.ask([(b"SET", b"large", data)])
    first, second = line.ask([(b"GET", b"large")] * 3), line.ask([(b"STRLEN", b"large")])
    assert second() == [len(data)]
    assert first() == [data] * 3


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that change places all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_each_thread_hears_what_it_asked(line: Line) -> None:
    """While others speak and hear, of more than a socket takes at once now and then, and see that it is open."""

    def talk(own: int) -> None:
        rng = random.Random(own)
        for _ in range(100):
            words = [
                b"%d:%d:" % (own, rng.random() * 1e9) + bytes(rng.choice([1, 50, 400_000])) for _ in "123"
            ]
            hears = [line.ask([(b"ECHO", word), (b"ECHO", word[:9])]) for word in words]
            assert line.is_open()
            for at in rng.sample(range(3), rng.choice([1, 3])):
                assert hears[at]() == [words[at], words[at][:9]]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(talk, range(4))) == [None] * 4


def test_one_may_speak_while_another_waits(line: Line, client: Any) -> None:
    """What the other waits for comes of what is said meanwhile."""
    waiting = line.ask([(b"BLPOP", b"queue", 0)])
    with ThreadPoolExecutor(1) as thread:
        heard = thread.submit(waiting)
        behind = line.ask([(b"PING",)])
        wait_until(lambda: client.info("clients")["blocked_clients"] > 0, "somebody waits")
        client.rpush(b"queue", b"word")
        assert heard.result() == [[b"queue", b"word"]]
    assert behind() == [b"PONG"]


def test_closing_wakes_whoever_waits(client: Any) -> None:
    """It is told, and so is whoever speaks or hears afterwards; the connection is given back."""
    line = Line(client.connection_pool)
    waiting = line.ask([(b"BLPOP", b"nothing", 0)])
    with ThreadPoolExecutor(1) as thread:
        heard = thread.submit(waiting)
        wait_until(lambda: client.info("clients")["blocked_clients"] > 0, "somebody waits")
        line.close()
        with pytest.raises(StoreUnavailableError, match="it was closed"):
            heard.result(10)
        line.close()
    assert not line.is_open()
    for late in (waiting, lambda: line.ask([(b"PING",)])):
        with pytest.raises(StoreUnavailableError, match="it was closed"):
            late()
    pool = client.connection_pool
    taken = [pool.get_connection() for _ in range(pool.max_connections)]
    for connection in taken:
        pool.release(connection)


def test_what_broke_stays_so(line: Line, client: Any) -> None:
    """The store has closed it: what was asked is told, and nothing else is said, on this connection or another."""
    assert line.ask([(b"PING",)])() == [b"PONG"]
    killed = line.ask([(b"CLIENT", b"KILL", b"SKIPME", b"no", b"TYPE", b"normal"), (b"SET", b"late", b"1")])
    with pytest.raises(StoreUnavailableError, match="stopped answering"):
        killed()
    assert not line.is_open()
    with pytest.raises(StoreUnavailableError, match="stopped answering"):
        line.ask([(b"SET", b"late", b"1")])
    assert client.get("late") is None


def test_a_connection_that_ended_in_silence_is_seen(line: Line, client: Any) -> None:
    """As a store ends those of which it has not heard for long."""
    assert line.ask([(b"PING",)])() == [b"PONG"]
    assert line.is_open()
    others = client.info("clients")["connected_clients"] - 1
    client.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: client.info("clients")["connected_clients"] <= others, "the others are gone")
    assert not line.is_open()


def test_an_interrupted_word_breaks_it(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a command may be on its way: whatever was said behind it would be taken for its rest."""
    line = Line(client.connection_pool)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(line._sock), "sendall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            line.ask([(b"PING",)])
    with pytest.raises(StoreUnavailableError, match="interrupted"):
        line.ask([(b"PING",)])
    line.close()


def test_a_word_that_nobody_asked_for_breaks_it(line: Line, client: Any) -> None:
    """It would be taken for the answer to what is said next."""
    assert line.ask([])() == []
    assert line.ask([(b"SUBSCRIBE", b"news")])() == [[b"subscribe", b"news", 1]]
    assert line.is_open()
    client.publish("news", "word")
    wait_until(lambda: not line.is_open(), "it broke")
    with pytest.raises(StoreUnavailableError, match="not asked"):
        line.ask([(b"PING",)])


def test_an_interrupt_before_anything_is_sent_breaks_it(client: Any) -> None:
    """A reply that never comes is owed by then."""
    line = Line(client.connection_pool)

    class Owed(deque[Any]):
        def append(self, said: Any) -> None:
            super().append(said)
            raise KeyboardInterrupt

    line._owed = Owed()
    with pytest.raises(KeyboardInterrupt):
        line.ask([(b"PING",)])
    assert not line.is_open()
    line.close()


def test_a_store_that_hangs_is_told_in_time(url: str) -> None:
    """As soon as the connection's own timeout says."""
    with connect(f"{url}socket_timeout=0.2") as client:
        line = Line(client.connection_pool)
        assert line.ask([(b"PING",)])() == [b"PONG"]
        with pytest.raises(StoreUnavailableError, match="timed out"):
            line.ask([(b"BLPOP", b"nothing", 0)])()
        line.close()
