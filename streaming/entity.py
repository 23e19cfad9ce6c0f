"""One entity's state: everything the stream must remember about it, and its form in the store.

The state lives in one hash beside the entity's features (`online/keys.py: state_key`), cut into small fields so that a
write carries only what changed. The write script itself keeps the field `rev`.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from decision.schema import Value
from online.words import Runs, flat, word
from online.write import REVISION_FIELD
from streaming.recent import PREFIX as RECENT_PREFIX
from streaming.recent import RecentIds
from streaming.windows.plan import WindowPlan
from streaming.windows.state import Stored, TileState, decode_many
from streaming.write_kernels import put_positions

IntArray = npt.NDArray[np.int64]

POSITIONS = b"p"
SEGMENTS = b"s"
LATEST_PREFIX = b"l:"
WINDOWS_PREFIX = b"w:"
HEAD, OTHER = -1, -2
_OWN_BYTES = 700
_FIELD_BYTES = 200
RECENT_BUCKETS = 8
"""The lateness bound is covered by this many buckets of recent event ids."""
NEVER_US = int(np.iinfo(np.int64).max)
_TIME = struct.Struct("<q")
_SOURCE = struct.Struct("<Iqq")
_APPLIED = attrgetter("time_us", "position", "mark")
_POSITIONS_NAME = flat([word(POSITIONS)])
_POSITIONS_ROOM = len(_POSITIONS_NAME) + 32 + _TIME.size + _SOURCE.size
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LatestRow:
    """The newest row of a view without windows, by (event time, event id)."""

    event_us: int
    event_id: str
    values: Mapping[str, Value]


class EntityState:
    """State of one entity; there are many in memory, so what is not there takes no room.

    Attributes:
        revision: Of the stored state; 0 where nothing is stored.
        position: Position of the reading partition that is applied.
        mark: Number of the intent of the last write by the reading partition (`streaming/journal.py`).
        others: The same of other partitions, as it is stored.
        time_us: Logical time to which the state was last brought.
        recent_ids: Event ids seen lately; None where there are none, as with all but customers.
        tiles: Window state by view, in the order of `EntityKind.windows`; None where there is none, empty for none.
        latest: Newest row by view without windows.
        segments: Segments the entity is in → logical time of entry in microseconds.
        left: Segments with a minimum dwell that the entity has left within it → logical time of the exit.
        segments_us: Logical time at which membership last changed, or was first evaluated; None before that.
        small: The fields of membership and latest rows as they stand in the store.
        is_noted: Whether the batch at work has noted its event ids on it; not so where it was read again since.
        unwanted: Stored fields of views that are no longer defined; they go with the next write.
        written: Digest of what was last written, by view, in the order of `EntityKind.shown`; 0 where that is unknown.
        announced_us: The earliest entry in the index of timers, as far as known; `NEVER_US` for none.
        is_lasting: Whether its time to live is known to be right where it has none.
        weighed_bytes: What a cache that has it has counted it for.
    """

    __slots__ = (
        "announced_us",
        "is_lasting",
        "is_noted",
        "latest",
        "left",
        "mark",
        "others",
        "position",
        "recent_ids",
        "revision",
        "segments",
        "segments_us",
        "small",
        "tiles",
        "time_us",
        "unwanted",
        "weighed_bytes",
        "written",
    )

    def __init__(self, time_us: int = 0) -> None:
        self.revision = 0
        self.position = 0
        self.mark = 0
        self.others = b""
        self.time_us = time_us
        self.recent_ids: RecentIds | None = None
        self.tiles: tuple[TileState | None, ...] = ()
        self.latest: Mapping[str, LatestRow] = _NOTHING
        self.segments: Mapping[str, int] = _NOTHING
        self.left: Mapping[str, int] = _NOTHING
        self.segments_us: int | None = None
        self.small: Mapping[bytes, bytes] = _NOTHING
        self.is_noted = False
        self.unwanted: tuple[bytes, ...] = ()
        self.written: tuple[int, ...] = ()
        self.announced_us = NEVER_US
        self.is_lasting = False
        self.weighed_bytes = 0

    @property
    def size_bytes(self) -> int:
        """About the memory that it takes, with its key and its place in a cache."""
        size = _OWN_BYTES
        for tiles in self.tiles:
            if tiles is not None:
                size += tiles.size_bytes
        if self.recent_ids is not None:
            size += self.recent_ids.size_bytes
        if self.small:
            size += 2 * sum(_FIELD_BYTES + len(data) for data in self.small.values())
        return size

    def put_tiles(self, number: int, count: int, tiles: TileState) -> None:
        """Set the window state of one view of so many."""
        if count == 1:
            self.tiles = (tiles,)
            return
        held = list(self.tiles or (None,) * count)
        held[number] = tiles
        self.tiles = tuple(held)

    def note_latest(self, name: str, row: LatestRow) -> None:
        """Take a row of a view without windows, unless a newer one is there."""
        newest = self.latest.get(name)
        if newest is None or (row.event_us, row.event_id) >= (newest.event_us, newest.event_id):
            self.latest = {**self.latest, name: row}

    @property
    def recent(self) -> RecentIds:
        """Event ids seen lately, to be added to."""
        if self.recent_ids is None:
            self.recent_ids = RecentIds()
        return self.recent_ids


def decode_states(
    stored: Sequence[Mapping[bytes, bytes]], plans: Mapping[str, WindowPlan], partition: int
) -> list[EntityState]:
    """Read state hashes.

    Args:
        stored: By field; empty where nothing is stored.
        plans: Window plans by view.
        partition: The reading one.
    """
    windows: dict[str, tuple[list[EntityState], list[Stored]]] = {view: ([], []) for view in plans}
    states = [_decode(fields, windows, partition) for fields in stored]
    for number, (view, (owners, chunks)) in enumerate(windows.items()):
        for state, tiles in zip(owners, decode_many(plans[view], chunks), strict=True):
            state.put_tiles(number, len(windows), tiles)
    return states


def _decode(
    fields: Mapping[bytes, bytes],
    windows: Mapping[str, tuple[list[EntityState], list[Stored]]],
    partition: int,
) -> EntityState:
    state = EntityState()
    small: dict[bytes, bytes] = {}
    recent: dict[bytes, bytes] = {}
    for name, data in fields.items():
        if name.startswith(WINDOWS_PREFIX):
            view, bits, number = _chunk_place(name)
            if view not in windows:
                state.unwanted += (name,)
                continue
            owners, chunks = windows[view]
            if not owners or owners[-1] is not state:
                owners.append(state)
                chunks.append(Stored())
            if bits >= 0:
                chunks[-1].add(bits, number, data)
            elif bits == HEAD:
                chunks[-1].head = data
            else:
                chunks[-1].add_other(name, data)
        elif name == REVISION_FIELD:
            state.revision = int(data)
        elif name == POSITIONS:
            _decode_positions(state, data, partition)
        elif name.startswith(RECENT_PREFIX):
            recent[name] = data
        else:
            small[name] = data
    if small:
        _decode_small(state, small)
    if recent:
        state.recent.load(recent)
    return state


@lru_cache(65_536)
def _chunk_place(name: bytes) -> tuple[str, int, int]:
    """View of a chunk of windows, bits and number of its range; HEAD or OTHER for bits of what is not of tiles."""
    view, _, place = name[len(WINDOWS_PREFIX) :].decode().rpartition(":")
    if place == "h":
        return view, HEAD, 0
    view, _, bits = view.rpartition(":")
    return (view, OTHER, 0) if bits.startswith("d") else (view, int(bits), int(place))


def _decode_positions(state: EntityState, data: bytes, partition: int) -> None:
    (state.time_us,) = _TIME.unpack_from(data)
    for place in range(_TIME.size, len(data), _SOURCE.size):
        source, position, mark = _SOURCE.unpack_from(data, place)
        if source == partition:
            state.position, state.mark = position, mark
        else:
            state.others += data[place : place + _SOURCE.size]


def _decode_small(state: EntityState, small: Mapping[bytes, bytes]) -> None:
    state.small = small
    latest: dict[str, LatestRow] = {}
    for name, data in small.items():
        if name == SEGMENTS:
            state.segments_us, state.segments, state.left = json.loads(data)
        elif name.startswith(LATEST_PREFIX):
            latest[name[len(LATEST_PREFIX) :].decode()] = decode_latest(data)
    if latest:
        state.latest = latest


def decode_mark(field: bytes | None, partition: int) -> int:
    """Number of the intent under which a partition last wrote an entity, from the field `POSITIONS`; 0 for never."""
    if field is None:
        return 0
    marks = {source: mark for source, _, mark in _SOURCE.iter_unpack(field[_TIME.size :])}
    return int(marks.get(partition, 0))


def positions_field(state: EntityState, partition: int | None) -> bytes:
    """What the field `POSITIONS` holds; without a partition no source but the others is in it."""
    own = b"" if partition is None else _SOURCE.pack(partition, state.position, state.mark)
    return _TIME.pack(state.time_us) + own + state.others


def positions_runs(states: Sequence[EntityState], partition: int | None) -> Runs:
    """The field `POSITIONS` of many states, its name before it, as words."""
    others = [state.others for state in states]
    count, other_ends = len(others), itertools.accumulate(map(len, others), initial=0)
    applied = np.fromiter(
        itertools.chain.from_iterable(map(_APPLIED, states)), dtype=np.int64, count=3 * count
    )
    blob = flat(others)
    out = np.empty(count * _POSITIONS_ROOM + len(blob), dtype=np.uint8)
    at = np.empty(count + 1, dtype=np.int64)
    put_positions(
        _POSITIONS_NAME, applied.reshape(-1, 3), -1 if partition is None else partition,
        blob, np.fromiter(other_ends, dtype=np.int64, count=count + 1), out, at,
    )  # fmt: skip
    return Runs(out[: at[-1]], at[:-1], at[1:], np.full(count, 2, dtype=np.int64))


def small_fields(state: EntityState) -> dict[bytes, bytes]:
    """The fields of membership and latest rows."""
    fields: dict[bytes, bytes] = {}
    if state.segments_us is not None:
        fields[SEGMENTS] = _json((state.segments_us, state.segments, state.left))
    for view, row in state.latest.items():
        fields[LATEST_PREFIX + view.encode()] = encode_latest(row)
    return fields


def encode_latest(row: LatestRow) -> bytes:
    """A newest row as it is stored."""
    return _json((row.event_us, row.event_id, row.values))


def decode_latest(data: bytes) -> LatestRow:
    """The inverse of `encode_latest`, but that lists stand for tuples."""
    return LatestRow(*json.loads(data))


def view_chunks(view: str, *, segments: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Fields of the state that are of one view alone: by name, and by how they begin.

    Args:
        view: Name of the view.
        segments: Whether it is the one that stores membership.
    """
    name = view.encode()
    prefixes = (WINDOWS_PREFIX + name + b":", WINDOWS_PREFIX + name + b"@", LATEST_PREFIX + name + b"@")
    return (LATEST_PREFIX + name, *((SEGMENTS,) if segments else ())), prefixes


def recent_bucket_us(lateness_us: int) -> int:
    """Width of a bucket of recent event ids."""
    return max(lateness_us // RECENT_BUCKETS, 1_000_000)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
