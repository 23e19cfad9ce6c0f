"""What the stream will keep of an entity in the online store, told before any event has come.

Entities are made up and taken through the stream's own step and encoding; what the store adds is modelled on Valkey 9.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from decision.schema import Value, View
from online.errors import ValueEncodeError
from online.keys import feature_field, state_key, timestamp_field
from online.values import encoder
from online.write import REVISION_FIELD
from server.stream_check import SAMPLE_US, sample_events
from streaming.entity import (
    POSITIONS,
    EntityState,
    LatestRow,
    positions_field,
    recent_bucket_us,
    small_fields,
)
from streaming.events import EventRecord, Events, EventSchema
from streaming.frame import events_frame
from streaming.plan import EntityKind, SourceEvents, StreamPlan, ViewPlan, ViewRows
from streaming.recent import MAX_RECENT_IDS, RecentIds, id_hashes
from streaming.windows.batch import Batch
from streaming.windows.distinct_kernels import BEFORE
from streaming.windows.plan import DISTINCT_EXACT_BELOW, Distinct, WindowPlan
from streaming.windows.state import TileState, encode
from streaming.windows.stream import apply

_ID = "{:036d}"
"""Event ids of the length of a UUID."""
_TIME_BYTES = 12
_LISTPACK_FIELDS, _LISTPACK_BYTES = 512, 64
_KEY_OVERHEAD, _TABLE_OVERHEAD = 48, 160
_PACKED_OVERHEAD, _ENTRY_OVERHEAD, _APART_OVERHEAD = 5, 22, 58
_APART_BYTES = 120
"""Of field and value together, from which the store keeps the value apart."""

Fields = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an entity of a kind takes in the store, its features and its state together.

    Attributes:
        kind: Join keys.
        is_customer: Whether they are the customer's alone.
        least_bytes: After a single event.
        busy_bytes: With an event of each type in every hop of each window, all different where values are counted.
        most_bytes: As many different values as are kept, chosen to have as many kept as can be; busy_bytes where none
            are counted.
    """

    kind: str
    is_customer: bool
    least_bytes: int
    busy_bytes: int
    most_bytes: int


class _Load(enum.IntEnum):
    """How much happens to an entity; as `Forecast` has it."""

    LEAST = 0
    BUSY = 1
    MOST = 2


def forecast(plan: StreamPlan, schema: EventSchema, partitions: int) -> tuple[Forecast, ...]:
    """Forecast every kind of entity that the stream keeps."""
    return tuple(_of_kind(plan, kind, schema, partitions) for kind in plan.kinds)


def _of_kind(plan: StreamPlan, kind: EntityKind, schema: EventSchema, partitions: int) -> Forecast:
    sources = 1 if kind is plan.customer else partitions
    counts = any(view.windows is not None and view.windows.distincts for view in kind.views)
    busy_bytes = _entity_bytes(plan, kind, schema, sources, _Load.BUSY)
    return Forecast(
        kind=kind.name,
        is_customer=kind is plan.customer,
        least_bytes=_entity_bytes(plan, kind, schema, 1, _Load.LEAST),
        busy_bytes=busy_bytes,
        most_bytes=_entity_bytes(plan, kind, schema, sources, _Load.MOST) if counts else busy_bytes,
    )


def stored_bytes(key: bytes, fields: Fields) -> int:
    """What a hash takes in a Valkey 9 with its defaults, near enough."""
    sizes = [(len(name), len(value)) for name, value in fields.items()]
    total = _KEY_OVERHEAD + len(key)
    if len(sizes) <= _LISTPACK_FIELDS and all(max(pair) <= _LISTPACK_BYTES for pair in sizes):
        return total + sum(name + value + _PACKED_OVERHEAD for name, value in sizes)
    apart = [name + value > _APART_BYTES for name, value in sizes]
    overheads = sum(_APART_OVERHEAD if far else _ENTRY_OVERHEAD for far in apart)
    return total + _TABLE_OVERHEAD + overheads + sum(name + value for name, value in sizes)


def _entity_bytes(plan: StreamPlan, kind: EntityKind, schema: EventSchema, sources: int, load: _Load) -> int:
    state = EntityState(SAMPLE_US)
    kept: dict[bytes, bytes] = {REVISION_FIELD: b"1000"}
    shown: dict[bytes, bytes] = {}
    key = b""
    latest: dict[str, LatestRow] = {}
    for view_plan in kind.views:
        rows = _rows(view_plan, schema, busy=load > _Load.LEAST)
        if not len(rows.codes):
            continue
        key = rows.keys[0]
        own = np.flatnonzero(rows.codes == 0)
        values: dict[str, Value]
        if view_plan.windows is None:
            values = {name: _plain(rows.made.column(name)[int(own[-1])]) for name in view_plan.columns}
            latest[view_plan.view.name] = LatestRow(SAMPLE_US, _ID.format(0), values)
        else:
            windows = view_plan.windows
            batch = rows.batch(np.zeros(len(own), dtype=np.int64), windows, own)
            step = apply(windows, [TileState.empty(windows)], _varied(windows, batch), SAMPLE_US)
            (tiles,) = step.states
            if load == _Load.MOST:
                tiles.sets = tuple(_fullest(windows, each) for each in windows.distincts)
            kept |= encode(windows, tiles)
            values = {name: column[0] for name, column in step.values.items()}
        shown |= _feature_fields(view_plan.view, values)
    if kind.segments_view is not None:
        state.segments_us = SAMPLE_US
        state.segments = dict.fromkeys([segment.name for segment in kind.segments], SAMPLE_US)
        shown |= _feature_fields(
            kind.segments_view.view, dict.fromkeys([segment.name for segment in kind.segments], True)
        )
    state.latest, state.left = latest, {}
    kept |= small_fields(state)
    state.others = bytes(20 * (sources - 1))
    kept[POSITIONS] = positions_field(state, 0)
    if kind is plan.customer:
        kept |= _recent(plan, schema, load)
    return stored_bytes(state_key(key), kept) + stored_bytes(key, shown)


