"""The step of the stream: entity states and a batch of rows in, new states and values out.

No I/O and no clock. The backfill, the stream and the tests take the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from decision.lang.timing import next_flip_us
from decision.schema import Value
from streaming.entity import EntityState, LatestRow
from streaming.plan import EntityKind, SegmentPlan, ViewPlan, ViewRows
from streaming.windows.batch import Batch
from streaming.windows.state import TileState
from streaming.windows.stream import apply

NEVER_US = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class SegmentChange:
    """An entry into a segment or an exit from it, at a logical time, of an entity of a kind."""

    key: bytes
    segment: str
    entered: bool
    at_us: int
    kind: str


@dataclass(slots=True)
class Update:
    """What became of one entity.

    Attributes:
        at_us: Logical time to which it was brought.
        values: By view: the values by feature, and their event timestamp in microseconds. All views that have any.
        changes: Segments entered and left.
        due_us: When the entity must be looked at again though nothing arrives; `NEVER_US` for never.
    """

    key: bytes
    state: EntityState
    at_us: int
    values: dict[str, tuple[dict[str, Value], int]] = field(default_factory=dict)
    changes: list[SegmentChange] = field(default_factory=list)
    due_us: int = NEVER_US


Unapplied = Callable[[bytes, int], bool]
"""Whether the event in a row of the batch is yet to be applied to an entity (`key`, source row)."""


def advance(
    kind: EntityKind,
    states: Mapping[bytes, EntityState],
    feeds: Mapping[str, ViewRows],
    unapplied: Unapplied,
    borrowed: Mapping[bytes, Mapping[str, Value]],
    now_us: int,
) -> list[Update]:
    """Bring entities of one kind to logical time `now_us`.

    Args:
        kind: Their kind.
        states: State by entity key; changed in place.
        feeds: Rows by view; rows of other entities and rows already applied are passed over.
        unapplied: Tells which rows are news to an entity.
        borrowed: Values, by canonical name, of other views' features that segments read.
        now_us: Logical time; no event of the feeds lies behind it.

    A state that is ahead of `now_us` (its batch was applied before a crash and is read again) stays at its own time, so
    that a replay never shows an older value.

    Returns:
        One update per entity, in the order of `states`.
    """
    updates = {
        key: Update(key=key, state=state, at_us=max(now_us, state.time_us)) for key, state in states.items()
    }
    for at_us in sorted({update.at_us for update in updates.values()}):
        _advance_group(
            kind, {k: u for k, u in updates.items() if u.at_us == at_us}, feeds, unapplied, borrowed, at_us
        )
    return list(updates.values())


def _advance_group(
    kind: EntityKind,
    updates: Mapping[bytes, Update],
    feeds: Mapping[str, ViewRows],
    unapplied: Unapplied,
    borrowed: Mapping[bytes, Mapping[str, Value]],
    now_us: int,
) -> None:
    for plan in kind.views:
        feed = feeds.get(plan.view.name)
        if plan.windows is not None:
            _advance_windows(plan, updates, feed, unapplied, now_us)
        else:
            _advance_latest(plan, updates, feed, unapplied)
    for update in updates.values():
        update.state.time_us = now_us
        if kind.segments_view is not None:
            _advance_segments(kind, update, borrowed.get(update.key, {}), now_us)


def _own_rows(
    rows: ViewRows | None, states: Mapping[bytes, EntityState], unapplied: Unapplied
) -> dict[bytes, list[int]]:
    """Row numbers of the feed by entity, in order."""
    own: dict[bytes, list[int]] = {}
    if rows is None:
        return own
    wanted = [key if key in states else None for key in rows.keys]
    for number, (code, source) in enumerate(zip(rows.codes.tolist(), rows.source.tolist(), strict=True)):
        key = wanted[code]
        if key is not None and unapplied(key, source):
            own.setdefault(key, []).append(number)
    return own


def _advance_windows(
    plan: ViewPlan, updates: Mapping[bytes, Update], feed: ViewRows | None, unapplied: Unapplied, now_us: int
) -> None:
    name, windows = plan.view.name, plan.windows
    assert windows is not None
    own = _own_rows(feed, {key: update.state for key, update in updates.items()}, unapplied)
    active = [update for key, update in updates.items() if key in own or name in update.state.tiles]
    if not active:
        return
    batch = _batch(plan, [own.get(update.key, []) for update in active], feed)
    tiles = [update.state.tiles.get(name) or TileState.empty(windows) for update in active]
    applied = apply(windows, tiles, batch, now_us)
    columns = [(feature.name, applied.values[feature.name]) for feature in plan.view.features]
    for number, update in enumerate(active):
        update.state.tiles[name] = applied.states[number]
        values = {feature: column[number] for feature, column in columns}
        update.values[name] = (values, int(applied.value_us[number]))
        update.due_us = min(update.due_us, int(applied.next_expiry_us[number]))


def _batch(plan: ViewPlan, row_numbers: Sequence[Sequence[int]], feed: ViewRows | None) -> Batch:
    assert plan.windows is not None
    entity = np.repeat(np.arange(len(row_numbers), dtype=np.int64), [len(rows) for rows in row_numbers])
    if feed is None or not len(entity):
        return Batch.empty(plan.windows)
    order = np.array([number for rows in row_numbers for number in rows], dtype=np.int64)
    frame = (
        feed.frame
        if len(order) == len(feed.frame) and bool((np.diff(order) > 0).all())
        else feed.frame.iloc[order]
    )
    return Batch.from_frame(frame, entity, plan.windows)


def _advance_latest(
    plan: ViewPlan, updates: Mapping[bytes, Update], feed: ViewRows | None, unapplied: Unapplied
) -> None:
    name = plan.view.name
    own = _own_rows(feed, {key: update.state for key, update in updates.items()}, unapplied)
    for key, update in updates.items():
        for number in own.get(key, ()):
            assert feed is not None
            row = _latest_row(plan, feed.frame.iloc[number])
            newest = update.state.latest.get(name)
            if newest is None or (row.event_us, row.event_id) >= (newest.event_us, newest.event_id):
                update.state.latest[name] = row
        if name in update.state.latest:
            latest = update.state.latest[name]
            update.values[name] = (dict(latest.values), latest.event_us)


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


def _advance_segments(kind: EntityKind, update: Update, borrowed: Mapping[str, Value], now_us: int) -> None:
    assert kind.segments_view is not None
    view = kind.segments_view.view
    row: dict[str, Value] = dict(borrowed)
    for name, (values, _) in update.values.items():
        row.update({f"{name}.{feature}": value for feature, value in values.items()})
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
    update.values[view.name] = (members, update.state.segments_us)


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
