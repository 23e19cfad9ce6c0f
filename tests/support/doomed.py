"""Connections to the store over which a process dies: at any send, before it, in it, or before it reads the answer."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import redis

from streaming.materializer import Materializer
from tests.support.stream_world import drain
from tests.support.valkey import opened


class Crash(BaseException):
    """The process is gone."""


class Doom:
    """Counts sends of all connections and ends the process at one of them.

    Attributes:
        left: Sends until then.
        after: Whether it ends before it can read the answer.
        cut: Where not: how much of the bytes are sent, from 0 to 1.
    """

    def __init__(self, at: int, rng: random.Random) -> None:
        self.left = at
        self.after = rng.random() < 0.4
        self.cut = rng.choice([0.0, rng.random()])
        self.struck = False


class DoomedConnection(redis.Connection):
    """A connection whose process dies at a given send: before it, in it, or before it can read the answer."""

    doom: Doom | None = None

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        doom = type(self).doom
        if doom is not None:
            doom.left -= 1
            if doom.struck or (doom.left < 0 and not doom.after):
                if not doom.struck:
                    self._send_part(command, doom.cut)
                self._die(doom)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: object, **kwargs: object) -> object:
        doom = type(self).doom
        answer = super().read_response(*args, **kwargs)  # type: ignore[no-untyped-call]
        if doom is not None and doom.left < 0 and doom.after:
            self._die(doom)
        return answer

    def _send_part(self, command: Any, share: float) -> None:
        """Have the store take what is whole in the first bytes of several commands."""
        data = b"".join(command)
        self.connect()  # type: ignore[no-untyped-call]
        connected: Any = self._sock
        connected.sendall(data[: int(share * len(data))])
        connected.shutdown(socket.SHUT_WR)
        while connected.recv(65_536):
            pass

    def _die(self, doom: Doom) -> None:
        doom.struck = True
        self.disconnect()  # type: ignore[no-untyped-call]
        raise Crash


def doomed(url: str) -> redis.Redis:
    """A connection that dies when `DoomedConnection.doom` says; `close_opened` closes it."""
    pool = redis.ConnectionPool.from_url(url, connection_class=DoomedConnection)
    return opened(redis.Redis(connection_pool=pool))


def drain_over_crashes(make: Callable[[], Materializer], rng: random.Random, most_sends: int) -> int:
    """Have materializers apply all there is and move the checkpoint, over deaths at random sends; returns how many.

    Args:
        make: Gives the next one, on a connection of `doomed`.
        rng: Draws when and how each dies.
        most_sends: About how many sends one lives for.
    """
    crashes = 0
    while True:
        DoomedConnection.doom = Doom(rng.randrange(1, most_sends), rng) if crashes < 40 else None
        try:
            with closing(make()) as materializer:
                drain(materializer)
                materializer.checkpoint()
        except Crash:
            crashes += 1
        else:
            return crashes
        finally:
            DoomedConnection.doom = None
