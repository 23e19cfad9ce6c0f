"""Positions of the log on Redis Streams: stream ids as integers."""

from __future__ import annotations

SEQUENCE_BITS = 20


def pack_position(stream_id: bytes) -> int:
    """A stream id `ms-seq` as one integer; 2^20 entries within a millisecond are beyond any server."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return (int(milliseconds) << SEQUENCE_BITS) + int(sequence)


def unpack_position(position: int) -> str:
    """The stream id of a position."""
    return f"{position >> SEQUENCE_BITS}-{position & ((1 << SEQUENCE_BITS) - 1)}"
