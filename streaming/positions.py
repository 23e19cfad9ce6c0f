"""Positions of the log on Redis Streams: stream ids as integers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streaming.position_kernels import read_ids

SEQUENCE_BITS = 20


def pack_position(stream_id: bytes) -> int:
    """A stream id `ms-seq` as one integer; 2^20 entries within a millisecond are beyond any server."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return (int(milliseconds) << SEQUENCE_BITS) + int(sequence)


def pack_positions(stream_ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """As `pack_position`, of many."""
    ends = itertools.accumulate(map(len, stream_ids), initial=0)
    at = np.fromiter(ends, dtype=np.int64, count=len(stream_ids) + 1)
    out = np.empty(len(stream_ids), dtype=np.int64)
    read_ids(np.frombuffer(b"".join(stream_ids), dtype=np.uint8), at, SEQUENCE_BITS, out)
    return out


def unpack_position(position: int) -> str:
    """The stream id of a position."""
    return f"{position >> SEQUENCE_BITS}-{position & ((1 << SEQUENCE_BITS) - 1)}"
