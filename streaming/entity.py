"""One entity's state: everything the stream must remember about it, and its form in the store.

The state lives in one hash beside the entity's features (`online/keys.py: state_key`), cut into small fields so that a
write carries only what changed. The write script itself keeps the field `rev`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from decision.schema import Value
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState, decode, encode

REVISION = b"rev"
POSITIONS = b"p"
SEGMENTS = b"s"
RECENT_PREFIX = b"r:"
LATEST_PREFIX = b"l:"
RECENT_BUCKETS = 8
"""The lateness bound is covered by this many buckets of recent event ids."""


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
        recent: Bucket of event time → event id → the position that first brought it. Customers only.
        tiles: Window state by view.
        latest: Newest row by view without windows.
        segments: Segments the entity is in → logical time of entry in microseconds.
        left: Segments with a minimum dwell that the entity has left within it → logical time of the exit.
        segments_us: Logical time at which membership last changed, or was first evaluated; None before that.
        stored: The fields as they stand in the store.
        written: What was last written per view (values, timestamp), to skip writes that change nothing.
    """

    revision: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    time_us: int = 0
    recent: dict[int, dict[str, int]] = field(default_factory=dict)
    tiles: dict[str, TileState] = field(default_factory=dict)
    latest: dict[str, LatestRow] = field(default_factory=dict)
    segments: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    segments_us: int | None = None
    stored: dict[bytes, bytes] = field(default_factory=dict)
    written: dict[str, tuple[object, int]] = field(default_factory=dict)


def decode_state(fields: Mapping[bytes, bytes], plans: Mapping[str, WindowPlan]) -> EntityState:
    """Read a state hash; chunks of views that are no longer defined go with the next write."""
    state = EntityState(revision=int(fields.get(REVISION, b"0")), stored=dict(fields))
    state.stored.pop(REVISION, None)
    if POSITIONS in fields:
        state.time_us, sources = json.loads(fields[POSITIONS])
        state.positions = {int(partition): position for partition, (position, _) in sources.items()}
        state.marks = {int(partition): mark for partition, (_, mark) in sources.items()}
    if SEGMENTS in fields:
        state.segments_us, state.segments, state.left = json.loads(fields[SEGMENTS])
    tile_chunks: dict[str, dict[bytes, bytes]] = {}
    for name, data in fields.items():
        if name.startswith(RECENT_PREFIX):
            state.recent[int(name[len(RECENT_PREFIX) :])] = json.loads(data)
        elif name.startswith(LATEST_PREFIX):
            state.latest[name[len(LATEST_PREFIX) :].decode()] = LatestRow(*json.loads(data))
        elif name.startswith(b"w:"):
            view = name.split(b":", 2)[1].decode()
            tile_chunks.setdefault(view, {})[name] = data
    for view, chunks in tile_chunks.items():
        if view in plans:
            state.tiles[view] = decode(plans[view], chunks)
    return state


def decode_mark(field: bytes | None, partition: int) -> int:
    """Number of the intent under which a partition last wrote an entity, from the field `POSITIONS`; 0 for never."""
    if field is None:
        return 0
    _, sources = json.loads(field)
    return int(sources.get(str(partition), (0, 0))[1])


def encode_state(state: EntityState, plans: Mapping[str, WindowPlan]) -> dict[bytes, bytes]:
    """All fields of a state hash but the revision."""
    fields: dict[bytes, bytes] = {}
    if state.positions or state.time_us:
        sources = {
            partition: (position, state.marks.get(partition, 0))
            for partition, position in state.positions.items()
        }
        fields[POSITIONS] = _json((state.time_us, sources))
    if state.segments_us is not None:
        fields[SEGMENTS] = _json((state.segments_us, state.segments, state.left))
    for bucket, ids in state.recent.items():
        fields[RECENT_PREFIX + str(bucket).encode()] = _json(ids)
    for view, row in state.latest.items():
        fields[LATEST_PREFIX + view.encode()] = _json((row.event_us, row.event_id, row.values))
    for view, tiles in state.tiles.items():
        fields.update(encode(plans[view], tiles))
    return fields


def changed_fields(
    state: EntityState, fields: Mapping[bytes, bytes]
) -> tuple[dict[bytes, bytes], tuple[bytes, ...]]:
    """What a write must set and drop to turn the stored fields into `fields`."""
    stored = state.stored
    changed = {name: data for name, data in fields.items() if stored.get(name) != data}
    dropped = tuple(name for name in stored if name not in fields)
    return changed, dropped


def view_chunks(view: str, *, segments: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Fields of the state that are of one view alone: by name, and by how they begin.

    Args:
        view: Name of the view.
        segments: Whether it is the one that stores membership.
    """
    name = view.encode()
    return (LATEST_PREFIX + name, *((SEGMENTS,) if segments else ())), (b"w:" + name + b":",)


def recent_bucket_us(lateness_us: int) -> int:
    """Width of a bucket of recent event ids."""
    return max(lateness_us // RECENT_BUCKETS, 1_000_000)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
