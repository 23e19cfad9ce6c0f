"""Hashes as a server dumps them, written from the description of the formats."""

from __future__ import annotations

from collections.abc import Sequence

TRAILER = b"\x0b\x00" + bytes(8)
Pairs = Sequence[tuple[bytes, bytes]]


def length(size: int) -> bytes:
    """Write a length of a dump."""
    if size < 64:
        return bytes([size])
    return bytes([64 | size >> 8, size & 255]) if size < 1 << 14 else b"\x80" + size.to_bytes(4, "big")


def back_length(size: int) -> bytes:
    """Write the size of an entry of a listpack to be read from behind."""
    digits = [size & 127]
    while size := size >> 7:
        digits.append(size & 127 | 128)
    return bytes(reversed(digits))


def entry(text: bytes) -> bytes:
    """Write a string of a listpack."""
    size = len(text)
    if size < 64:
        head = bytes([0x80 | size])
    elif size < 4096:
        head = bytes([0xE0 | size >> 8, size & 255])
    else:
        head = b"\xf0" + size.to_bytes(4, "little")
    return head + text + back_length(len(head) + size)


def listpack(entries: Sequence[bytes]) -> bytes:
    """Write a listpack of entries."""
    body = b"".join(entries)
    return (len(body) + 7).to_bytes(4, "little") + len(entries).to_bytes(2, "little") + body + b"\xff"


def compact_dump(pairs: Pairs) -> bytes:
    """Dump a compact hash."""
    packed = listpack([entry(text) for pair in pairs for text in pair])
    return b"\x10" + length(len(packed)) + packed + TRAILER


def large_dump(pairs: Pairs) -> bytes:
    """Dump a hash that is a table in the server."""
    texts = [text for pair in pairs for text in pair]
    return b"\x04" + length(len(pairs)) + b"".join(length(len(text)) + text for text in texts) + TRAILER
