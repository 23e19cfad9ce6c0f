"""One entity's state: everything the stream must remember about it, and its form in the store.

The state lives in one hash beside the entity's features (`online/keys.py: state_key`), cut into small fields so that a
write carries only what changed. The write script itself keeps the field `rev`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from decision.schema import Value
from streaming.recent import PREFIX as RECENT_PREFIX
from streaming.recent import RecentIds
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode

REVISION = b"rev"
POSITIONS = b"p"
SEGMENTS = b"s"
LATEST_PREFIX = b"l:"
WINDOWS_PREFIX = b"w:"
RECENT_BUCKETS = 8
"""The lateness bound is covered by this many buckets of recent event ids."""
_TIME = struct.Struct("<q")
_SOURCE = struct.Struct("<Iqq")


@dataclass(frozen=True, slots=True)
class LatestRow:
    """The newest row of a view without windows, by (event time, event id)."""

    event_us: int
    event_id: str
    values: Mapping[str, Value]


@dataclass(slots=True)
class EntityState:
    """State of one entity.

    Attributes:
        revision: Of the stored state; 0 where nothing is stored.
        positions: Position applied so far, by source partition.
        marks: Number of the intent of the last write, by source partition (`streaming/journal.py`).
        time_us: Logical time to which the state was last brought.
        recent_ids: Event ids seen lately; None where there are none, as with all but customers.
        tiles: Window state by view.
        latest: Newest row by view without windows.
        segments: Segments the entity is in → logical time of entry in microseconds.
        left: Segments with a minimum dwell that the entity has left within it → logical time of the exit.
        segments_us: Logical time at which membership last changed, or was first evaluated; None before that.
        stored: The small fields as they stand in the store: all but tiles and recent ids.
        is_noted: Whether the batch at work has noted its event ids on it; not so where it was read again since.
        unwanted: Stored fields of views that are no longer defined; they go with the next write.
        written: What was last written by view, as words, to skip writes that change nothing.
    """

    revision: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    time_us: int = 0
    recent_ids: RecentIds | None = None
    tiles: dict[str, TileState] = field(default_factory=dict)
    latest: dict[str, LatestRow] = field(default_factory=dict)
    segments: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    segments_us: int | None = None
    stored: dict[bytes, bytes] = field(default_factory=dict)
    is_noted: bool = False
    unwanted: tuple[bytes, ...] = ()
    written: dict[str, bytes] = field(default_factory=dict)

    @property
    def recent(self) -> RecentIds:
        """Event ids seen lately, to be added to."""
        if self.recent_ids is None:
            self.recent_ids = RecentIds()
        return self.recent_ids


def decode_state(fields: Mapping[bytes, bytes], plans: Mapping[str, WindowPlan]) -> EntityState:
    """Read a state hash."""
    state = EntityState(revision=int(fields.get(REVISION, b"0")))
    recent: dict[bytes, bytes] = {}
    chunks: dict[str, dict[bytes, bytes]] = {}
    for name, data in fields.items():
        if name.startswith(RECENT_PREFIX):
            recent[name] = data
        elif name.startswith(WINDOWS_PREFIX):
            chunks.setdefault(name.split(b":", 2)[1].decode(), {})[name] = data
        elif name != REVISION:
            state.stored[name] = data
    _decode_small(state)
    if recent:
        state.recent.load(recent)
    for view, parts in chunks.items():
        if view in plans:
            state.tiles[view] = decode(plans[view], parts)
        else:
            state.unwanted += tuple(parts)
    return state


def _decode_small(state: EntityState) -> None:
    for name, data in state.stored.items():
        if name == POSITIONS:
            (state.time_us,) = _TIME.unpack_from(data)
            for partition, position, mark in _SOURCE.iter_unpack(data[_TIME.size :]):
                state.positions[partition], state.marks[partition] = position, mark
        elif name == SEGMENTS:
            state.segments_us, state.segments, state.left = json.loads(data)
        elif name.startswith(LATEST_PREFIX):
            state.latest[name[len(LATEST_PREFIX) :].decode()] = LatestRow(*json.loads(data))


def decode_mark(field: bytes | None, partition: int) -> int:
    """Number of the intent under which a partition last wrote an entity, from the field `POSITIONS`; 0 for never."""
    if field is None:
        return 0
    marks = {source: mark for source, _, mark in _SOURCE.iter_unpack(field[_TIME.size :])}
    return int(marks.get(partition, 0))


def small_fields(state: EntityState) -> dict[bytes, bytes]:
    """All fields of a state hash but the revision, tiles and recent ids."""
    fields: dict[bytes, bytes] = {}
    if state.positions or state.time_us:
        sources = [
            _SOURCE.pack(partition, position, state.marks.get(partition, 0))
            for partition, position in state.positions.items()
        ]
        fields[POSITIONS] = _TIME.pack(state.time_us) + b"".join(sources)
    if state.segments_us is not None:
        fields[SEGMENTS] = _json((state.segments_us, state.segments, state.left))
    for view, row in state.latest.items():
        fields[LATEST_PREFIX + view.encode()] = _json((row.event_us, row.event_id, row.values))
    return fields


def view_chunks(view: str, *, segments: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Fields of the state that are of one view alone: by name, and by how they begin.

    Args:
        view: Name of the view.
        segments: Whether it is the one that stores membership.
    """
    name = view.encode()
    return (LATEST_PREFIX + name, *((SEGMENTS,) if segments else ())), (WINDOWS_PREFIX + name + b":",)


def recent_bucket_us(lateness_us: int) -> int:
    """Width of a bucket of recent event ids."""
    return max(lateness_us // RECENT_BUCKETS, 1_000_000)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
