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

from decision.lang.timing import next_flip_us
from decision.schema import Value
from online.view_words import ValueColumns, digests, is_number
from online.words import Runs
from streaming.entity import NEVER_US, EntityState, LatestRow
from streaming.plan import EntityKind, SegmentPlan, ViewPlan, ViewRows
from streaming.windows.batch import Batch
from streaming.windows.changes import Changes, changes
from streaming.windows.plan import WindowPlan
from streaming.windows.read import Column
from streaming.windows.state import TileState
from streaming.windows.stream import apply

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
    """Values of one view for some entities of a group.

    Attributes:
        plan: The view.
        entities: Number of each row's entity in its group, ascending.
        columns: Values by feature: of numbers as columns, of anything else one by one.
        value_us: Timestamp of each row's values in microseconds.
        words: Each row as the words that write it into Feast's hash.
    """

    plan: ViewPlan
    entities: IntArray
    columns: Mapping[str, Column | list[Value]]
    value_us: IntArray
    words: Runs

    @staticmethod
    def of(
        plan: ViewPlan, entities: IntArray, columns: Mapping[str, Column | list[Value]], value_us: IntArray
    ) -> ViewValues:
        """Encode the rows.

        Raises:
            ValueEncodeError: A value does not fit its feature's type.
        """
        words = plan.words.rows(_for_words(plan, columns), value_us)
        return ViewValues(plan, entities, columns, value_us, words)

    @cached_property
    def digests(self) -> IntArray:
        """A number that stands for each row's words."""
        return digests(self.words)

    @cached_property
    def lists(self) -> dict[str, list[Value]]:
        """The values in Python."""
        return {
            name: column.to_list() if isinstance(column, Column) else column
            for name, column in self.columns.items()
        }


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
class Group:
    """Entities of one kind that were brought to one logical time.

    Attributes:
        keys: Theirs.
        states: Theirs, as they are now.
        at_us: The logical time.
        before_us: The logical time at which each stood before.
        fed: Which of them a row of the batch was news to.
        shown: Values of each of the kind's views, in the order of `EntityKind.shown`; None where nobody has any.
        tiles: What of window states must be written: of which entities, and the words.
        changes: Segments entered and left.
        due_us: When each must be looked at again though nothing arrives; `NEVER_US` for never.
    """

    kind: EntityKind
    keys: list[bytes]
    states: list[EntityState]
    at_us: int
    before_us: IntArray
    fed: BoolArray
    due_us: IntArray
    shown: list[ViewValues | None] = field(default_factory=list)
    tiles: list[tuple[IntArray, Changes]] = field(default_factory=list)
    changes: list[SegmentChange] = field(default_factory=list)


def advance(
    kind: EntityKind,
    keys: Sequence[bytes],
    states: Sequence[EntityState],
    feeds: Mapping[str, ViewRows],
    positions: IntArray | None,
    borrowed: Mapping[bytes, Mapping[str, Value]],
    now_us: int,
) -> list[Group]:
    """Bring entities of one kind to logical time `now_us`.

    Args:
        kind: Their kind.
        keys: Entity keys.
        states: Theirs; changed in place.
        feeds: Rows by view; rows of other entities and rows already applied are passed over.
        positions: Of each source row of the feeds, which tells what is news to an entity; None where all are.
        borrowed: Values, by canonical name, of other views' features that segments read.
        now_us: Logical time; no event of the feeds lies behind it.

    A state that is ahead of `now_us` (its batch was applied before a crash and is read again) stays at its own time, so
    that a replay never shows an older value.

    Returns:
        The entities, grouped by the time to which they were brought.
    """
    members: dict[int, tuple[list[bytes], list[EntityState]]] = {}
    for key, state in zip(keys, states, strict=True):
        own_keys, own_states = members.setdefault(max(now_us, state.time_us), ([], []))
        own_keys.append(key)
        own_states.append(state)
    groups = []
    for at_us in sorted(members):
        own_keys, own_states = members[at_us]
        size = len(own_keys)
        group = Group(
            kind=kind,
            keys=own_keys,
            states=own_states,
            at_us=at_us,
            before_us=np.array([state.time_us for state in own_states], dtype=np.int64),
            fed=np.zeros(size, dtype=np.bool_),
            due_us=np.full(size, NEVER_US),
        )
        _advance_group(group, feeds, positions, borrowed)
        groups.append(group)
    return groups


def _advance_group(
    group: Group,
    feeds: Mapping[str, ViewRows],
    positions: IntArray | None,
    borrowed: Mapping[bytes, Mapping[str, Value]],
) -> None:
    kind, states = group.kind, group.states
    numbers = {key: number for number, key in enumerate(group.keys)}
    applied = None
    if positions is not None:
        applied = np.array([state.position for state in states], dtype=np.int64)
    window = 0
    for plan in kind.views:
        feed = feeds.get(plan.view.name)
        rows, entities = _own_rows(feed, numbers, positions, applied)
        group.fed[entities] = True
        if plan.windows is not None:
            shown = _advance_windows(group, plan, plan.windows, window, (feed, rows, entities))
            window += 1
        else:
            shown = _advance_latest(group, plan, (feed, rows, entities))
        group.shown.append(shown)
    for state in states:
        state.time_us = group.at_us
    if kind.segments_view is not None:
        group.shown.append(_advance_segments(group, kind.segments_view, borrowed))


