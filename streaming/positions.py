"""Positions of the log on Redis Streams: stream ids as integers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from streaming.position_kernels import read_numbers

SEQUENCE_BITS = 20


def pack_position(stream_id: bytes) -> int:
    """A stream id `ms-seq` as one integer; 2^20 entries within a millisecond are beyond any server."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return (int(milliseconds) << SEQUENCE_BITS) + int(sequence)


def pack_columns(stream_ids: Sequence[bytes], *numbers: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Stream ids as `pack_position` has them, and as many decimal numbers below 2^63 in each of some columns, by row.

    Raises:
        ValueError: Something is neither.
    """
    table = np.empty((1 + len(numbers), len(stream_ids)), dtype=np.int64)
    text = b"\n".join([*stream_ids, *chain(*numbers), b""])
    if not read_numbers(np.frombuffer(text, dtype=np.uint8), SEQUENCE_BITS, table.reshape(-1)):
        raise ValueError("the log holds records whose times are no numbers")
    return table


def unpack_position(position: int) -> str:
    """The stream id of a position."""
    return f"{position >> SEQUENCE_BITS}-{position & ((1 << SEQUENCE_BITS) - 1)}"
