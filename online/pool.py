"""Connections to one server, for threads: redis-py's pool, with a shorter way to those that stand ready.

A batch of few events asks the store three times, and what redis-py's pool does around each, such as figures for who
watches pools, takes as long as the sending.
"""

from __future__ import annotations

import os
import queue
from contextlib import suppress
from typing import Any

import redis


class Pool(redis.BlockingConnectionPool):
    """As redis-py's, which still does whatever is out of the ordinary; for connections that get no pushes."""

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Take a connection that is open and has nothing left to be read; a new one where none is at hand."""
        return self._ready() or super().get_connection()  # type: ignore[no-untyped-call]

    def release(self, connection: Any) -> None:
        """Give a connection back."""
        if connection.pid == self.pid == os.getpid() and not connection.should_reconnect():
            # There is no room for what was given back already.
            with suppress(queue.Full):
                self.pool.put_nowait(connection)
        else:
            super().release(connection)  # type: ignore[no-untyped-call]

    def _ready(self) -> Any:
        """The connection that was used last, unless there is something about it."""
        if self.pid != os.getpid():
            return None  # what a fork has from its parent is the parent's
        try:
            connection = self.pool.get_nowait()
        except queue.Empty:
            return None
        is_ready = False
        try:
            is_ready = connection is not None and _is_silent(connection)
        finally:
            # Also where it cannot be opened: else there would be room for one less from now on.
            if not is_ready:
                self.pool.put_nowait(connection)
        return connection if is_ready else None


def _is_silent(connection: Any) -> bool:
    connection.connect()
    try:
        return not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False
