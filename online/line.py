"""One connection that threads share: commands go out in the order in which they are said, and are answered in it."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA

from online.errors import StoreUnavailableError
from online.pipes import connection_of, pack
from online.route import Command

_READ_BYTES = 64 << 10


class _Said:
    """Commands, of which the replies so far are there."""

    __slots__ = ("count", "replies")

    def __init__(self, count: int) -> None:
        self.count = count
        self.replies: list[object] = []


class Line:
    """A connection of a pool, for commands that hang on what was said on it before.

    It is never made anew, which would know nothing of that: once broken it stays so. Any thread may speak, and any may
    hear; whoever hears reads what came before, too.

    Args:
        pool: Of one server.

    Raises:
        StoreUnavailableError: The connection cannot be made.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = connection_of(pool)
        self._sock: socket.socket = self._connection._sock  # noqa: SLF001
        self._reader = self._connection._parser._reader  # noqa: SLF001
        self._buffer = bytearray(_READ_BYTES)
        self._owed: deque[_Said] = deque()
        self._saying, self._hearing = threading.Lock(), threading.Lock()
        self._broken: Exception | None = None

    def is_open(self) -> bool:
        """Whether it can be spoken on, as far as can be seen: a store may end a connection that was silent for long.

        It waits for whoever is speaking, and for nobody who hears.
        """
        if self._hearing.acquire(blocking=False):  # else somebody waits for it, and is told
            try:
                with self._breaking(), self._saying:
                    while self._broken is None and (size := self._receive_now()) is not None:
                        self._take_in(size)
            finally:
                self._hearing.release()
        return self._broken is None

    def say(self, commands: bytes, count: int) -> Callable[[], list[object]]:
        """Send so many commands, packed.

        Returns:
            Waits for their replies, of which errors are some; it may be called in any thread, or never.

        Raises:
            StoreUnavailableError: The connection broke, now or before; so does what is returned. The commands may have
                been carried out.
        """
        said = _Said(count)
        with self._saying:
            self._check()
            with self._breaking():
                if count:
                    self._owed.append(said)
                self._sock.sendall(commands)
        self._check()
        return partial(self._hear, said)

    def ask(self, commands: Sequence[Command]) -> Callable[[], list[object]]:
        """As `say`, of commands that are not packed."""
        return self.say(b"".join(map(pack, commands)), len(commands))

    def close(self) -> None:
        """Give the connection back, closed; who waits for a reply is told that it broke. Twice does nothing."""
        self._break(ConnectionAbortedError("it was closed"))
        with self._hearing, self._saying:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.disconnect()
                self._pool.release(connection)

    def _hear(self, said: _Said) -> list[object]:
        with self._hearing:
            while len(said.replies) < said.count:
                self._check()
                with self._breaking():
                    self._take_in(self._receive())
        return said.replies

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """Have it broken by whatever goes wrong."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._break(error)
        except BaseException:
            self._break(ConnectionAbortedError("it was interrupted"))
            raise

    def _take_in(self, size: int) -> None:
        """Give replies to whom they are owed."""
        if not size:
            raise ConnectionResetError("the store closed the connection")
        self._reader.feed(self._buffer, 0, size)
        while (reply := self._reader.gets()) is not NOT_ENOUGH_DATA:
            if isinstance(reply, redis.ConnectionError):
                raise reply
            if not self._owed:
                raise redis.InvalidResponse("it said what it was not asked")
            said = self._owed[0]
            said.replies.append(reply)
            if len(said.replies) == said.count:
                self._owed.popleft()

    def _receive(self) -> int:
        sock = self._sock
        return (
            self._receive_in_turn(sock) if isinstance(sock, ssl.SSLSocket) else sock.recv_into(self._buffer)
        )

    def _receive_in_turn(self, sock: ssl.SSLSocket) -> int:
        """Read while nobody sends, since OpenSSL bears one thread at a time; nobody waits for the store meanwhile."""
        timeout_s = sock.gettimeout()
        while True:
            with self._saying:
                size = self._receive_now()
            if size is not None:
                return size
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            if not poll.poll(None if timeout_s is None else 1_000 * timeout_s):
                raise TimeoutError("timed out")

    def _receive_now(self) -> int | None:
        """Read what is there; None where there is nothing."""
        timeout_s = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return self._sock.recv_into(self._buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        finally:
            self._sock.settimeout(timeout_s)

    def _check(self) -> None:
        if self._broken is not None:
            raise StoreUnavailableError(f"the store stopped answering: {self._broken}") from self._broken

    def _break(self, error: Exception) -> None:
        """Break it, and wake who waits for it."""
        if self._broken is None:
            self._broken = error
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