def _own_rows(
    feed: ViewRows | None, numbers: Mapping[bytes, int], positions: IntArray | None, applied: IntArray | None
) -> tuple[IntArray, IntArray]:
    """Rows of the feed that are news to one of the entities, in order, and the number of that entity."""
    if feed is None or not len(feed.codes):
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    number = numbers.get
    wanted = np.array([number(key, -1) for key in feed.keys], dtype=np.int64)
    entity = wanted[feed.codes]
    own = entity >= 0
    if positions is not None and applied is not None:
        own &= positions[feed.source] > applied[entity]
    (rows,) = own.nonzero()
    return rows, entity[rows]


Feed = tuple[ViewRows | None, IntArray, IntArray]
"""Rows of a view, which of them are news, and the number of each one's entity."""


def _advance_windows(
    group: Group, plan: ViewPlan, windows: WindowPlan, number: int, news: Feed
) -> ViewValues | None:
    feed, rows, fed = news
    touched = np.array([bool(state.tiles) and state.tiles[number] is not None for state in group.states])
    touched[fed] = True
    (entities,) = touched.nonzero()
    if not len(entities):
        return None
    states = group.states
    active = states if len(entities) == len(states) else [states[place] for place in entities.tolist()]
    entity = entities.searchsorted(fed)
    batch = Batch.empty(windows)
    if feed is not None and len(rows):
        batch = feed.batch(entity, windows, None if len(rows) == len(feed.codes) else rows)
    nothing = TileState.empty(windows)
    before = [(state.tiles[number] or nothing) if state.tiles else nothing for state in active]
    applied = apply(windows, before, batch, group.at_us)
    fresh = np.array([state.revision == 0 for state in active], dtype=np.int64)
    group.tiles.append((entities, changes(windows, before, applied, fresh)))
    group.due_us[entities] = np.minimum(group.due_us[entities], applied.next_expiry_us)
    count = len(group.kind.windows)
    for state, tiles in zip(active, applied.states, strict=True):
        state.put_tiles(number, count, tiles)
    return ViewValues.of(plan, entities, applied.columns, applied.value_us)


def _advance_latest(group: Group, plan: ViewPlan, news: Feed) -> ViewValues | None:
    name, (feed, rows, fed) = plan.stored, news
    for row_number, number in zip(rows.tolist(), fed.tolist(), strict=True):
        assert feed is not None
        group.states[number].note_latest(name, latest_row(plan, feed, row_number))
    entities = [number for number, state in enumerate(group.states) if name in state.latest]
    if not entities:
        return None
    latest = [group.states[number].latest[name] for number in entities]
    columns: dict[str, Column | list[Value]] = {
        feature.name: [row.values[feature.name] for row in latest] for feature in plan.view.features
    }
    times = np.array([row.event_us for row in latest], dtype=np.int64)
    return ViewValues.of(plan, np.array(entities, dtype=np.int64), columns, times)


def latest_row(plan: ViewPlan, feed: ViewRows, number: int) -> LatestRow:
    """A row of a view without windows, by its number among the view's rows."""
    place = number if feed.rows is None else int(feed.rows[number])
    values = {feature.name: feed.made.cell(feature.name, place) for feature in plan.view.features}
    return LatestRow(int(feed.made.event_us[place]), feed.made.event_ids[place], values)


def _advance_segments(
    group: Group, plan: ViewPlan, borrowed: Mapping[bytes, Mapping[str, Value]]
) -> ViewValues:
    rows: list[dict[str, Value]] = [dict(borrowed.get(key, {})) for key in group.keys]
    for shown in group.shown:
        if shown is None:
            continue
        name = shown.plan.view.name
        columns = [(f"{name}.{feature}", values) for feature, values in shown.lists.items()]
        for place, number in enumerate(shown.entities.tolist()):
            rows[number].update({feature: values[place] for feature, values in columns})
    members = [_advance_members(group, plan, number, row) for number, row in enumerate(rows)]
    columns_by_name: dict[str, Column | list[Value]] = {
        feature.name: [row[feature.name] for row in members] for feature in plan.view.features
    }
    times = np.array([state.segments_us for state in group.states], dtype=np.int64)
    return ViewValues.of(plan, np.arange(len(members), dtype=np.int64), columns_by_name, times)


def _advance_members(group: Group, plan: ViewPlan, number: int, row: dict[str, Value]) -> dict[str, Value]:
    """Membership of one entity by segment; `row` has its features, and takes membership too."""
    kind, state, now_us = group.kind, group.states[number], group.at_us
    members: dict[str, Value] = {feature.name: False for feature in plan.view.features}
    changed = False
    due_us = int(group.due_us[number])
    for segment in kind.segments:
        wanted = segment.evaluate(row, now_us) is True
        held, dwell_us = dwelling(segment, state, wanted, now_us)
        members[segment.name] = row[f"{plan.view.name}.{segment.name}"] = held
        if held != (segment.name in state.segments):
            changed = True
            group.changes.append(SegmentChange(group.keys[number], segment.name, held, now_us, kind.name))
        flip_us = next_flip_us(segment.condition, row, now_us) if segment.follows_time else None
        due_us = min(due_us, dwell_us, NEVER_US if flip_us is None else flip_us)
    group.due_us[number] = due_us
    _note_members(kind, state, members, now_us)
    if changed or state.segments_us is None:
        state.segments_us = now_us
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


def _note_members(kind: EntityKind, state: EntityState, members: Mapping[str, Value], now_us: int) -> None:
    before = state.segments
    state.segments = {name: before.get(name, now_us) for name, held in members.items() if held}
    dwells = {segment.name: segment.dwell_us for segment in kind.segments if segment.dwell_us}
    left = {**state.left, **{name: now_us for name in before if name not in state.segments}}
    state.left = {
        name: left_us
        for name, left_us in left.items()
        if name not in state.segments and now_us - left_us < dwells.get(name, 0)
    }
