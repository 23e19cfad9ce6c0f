"""A way to a server that can stand still: connections stay open, and nothing goes through, for a while or any more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Way:
    """Forwards connections from a port of its own.

    Args:
        target: Where to, as host:port.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._frozen = threading.Event()
        self._passing = threading.Event()
        self._passing.set()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Let nothing through from now on."""
        self._frozen.set()

    def hold(self) -> None:
        """Keep what comes from now on, until it is released."""
        self._passing.clear()

    def release(self) -> None:
        """Let through what was kept, also of connections that their callers have given up."""
        self._passing.set()

    def close(self) -> None:
        """End every connection."""
        self._frozen.set()
        self._passing.set()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=[source, sink], daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                if self._frozen.is_set():
                    return
                sink.sendall(data)


@contextlib.contextmanager
def freezable(target: str) -> Iterator[Way]:
    """A way to `target`, gone afterwards."""
    way = Way(target)
    try:
        yield way
    finally:
        way.close()
