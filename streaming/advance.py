"""The step of the stream: entity states and a batch of rows in, new states and values out.

No I/O and no clock. The backfill, the stream and the tests take the same step. Entities go through it together, as
columns; only what is kept of each is an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from decision.lang.timing import next_flip_us
from decision.schema import Value
from online.view_words import ValueColumns, is_number
from streaming.entity import EntityState, LatestRow
from streaming.plan import EntityKind, SegmentPlan, ViewPlan, ViewRows
from streaming.windows.batch import Batch
from streaming.windows.changes import Changes, changes
from streaming.windows.read import Column
from streaming.windows.state import TileState
from streaming.windows.stream import apply

IntArray = npt.NDArray[np.int64]
NEVER_US = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class SegmentChange:
    """An entry into a segment or an exit from it, at a logical time, of an entity of a kind."""

    key: bytes
    segment: str
    entered: bool
    at_us: int
    kind: str


@dataclass(frozen=True)
class ViewValues:
    """Values of one view for many entities.

    Attributes:
        plan: The view.
        columns: Values by feature: of numbers as columns, of anything else one by one.
        value_us: Timestamp of each row's values in microseconds.
        words: Each row as the words that write it into Feast's hash.
    """

    plan: ViewPlan
    columns: Mapping[str, Column | list[Value]]
    value_us: IntArray
    words: list[bytes]

    @staticmethod
    def of(plan: ViewPlan, columns: Mapping[str, Column | list[Value]], value_us: IntArray) -> ViewValues:
        """Encode the rows.

        Raises:
            ValueEncodeError: A value does not fit its feature's type.
        """
        return ViewValues(plan, columns, value_us, plan.words.rows(_for_words(plan, columns), value_us))

    @cached_property
    def lists(self) -> dict[str, list[Value]]:
        """The values in Python."""
        return {
            name: column.to_list() if isinstance(column, Column) else column
            for name, column in self.columns.items()
        }

    def row(self, number: int) -> dict[str, Value]:
        """The values of one row by feature."""
        return {name: values[number] for name, values in self.lists.items()}


def _for_words(plan: ViewPlan, columns: Mapping[str, Column | list[Value]]) -> ValueColumns:
    made: dict[str, Any] = {}
    for feature in plan.view.features:
        column = columns[feature.name]
        if isinstance(column, Column):
            made[feature.name] = (
                (column.values, column.null) if is_number(feature.value_type) else column.to_list()
            )
        else:
            made[feature.name] = column
    return made


@dataclass(slots=True)
class Update:
    """What became of one entity.

    Attributes:
        at_us: Logical time to which it was brought.
        fed: Whether a row of the batch was news to it.
        shown: By view: its values, and the entity's row there. All views that have any.
        tiles: What of its window state must be written, by view.
        changes: Segments entered and left.
        due_us: When the entity must be looked at again though nothing arrives; `NEVER_US` for never.
    """

    key: bytes
    state: EntityState
    at_us: int
    fed: bool = False
    shown: dict[str, tuple[ViewValues, int]] = field(default_factory=dict)
    tiles: list[Changes] = field(default_factory=list)
    changes: list[SegmentChange] = field(default_factory=list)
    due_us: int = NEVER_US


@dataclass(frozen=True, slots=True)
class Source:
    """Where a batch comes from, which tells what of it is news to an entity.

    Attributes:
        partition: Of the log.
        positions: Position of each source row of the feeds.
    """

    partition: int
    positions: IntArray


def advance(
    kind: EntityKind,
    states: Mapping[bytes, EntityState],
    feeds: Mapping[str, ViewRows],
    source: Source | None,
    borrowed: Mapping[bytes, Mapping[str, Value]],
    now_us: int,
) -> list[Update]:
    """Bring entities of one kind to logical time `now_us`.

    Args:
        kind: Their kind.
        states: State by entity key; changed in place.
        feeds: Rows by view; rows of other entities and rows already applied are passed over.
        source: Tells which rows are news to an entity; None where all are.
        borrowed: Values, by canonical name, of other views' features that segments read.
        now_us: Logical time; no event of the feeds lies behind it.

    A state that is ahead of `now_us` (its batch was applied before a crash and is read again) stays at its own time, so
    that a replay never shows an older value.

    Returns:
        One update per entity, in the order of `states`.
    """
    updates = [Update(key, state, max(now_us, state.time_us)) for key, state in states.items()]
    times = {update.at_us for update in updates}
    for at_us in sorted(times):
        group = updates if len(times) == 1 else [update for update in updates if update.at_us == at_us]
        _advance_group(kind, group, feeds, source, borrowed, at_us)
    return updates


def _advance_group(
    kind: EntityKind,
    updates: Sequence[Update],
    feeds: Mapping[str, ViewRows],
    source: Source | None,
    borrowed: Mapping[bytes, Mapping[str, Value]],
    now_us: int,
) -> None:
    numbers = {update.key: number for number, update in enumerate(updates)}
    applied = None
    if source is not None:
        applied = np.array([update.state.positions.get(source.partition, 0) for update in updates])
    for plan in kind.views:
        feed = feeds.get(plan.view.name)
        own = _own_rows(feed, numbers, source, applied)
        for number in np.unique(own[1]).tolist():
            updates[number].fed = True
        if plan.windows is not None:
            _advance_windows(plan, updates, feed, own, now_us)
        else:
            _advance_latest(plan, updates, feed, own)
    for update in updates:
        update.state.time_us = now_us
    if kind.segments_view is not None:
        _advance_segments(kind, updates, borrowed, now_us)


def _own_rows(
    feed: ViewRows | None, numbers: Mapping[bytes, int], source: Source | None, applied: IntArray | None
) -> tuple[IntArray, IntArray]:
    """Rows of the feed that are news to one of the entities, in order, and the number of that entity."""
    if feed is None or not len(feed.codes):
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    wanted = np.array([numbers.get(key, -1) for key in feed.keys], dtype=np.int64)
    entity = wanted[feed.codes]
    own = entity >= 0
    if source is not None and applied is not None:
        own &= source.positions[feed.source] > applied[entity]
    rows = np.flatnonzero(own)
    return rows, entity[rows]


def _advance_windows(
    plan: ViewPlan,
    updates: Sequence[Update],
    feed: ViewRows | None,
    own: tuple[IntArray, IntArray],
    now_us: int,
) -> None:
    name, windows = plan.view.name, plan.windows
    assert windows is not None
    rows, entity = own
    touched = np.array([name in update.state.tiles for update in updates], dtype=np.bool_)
    touched[entity] = True
    numbers = np.flatnonzero(touched)
    if not len(numbers):
        return
    active = [updates[number] for number in numbers.tolist()]
    batch = _batch(plan, feed, rows, np.searchsorted(numbers, entity))
    nothing = TileState.empty(windows)
    before = [update.state.tiles.get(name, nothing) for update in active]
    applied = apply(windows, before, batch, now_us)
    fresh = np.array([update.state.revision == 0 for update in active], dtype=np.int64)
    found = changes(windows, before, applied, fresh)
    shown = ViewValues.of(plan, applied.columns, applied.value_us)
    due = applied.next_expiry_us.tolist()
    for number, (update, state, change) in enumerate(zip(active, applied.states, found, strict=True)):
        update.state.tiles[name] = state
        update.tiles.append(change)
        update.shown[name] = (shown, number)
        update.due_us = min(update.due_us, due[number])


def _batch(plan: ViewPlan, feed: ViewRows | None, rows: IntArray, entity: IntArray) -> Batch:
    assert plan.windows is not None
    if feed is None or not len(rows):
        return Batch.empty(plan.windows)
    frame = feed.frame if len(rows) == len(feed.frame) else feed.frame.iloc[rows]
    return Batch.from_frame(frame, entity, plan.windows)


def _advance_latest(
    plan: ViewPlan, updates: Sequence[Update], feed: ViewRows | None, own: tuple[IntArray, IntArray]
) -> None:
    name = plan.view.name
    for row_number, number in zip(own[0].tolist(), own[1].tolist(), strict=True):
        assert feed is not None
        state = updates[number].state
        row = _latest_row(plan, feed.frame.iloc[row_number])
        newest = state.latest.get(name)
        if newest is None or (row.event_us, row.event_id) >= (newest.event_us, newest.event_id):
            state.latest[name] = row
    active = [update for update in updates if name in update.state.latest]
    latest = [update.state.latest[name] for update in active]
    columns = {feature.name: [row.values[feature.name] for row in latest] for feature in plan.view.features}
    shown = ViewValues.of(plan, columns, np.array([row.event_us for row in latest], dtype=np.int64))
    for number, update in enumerate(active):
        update.shown[name] = (shown, number)


def _latest_row(plan: ViewPlan, row: pd.Series) -> LatestRow:
    values = {feature.name: plain(row[feature.name]) for feature in plan.view.features}
    return LatestRow(event_us=timestamp_us(row["event_time"]), event_id=row["event_id"], values=values)


def timestamp_us(moment: pd.Timestamp) -> int:
    """Microseconds since the epoch; `Timestamp.value` counts nanoseconds and ends in 2262."""
    return int(moment.as_unit("us").to_numpy().view("int64"))


def plain(value: Any) -> Value:
    """A pandas cell as a plain value: NaN, NaT and NA are NULL, timestamps are whole seconds in microseconds."""
    if isinstance(value, (list, tuple, np.ndarray)):
        items: list[Any] = [plain(item) for item in value]
        return tuple(items)
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return timestamp_us(value) // 1_000_000 * 1_000_000
    scalar: Value = value.item() if isinstance(value, np.generic) else value
    return scalar


def _advance_segments(
    kind: EntityKind, updates: Sequence[Update], borrowed: Mapping[bytes, Mapping[str, Value]], now_us: int
) -> None:
    assert kind.segments_view is not None
    view = kind.segments_view.view
    members = [_advance_members(kind, update, borrowed.get(update.key, {}), now_us) for update in updates]
    columns: dict[str, Column | list[Value]] = {
        feature.name: [row[feature.name] for row in members] for feature in view.features
    }
    times = np.array([update.state.segments_us for update in updates], dtype=np.int64)
    shown = ViewValues.of(kind.segments_view, columns, times)
    for number, update in enumerate(updates):
        update.shown[view.name] = (shown, number)


def _advance_members(
    kind: EntityKind, update: Update, borrowed: Mapping[str, Value], now_us: int
) -> dict[str, Value]:
    assert kind.segments_view is not None
    view = kind.segments_view.view
    row: dict[str, Value] = dict(borrowed)
    for name, (shown, number) in update.shown.items():
        row.update({f"{name}.{feature}": values[number] for feature, values in shown.lists.items()})
    members: dict[str, Value] = {feature.name: False for feature in view.features}
    for segment in kind.segments:
        wanted = segment.evaluate(row, now_us) is True
        held, due_us = dwelling(segment, update.state, wanted, now_us)
        members[segment.name] = row[f"{view.name}.{segment.name}"] = held
        if held != (segment.name in update.state.segments):
            update.changes.append(SegmentChange(update.key, segment.name, held, now_us, kind.name))
        flip_us = next_flip_us(segment.condition, row, now_us) if segment.follows_time else None
        update.due_us = min(update.due_us, due_us, NEVER_US if flip_us is None else flip_us)
    _note_members(kind, update, members, now_us)
    if update.changes or update.state.segments_us is None:
        update.state.segments_us = now_us
    return members


def dwelling(segment: SegmentPlan, state: EntityState, wanted: bool, now_us: int) -> tuple[bool, int]:
    """Whether an entity is in a segment whose condition says `wanted`: for its minimum dwell it stays where it is.

    Returns:
        Membership, and when it must be looked at again for the sake of the dwell; `NEVER_US` for never.
    """
    is_member = segment.name in state.segments
    changed_us = state.segments.get(segment.name) if is_member else state.left.get(segment.name)
    if wanted == is_member or not segment.dwell_us or changed_us is None:
        return wanted, NEVER_US
    until_us = changed_us + segment.dwell_us
    return (wanted, NEVER_US) if now_us >= until_us else (is_member, until_us)


def _note_members(kind: EntityKind, update: Update, members: Mapping[str, Value], now_us: int) -> None:
    state, before = update.state, update.state.segments
    state.segments = {name: before.get(name, now_us) for name, held in members.items() if held}
    dwells = {segment.name: segment.dwell_us for segment in kind.segments if segment.dwell_us}
    left = state.left | {name: now_us for name in before if name not in state.segments}
    state.left = {
        name: left_us
        for name, left_us in left.items()
        if name not in state.segments and now_us - left_us < dwells.get(name, 0)
    }
