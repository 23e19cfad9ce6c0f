"""An HTTP/2 client that sends frames one by one, so that it may open a call and leave it at that."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class RawHttp2:
    """One connection.

    Attributes:
        ended: Streams that the server has ended.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._socket.sendall(_PREFACE + _frame(SETTINGS, 0, 0))
        self._next = 1
        self._bytes = b""
        self.ended: set[int] = set()

    def open(self, method: str) -> int:
        """Begin a call, with its head alone; its stream."""
        stream, self._next = self._next, self._next + 2
        fields = {
            ":method": "POST", ":scheme": "http", ":path": method, ":authority": "test",
            "te": "trailers", "content-type": "application/grpc",
        }  # fmt: skip
        head = b"".join(_literal(name, value) for name, value in fields.items())
        self._socket.sendall(_frame(HEADERS, END_HEADERS, stream, head))
        return stream

    def send(self, stream: int, data: bytes, *, last: bool = False) -> None:
        """Send bytes of a call's request."""
        self._socket.sendall(_frame(DATA, END_STREAM if last else 0, stream, data))

    def wait_ended(self, count: int) -> None:
        """Wait until the server has ended so many streams; TimeoutError where nothing comes for too long."""
        frames = self._frames()
        while len(self.ended) < count:
            kind, flags, stream = next(frames)
            if kind == HEADERS and flags & END_STREAM:
                self.ended.add(stream)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _frames(self) -> Iterator[tuple[int, int, int]]:
        while True:
            length = int.from_bytes(self._bytes[:3], "big") + 9
            while len(self._bytes) < 9 or len(self._bytes) < length:
                received = self._socket.recv(65_536)
                assert received, "the server closed the connection"
                self._bytes += received
                length = int.from_bytes(self._bytes[:3], "big") + 9
            kind, flags, stream = struct.unpack(">BBI", self._bytes[3:9])
            payload, self._bytes = self._bytes[9:length], self._bytes[length:]
            if kind in {SETTINGS, PING} and not flags & ACK:
                self._socket.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
            yield kind, flags, stream


@contextlib.contextmanager
def raw_http2(address: str, timeout_s: float) -> Iterator[RawHttp2]:
    """A connection to a server, closed afterwards."""
    client = RawHttp2(address, timeout_s)
    try:
        yield client
    finally:
        client.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field that is neither compressed nor indexed."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
