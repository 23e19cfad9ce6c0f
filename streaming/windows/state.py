"""What the windows remember of one entity, and its form in the store."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from decision.schema import Scalar
from online.words import side_by_side
from streaming.windows.codec_kernels import (
    MAX_SLOT_BYTES,
    decode_table,
    encode_table,
    measure_chunks,
    read_chunks,
    read_heads,
    store_states,
)
from streaming.windows.errors import StateCorrupt
from streaming.windows.plan import HEAD_WORDS, NEVER_US, VERSION, Carrier, WindowPlan
from streaming.windows.sets import read_set, set_chunks
from streaming.windows.wire import Reader, put_bytes, put_scalar, put_signed, put_unsigned

IntArray = npt.NDArray[np.int64]
Record = tuple[int, str, Scalar]
"""A remembered row: event time in microseconds, event id, value."""

_OWN_BYTES = 128
_RECORD_BYTES = 256
"""About what a remembered row takes, its id and a value of text."""
_ZERO = np.zeros(1, dtype=np.int64)


class TileState:
    """Tiles of one entity in one view; a function of the events seen and the logical time, not of their order.

    Attributes:
        data: Everything that is a number, as int64 side by side, so that an entity at rest takes little room: last
            event time, latest hop boundary at which a tile left a window (`NEVER_US` before the first), number of
            tiles, tile numbers (event_us // hop, ascending; only tiles that hold an event and that a window covers),
            all-time accumulators, and the slots of each tile.
        firsts: Per tile, the first row of each column in `plan.firsts`; empty if there are none.
        refs: Remembered rows as `plan.references` lays them out.
        sets: Of each of `plan.distincts`, the hashes of its values, ascending as unsigned numbers, and the latest tile
            of each: int64 pairs.
    """

    __slots__ = ("data", "firsts", "refs", "sets")

    def __init__(
        self,
        data: bytes,
        firsts: tuple[tuple[Record | None, ...], ...] = (),
        refs: tuple[Record | None, ...] = (),
        sets: tuple[bytes, ...] = (),
    ) -> None:
        self.data = data
        self.firsts = firsts
        self.refs = refs
        self.sets = sets

    @classmethod
    def empty(cls, plan: WindowPlan) -> TileState:
        """The state before any event."""
        return cls(plan.empty_data, (), (None,) * plan.reference_count, (b"",) * len(plan.distincts))

    @classmethod
    def of(
        cls,
        times: tuple[int, int],
        index: IntArray,
        totals: IntArray,
        tiles: IntArray,
        firsts: tuple[tuple[Record | None, ...], ...],
        refs: tuple[Record | None, ...],
        sets: tuple[bytes, ...],
    ) -> TileState:
        """Put a state together; `times` are those of the last event and the last expiry."""
        head = np.array([*times, len(index)], dtype=np.int64)
        return cls(np.concatenate((head, index, totals, tiles.reshape(-1))).tobytes(), firsts, refs, sets)

    @property
    def size_bytes(self) -> int:
        """About the memory that it takes."""
        size = _OWN_BYTES + len(self.data)
        if self.refs or self.sets:
            size += _RECORD_BYTES * len(self.refs) + sum(map(len, self.sets))
        if self.firsts:
            size += sum(_RECORD_BYTES * len(row) for row in self.firsts)
        return size

    @property
    def words(self) -> IntArray:
        """`data` as numbers, in an array of their own."""
        return np.frombuffer(self.data, dtype=np.int64).copy()

    @property
    def last_event_us(self) -> int:
        """Latest event time applied; `NEVER_US` before the first."""
        return int(self.words[0])

    @property
    def expired_us(self) -> int:
        """Latest hop boundary at which a tile left a window; `NEVER_US` before the first."""
        return int(self.words[1])

    @property
    def index(self) -> IntArray:
        """Tile numbers."""
        words = self.words
        return words[HEAD_WORDS : HEAD_WORDS + words[2]]

    @property
    def untouched(self) -> bool:
        """Whether no event was ever applied."""
        return self.last_event_us == NEVER_US

    def totals(self, plan: WindowPlan) -> IntArray:
        """All-time accumulators."""
        start = HEAD_WORDS + int(self.words[2])
        return self.words[start : start + len(plan.totals)]

    def tiles(self, plan: WindowPlan) -> IntArray:
        """Shape (tiles, slots)."""
        count = int(self.words[2])
        start = HEAD_WORDS + count + len(plan.totals)
        return self.words[start:].reshape(count, len(plan.slots))


class Stored:
    """Chunks of one entity's state in one view, as they are read from the store one by one."""

    __slots__ = ("_others", "_parts", "head")

    def __init__(self) -> None:
        self.head: bytes | None = None
        self._parts: list[tuple[int, int, bytes]] = []
        self._others: dict[bytes, bytes] = {}

    def add(self, bits: int, number: int, data: bytes) -> None:
        """Take a chunk of tiles."""
        self._parts.append((bits, number, data))

    def add_other(self, name: bytes, data: bytes) -> None:
        """Take a chunk of a set, by its id."""
        self._others[name] = data

    def parts(self) -> list[tuple[int, bytes]]:
        """Number of the first tile that each chunk of tiles can hold, and the chunk; in order."""
        if len(self._parts) == 1:
            ((bits, number, data),) = self._parts
            return [(number << bits, data)]
        return sorted([(number << bits, data) for bits, number, data in self._parts])

    def chunks(self, plan: WindowPlan) -> dict[bytes, bytes]:
        """All of them by chunk id."""
        prefix = b"w:%b:" % plan.view.encode()
        named = {prefix + b"%d:%d" % (bits, number): data for bits, number, data in self._parts}
        named |= self._others
        return named if self.head is None else {prefix + b"h": self.head} | named


CHUNK_BYTES = 2048
"""Largest chunk; only a single tile can be larger, by the ids and strings it holds."""
TOP_BITS = 10
"""A chunk covers at most 2¹⁰ tiles, fewer where they do not fit."""
_NO_RECORD, _NEW_ROW, _SAME_ROW = 0, 1, 2


def encode(plan: WindowPlan, state: TileState) -> dict[bytes, bytes]:
    """A state as chunks, by chunk id; equal states give equal bytes.

    `w:{view}:h` holds what is not of one tile. `w:{view}:{bits}:{number}` holds the tiles from `number << bits` to
    the next number; a range that does not fit a chunk is halved. Of sets see `set_chunks`.
    """
    prefix = b"w:%b:" % plan.view.encode()
    chunks = {head_name(plan): encode_head(plan, state)}
    tops = (state.index >> TOP_BITS).tolist()
    for top in sorted(set(tops)):
        first = bisect.bisect_left(tops, top)
        _encode_range(plan, state, prefix, (TOP_BITS, top), (first, bisect.bisect_right(tops, top)), chunks)
    return chunks | sets_chunks(plan, state)


def sets_chunks(plan: WindowPlan, state: TileState) -> dict[bytes, bytes]:
    """The chunks of a state's sets alone, by chunk id."""
    prefix = b"w:%b:d" % plan.view.encode()
    chunks: dict[bytes, bytes] = {}
    for number, told in enumerate(state.sets):
        chunks |= set_chunks(prefix + b"%d." % number, told)
    return chunks


def head_name(plan: WindowPlan) -> bytes:
    """Name of the chunk that holds what is not of one tile."""
    return b"w:%b:h" % plan.view.encode()


def decode(plan: WindowPlan, chunks: Mapping[bytes, bytes]) -> TileState:
    """Read a state back from all its chunks; none is the empty state.

    Raises:
        StateCorrupt: Where chunks are damaged or were written under other aggregations.
    """
    if not chunks:
        return TileState.empty(plan)
    prefix = b"w:%b:" % plan.view.encode()
    if prefix + b"h" not in chunks:
        raise StateCorrupt(
            f"state of view {plan.view!r} has no head chunk; rebuild it from the event archive"
        )
    last_us, expired_us, totals, refs = _decode_head(plan, chunks[prefix + b"h"])
    parts = []
    sets: list[dict[bytes, bytes]] = [{} for _ in plan.distincts]
    for name, data in chunks.items():
        place = name[len(prefix) :]
        if place.startswith(b"d"):
            number, _, rest = place[1:].partition(b".")
            if int(number) >= len(sets):
                raise StateCorrupt(f"view {plan.view!r} has no set {int(number)}")
            sets[int(number)][rest] = data
        elif place != b"h":
            bits, number = place.split(b":")
            parts.append(_decode_range(plan, data, int(number) << int(bits)))
    parts.sort(key=lambda part: int(part[0][0]))
    nothing = np.empty(0, dtype=np.int64)
    return TileState.of(
        (last_us, expired_us),
        np.concatenate([part[0] for part in parts]) if parts else nothing,
        totals,
        np.concatenate([part[1] for part in parts]) if parts else nothing,
        tuple(row for part in parts for row in part[2]),
        refs,
        tuple(map(read_set, sets)),
    )


def decode_many(plan: WindowPlan, stored: Sequence[Stored]) -> list[TileState]:
    """As `decode`, of many entities at once.

    Raises:
        StateCorrupt: As there.
    """
    if not stored:
        return []
    if plan.firsts or plan.distincts or any(entry.head is None for entry in stored):
        return [decode(plan, entry.chunks(plan)) for entry in stored]
    heads = [entry.head for entry in stored if entry.head is not None]
    data, at = side_by_side(heads)
    times = np.empty((len(heads), 2), dtype=np.int64)
    totals = np.empty((len(heads), len(plan.totals)), dtype=np.int64)
    rest = np.empty(len(heads), dtype=np.int64)
    bad = read_heads(data, at, plan.head_mark, plan.totals, plan.total_floats, times, totals, rest)
    if bad < 0 and not plan.references:
        wrong = np.flatnonzero(rest != at[1:])
        bad = int(wrong[0]) if len(wrong) else -1
    if bad >= 0:
        _decode_alone(plan, stored[bad])
    refs = [_refs_of(plan, head, int(end - first)) for head, first, end in zip(heads, at, rest, strict=False)]
    return _with_tiles(plan, stored, (times, totals), refs)


def _with_tiles(
    plan: WindowPlan,
    stored: Sequence[Stored],
    heads: tuple[IntArray, IntArray],
    refs: Sequence[tuple[Record | None, ...]],
) -> list[TileState]:
    times, totals = heads
    parts = [(base, chunk, owner) for owner, entry in enumerate(stored) for base, chunk in entry.parts()]
    data, at = side_by_side([chunk for _, chunk, _ in parts])
    starts, sizes = np.empty((2, len(parts)), dtype=np.int64)
    bad = measure_chunks(data, at, VERSION, 1 << TOP_BITS, starts, sizes)
    if bad >= 0:
        _decode_alone(plan, stored[parts[bad][2]])
    base = np.array([base for base, _, _ in parts], dtype=np.int64)
    index = np.empty(int(sizes.sum()), dtype=np.int64)
    tiles = np.empty((len(index), len(plan.slots)), dtype=np.int64)
    bad = read_chunks(data, at, starts, sizes, plan.slots, plan.slot_floats, base, index, tiles)
    if bad >= 0:
        _decode_alone(plan, stored[parts[bad][2]])
    owner = np.array([owner for _, _, owner in parts], dtype=np.int64)
    at = np.zeros(len(stored) + 1, dtype=np.int64)
    at[1:] = np.cumsum(np.bincount(owner, weights=sizes, minlength=len(stored)))
    held = packed_states(
        plan, (at[:-1], at[1:]), index, tiles, totals, (times[:, 0].copy(), times[:, 1].copy())
    )
    return [TileState(words, (), own) for words, own in zip(held, refs, strict=True)]


def packed_states(
    plan: WindowPlan,
    span: tuple[IntArray, IntArray],
    index: IntArray,
    tiles: IntArray,
    totals: IntArray,
    times: tuple[IntArray, IntArray],
) -> list[bytes]:
    """The numbers of many states, as `TileState.data`; state `i` has the tiles `span[0][i]` to `span[1][i]`."""
    start, stop = span
    count = len(start)
    held = int(stop.sum()) - int(start.sum())
    words = np.empty(count * (HEAD_WORDS + len(plan.totals)) + held * (1 + len(plan.slots)), dtype=np.int64)
    byte_start = np.empty(count + 1, dtype=np.int64)
    store_states(start, index, tiles, totals, *times, stop, words, byte_start)
    data = words.data.cast("B")
    return [data[first:end].tobytes() for first, end in itertools.pairwise(byte_start.tolist())]


def _refs_of(plan: WindowPlan, head: bytes, at: int) -> tuple[Record | None, ...]:
    if not plan.references:
        return ()
    reader = Reader(head, at)
    refs = _get_records(reader, [carrier for _, carrier in plan.reference_keys])
    reader.finish()
    return refs


def _decode_alone(plan: WindowPlan, entry: Stored) -> None:
    """Say what is wrong with one entity's chunks."""
    decode(plan, entry.chunks(plan))
    raise StateCorrupt(f"state of view {plan.view!r} is damaged; rebuild it from the event archive")


def _encode_range(
    plan: WindowPlan,
    state: TileState,
    prefix: bytes,
    where: tuple[int, int],
    span: tuple[int, int],
    chunks: dict[bytes, bytes],
) -> None:
    """Encode the tiles of a range (bits, number), which are those from span[0] to span[1]."""
    (bits, number), (first, stop) = where, span
    if first == stop:
        return
    data = _encode_tiles(plan, state, first, stop, number << bits)
    if len(data) <= CHUNK_BYTES or bits == 0:
        chunks[prefix + b"%d:%d" % where] = data
        return
    middle = first + int(np.searchsorted(state.index[first:stop], (2 * number + 1) << (bits - 1)))
    _encode_range(plan, state, prefix, (bits - 1, 2 * number), (first, middle), chunks)
    _encode_range(plan, state, prefix, (bits - 1, 2 * number + 1), (middle, stop), chunks)


def _encode_tiles(plan: WindowPlan, state: TileState, first: int, stop: int, base: int) -> bytes:
    buffer = np.empty((stop - first) * (1 + len(plan.slots)) * MAX_SLOT_BYTES, dtype=np.uint8)
    length = encode_table(
        state.index, state.tiles(plan), plan.slots, plan.slot_floats, first, stop, base, buffer
    )
    out = bytearray((VERSION,))
    put_unsigned(out, stop - first)
    out += buffer[:length].tobytes()
    for row in state.firsts[first:stop]:
        _put_records(out, row)
    return bytes(out)


def _decode_range(
    plan: WindowPlan, data: bytes, base: int
) -> tuple[IntArray, IntArray, list[tuple[Record | None, ...]]]:
    reader = _reader(data)
    size = reader.unsigned()
    if not 0 < size <= 1 << TOP_BITS:
        raise StateCorrupt(f"chunk of view {plan.view!r} claims {size} tiles")
    index = np.empty(size, dtype=np.int64)
    tiles = np.empty((size, len(plan.slots)), dtype=np.int64)
    reader.at = decode_table(
        np.frombuffer(data, np.uint8), reader.at, plan.slots, plan.slot_floats, base, index, tiles
    )
    if reader.at < 0:
        raise StateCorrupt(f"chunk of view {plan.view!r} ends early")
    carriers = [carrier for _, carrier in plan.firsts]
    firsts = [_get_records(reader, carriers) for _ in range(size)] if carriers else []
    reader.finish()
    return index, tiles, firsts


def encode_head(plan: WindowPlan, state: TileState) -> bytes:
    """The chunk that holds what is not of one tile."""
    out = bytearray(plan.head_mark)
    for time_us in (state.last_event_us, state.expired_us):
        put_signed(out, time_us)
    buffer = np.empty((1 + len(plan.totals)) * MAX_SLOT_BYTES, dtype=np.uint8)
    rows = state.totals(plan).reshape(1, -1)
    length = encode_table(_ZERO, rows, plan.totals, plan.total_floats, 0, 1, 0, buffer)
    out += buffer[:length].tobytes()
    _put_records(out, state.refs)
    return bytes(out)


def _decode_head(plan: WindowPlan, data: bytes) -> tuple[int, int, IntArray, tuple[Record | None, ...]]:
    reader = _reader(data)
    if reader.take(4) != plan.fingerprint:
        raise StateCorrupt(
            f"state of view {plan.view!r} was written under other aggregations; rebuild it from the event archive"
        )
    last_us, expired_us = reader.signed(), reader.signed()
    totals = np.empty((1, len(plan.totals)), dtype=np.int64)
    reader.at = decode_table(
        np.frombuffer(data, np.uint8),
        reader.at,
        plan.totals,
        plan.total_floats,
        0,
        np.empty(1, np.int64),
        totals,
    )
    if reader.at < 0:
        raise StateCorrupt(f"head chunk of view {plan.view!r} ends early")
    refs = _get_records(reader, [carrier for _, carrier in plan.reference_keys])
    reader.finish()
    return last_us, expired_us, totals[0], refs


def _reader(data: bytes) -> Reader:
    reader = Reader(data)
    version = reader.take(1)[0]
    if version != VERSION:
        raise StateCorrupt(f"chunk of version {version}, this program reads {VERSION}")
    return reader


def _put_records(out: bytearray, records: Sequence[Record | None]) -> None:
    """Append records; those of one row follow each other in most views, and share its time and id."""
    row: tuple[int, str] | None = None
    for record in records:
        if record is None:
            out.append(_NO_RECORD)
            continue
        if row == record[:2]:
            out.append(_SAME_ROW)
        else:
            row = record[:2]
            out.append(_NEW_ROW)
            put_signed(out, row[0])
            put_bytes(out, row[1].encode())
        put_scalar(out, record[2])


def _get_records(reader: Reader, carriers: Sequence[Carrier]) -> tuple[Record | None, ...]:
    records: list[Record | None] = []
    row: tuple[int, str] | None = None
    for carrier in carriers:
        mark = reader.take(1)[0]
        if mark == _NO_RECORD:
            records.append(None)
            continue
        if mark == _NEW_ROW:
            row = (reader.signed(), reader.text())
        if row is None or mark > _SAME_ROW:
            raise StateCorrupt(f"mark {mark} at byte {reader.at - 1}")
        records.append((*row, reader.scalar(carrier)))
    return tuple(records)
