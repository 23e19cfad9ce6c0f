"""Sets of distinct values in the store: chunks by ranges of hashes, so that a new value changes one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from streaming.windows.distinct_kernels import BEFORE
from streaming.windows.errors import StateCorrupt
from streaming.windows.wire import Reader, put_signed, put_unsigned

_ENTRIES_MAX = 160
"""Of a chunk: one takes at most 16 bytes, and a chunk stays below 2 KB until a set's tiles lie 2³² apart."""
_VERSION, _WITH_BEFORE = 1, 2
"""Forms of a chunk: without and with hashes of the tile `BEFORE`."""
_WIDTHS = (1, 2, 4, 8)
_HASH_BITS = 64

Entries = npt.NDArray[np.int64]


def set_chunks(prefix: bytes, told: bytes) -> dict[bytes, bytes]:
    """A set as chunks, by chunk id; equal sets give equal bytes, an empty one none.

    `{prefix}{bits}:{number}` holds the hashes whose upper bits are that number; a range of too many is halved.

    Args:
        prefix: What the ids begin with.
        told: As in `state.TileState.sets`.
    """
    entries = _entries(told)
    ranges = _ranges(entries[:, 0].view(np.uint64), 0, 0, 0, len(entries))
    return {
        prefix + b"%d:%d" % (bits, number): _encode(entries[first:stop])
        for bits, number, first, stop in ranges
    }


def read_set(chunks: Mapping[bytes, bytes]) -> bytes:
    """The inverse of `set_chunks`, of ids without their prefix.

    Raises:
        StateCorrupt: A chunk is damaged, or chunks overlap.
    """
    parts = [_decode(data) for data in chunks.values()]
    parts.sort(key=lambda part: int(part[0, 0].view(np.uint64)))
    entries = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    hashes = entries[:, 0].view(np.uint64)
    if (hashes[1:] <= hashes[:-1]).any():
        raise StateCorrupt("hashes of a set are out of order")
    return entries.tobytes()


def _entries(told: bytes) -> Entries:
    return np.frombuffer(told, np.int64).reshape(-1, 2)


def _ranges(
    hashes: npt.NDArray[np.uint64], bits: int, number: int, first: int, stop: int
) -> Iterator[tuple[int, int, int, int]]:
    """Bits, number, first and stop of the ranges that hold any of the hashes first to stop."""
    if first == stop:
        return
    if stop - first <= _ENTRIES_MAX or bits == _HASH_BITS:
        yield bits, number, first, stop
        return
    edge = np.uint64((2 * number + 1) << (_HASH_BITS - 1 - bits))
    middle = first + int(np.searchsorted(hashes[first:stop], edge))
    yield from _ranges(hashes, bits + 1, 2 * number, first, middle)
    yield from _ranges(hashes, bits + 1, 2 * number + 1, middle, stop)


def _encode(entries: Entries) -> bytes:
    """Version, how many, earliest tile, width of what tiles are behind it, the hashes, the tiles.

    Where there are hashes of the tile `BEFORE`, that is 0, and the earliest of the others 1.
    """
    tiles = entries[:, 1]
    covered = tiles != BEFORE
    base = int(tiles[covered].min()) if covered.any() else 0
    with_before = not covered.all()
    behind = np.where(covered, tiles - base + with_before, 0).view(np.uint64)
    width = next(width for width in _WIDTHS if int(behind.max()) < 1 << (8 * width))
    out = bytearray((_WITH_BEFORE if with_before else _VERSION,))
    put_unsigned(out, len(entries))
    put_signed(out, base)
    out.append(width)
    out += entries[:, 0].astype("<i8").tobytes()
    out += behind.astype(f"<u{width}").tobytes()
    return bytes(out)


def _decode(data: bytes) -> Entries:
    reader = Reader(data)
    version, count, base = reader.take(1)[0], reader.unsigned(), reader.signed()
    width = reader.take(1)[0]
    if version not in (_VERSION, _WITH_BEFORE) or not count or width not in _WIDTHS:
        raise StateCorrupt(f"a chunk of a set of version {version}, {count} entries and width {width}")
    entries = np.empty((count, 2), np.int64)
    entries[:, 0] = np.frombuffer(reader.take(8 * count), "<i8")
    behind = np.frombuffer(reader.take(width * count), f"<u{width}").astype(np.uint64).view(np.int64)
    if version == _WITH_BEFORE:
        entries[:, 1] = np.where(behind == 0, BEFORE, behind + base - 1)
    else:
        entries[:, 1] = behind + base
    reader.finish()
    return entries