def _rows(view_plan: ViewPlan, schema: EventSchema, *, busy: bool) -> ViewRows:
    """Rows that a view makes of one event of each type: once, or in each hop of its widest window.

    Of values that are counted over all time there are as many more from before as are kept.
    """
    windows = view_plan.windows
    hops = max(windows.max_tiles, 0) + 1 if busy and windows is not None else 1
    if busy and windows is not None and any(each.forever for each in windows.distincts):
        hops += windows.distinct_exact_below
    hop_us = windows.hop_us if windows is not None else 1
    samples = list(sample_events(schema))[::2]
    events = [
        EventRecord(
            _ID.format(place * hops + hop),
            sample.event_type,
            sample.customer_id,
            SAMPLE_US - hop * hop_us,
            sample.properties,
        )
        for place, sample in enumerate(samples)
        for hop in range(hops)
    ]
    return view_plan.rows(
        view_plan.transformed(SourceEvents.of(events_frame(Events.of(events), schema.property_types)))
    )


def _varied(windows: WindowPlan, batch: Batch) -> Batch:
    """Another value in each row of the columns whose values are counted."""
    columns: dict[str, Any] = dict(batch.columns)
    for distinct in windows.distincts:
        name = windows.columns[distinct.column]
        first = columns[name][0]
        if isinstance(first, str):
            columns[name] = [str(number) for number in range(len(batch))]
        elif isinstance(first, int | float | np.integer | np.floating) and not isinstance(first, bool):
            columns[name] = np.arange(len(batch))
    return dataclasses.replace(batch, columns=columns)


def _fullest(windows: WindowPlan, each: Distinct) -> bytes:
    """A set as large as it can be: hashes that ascend with their tiles, as many of each as are kept."""
    count = each.most_entries(windows.distinct_exact_below)
    now = SAMPLE_US // windows.hop_us
    tiles = [BEFORE] * each.forever + list(range(now - each.tiles, now + 1) if each.tiles >= 0 else ())
    entries = np.empty((count, 2), np.int64)
    entries[:, 0] = (np.arange(count, dtype=np.uint64) * np.uint64(2**64 // count)).view(np.int64)
    entries[:, 1] = np.repeat(np.array(tiles, np.int64), windows.distinct_exact_below)
    return entries.tobytes()


def _plain(value: Any) -> Value:
    """A cell of a frame as JSON takes it."""
    plain: Value = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, bool | int | float | str) else str(plain)


def _feature_fields(view: View, values: Mapping[str, Value]) -> dict[bytes, bytes]:
    fields = {timestamp_field(view.stored_name): bytes(_TIME_BYTES)}
    for feature in view.features:
        value = values.get(feature.name)
        try:
            data = b"" if value is None else encoder(feature.value_type)(value)
        except (ValueEncodeError, TypeError, ValueError):
            # A cell of a row as it came, which the stream converts.
            data = bytes(_TIME_BYTES)
        fields[feature_field(view.stored_name, feature.name)] = data
    return fields


def _recent(plan: StreamPlan, schema: EventSchema, load: _Load) -> dict[bytes, bytes]:
    """Event ids of the lateness bound, at the pace of the shortest hop; it takes events to bring many values."""
    hops = [view.windows.hop_us for kind in plan.kinds for view in kind.views if view.windows is not None]
    per_hop = len(schema.types) * (DISTINCT_EXACT_BELOW if load == _Load.MOST else 1)
    in_time = max(schema.lateness_us // min(hops, default=schema.lateness_us), 1)
    count = per_hop * in_time if load > _Load.LEAST else 1
    count = min(count, MAX_RECENT_IDS)
    buckets = np.linspace(0, schema.lateness_us, count).astype(np.int64) // recent_bucket_us(
        schema.lateness_us
    )
    ids = RecentIds()
    ids.note(
        SAMPLE_US // recent_bucket_us(schema.lateness_us) - buckets,
        id_hashes([_ID.format(number) for number in range(count)]),
        np.arange(count, dtype=np.int64) + 1,
    )
    return ids.take_changes()[0]
