"""From a group of entities to their conditional writes, and back again once the store has taken them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from online.keys import timestamp_field
from online.words import Runs, joined, no_runs, runs_of, word
from online.write import Announcement, EntityWriter, EntityWrites, Outcomes
from streaming.advance import Group, SegmentChange, ViewValues
from streaming.entity import EntityState, positions_runs, small_fields
from streaming.plan import EntityKind

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_KEPT = 1


@dataclass(frozen=True, slots=True)
class PreparedWrites:
    """The writes of some entities of a group.

    Attributes:
        kind: The entities' kind.
        keys: Theirs.
        states: Theirs, as they are once they are written.
        at_us: Logical time of what is written.
        due_us: When each must be looked at again.
        values: Values of the kind's views, in the order of `EntityKind.shown`.
        places: By view and entity: the row of its values, or -1; shape (views, entities).
        fresh: Whether that row differs from what was last written; the same shape.
        changes: Segments that they entered and left.
        small: The small fields of each state as they stand in the store afterwards.
        state_bytes: How much of each state is written.
        words: For the writer.
    """

    kind: EntityKind
    keys: list[bytes]
    states: list[EntityState]
    at_us: int
    due_us: IntArray
    values: tuple[ViewValues | None, ...]
    places: IntArray
    fresh: BoolArray
    changes: list[SegmentChange]
    small: list[dict[bytes, bytes]] | None
    state_bytes: IntArray
    words: EntityWrites

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of writes.

    Attributes:
        accepted: By entity; the store no longer holds what the others were computed from.
        visible: By view and entity, shape (views, entities): whether readers see the fresh row now; another writer may
            have brought a later one.
    """

    accepted: BoolArray
    visible: BoolArray


def prepare_writes(group: Group, entities: IntArray, partition: int | None) -> PreparedWrites:
    """Put writes together: changed views, changed state, dropped state.

    Args:
        group: Entities that were brought to a time.
        entities: Numbers of those to be written, ascending.
        partition: Whose position and mark the states carry.
    """
    kind, size = group.kind, len(entities)
    whole = size == len(group.keys)
    keys = group.keys if whole else [group.keys[number] for number in entities.tolist()]
    states = group.states if whole else [group.states[number] for number in entities.tolist()]
    number_of = np.full(len(group.keys), -1, dtype=np.int64)
    number_of[entities] = np.arange(size)
    places, fresh, sizes, parts = _views(group, states, number_of)
    state_parts = [positions_runs(states, partition)]
    small = _small(kind, states)
    if small is not None:
        state_parts.append(_changed(states, small))
    dropped_parts = [_dropped(states, small)]
    if any(state.recent_ids is not None for state in states):
        put, drop = _recent(states)
        state_parts.append(put)
        dropped_parts.append(drop)
    for owners, change in group.tiles:
        own = number_of[owners]
        state_parts.append(_spread(change.put, own, size))
        dropped_parts.append(_spread(change.drop, own, size))
    words = EntityWrites(
        keys=keys,
        revisions=np.array([state.revision for state in states], dtype=np.int64),
        view_sizes=np.ascontiguousarray(sizes.T),
        state_sizes=sum((part.sizes for part in state_parts[1:]), state_parts[0].sizes),
        dropped_sizes=sum((part.sizes for part in dropped_parts[1:]), dropped_parts[0].sizes),
        words=[*parts, *state_parts, *dropped_parts],
        lasting=np.array([state.is_lasting for state in states], dtype=np.bool_),
        memory_s=kind.memory_s,
    )
    return PreparedWrites(
        kind=kind,
        keys=keys,
        states=states,
        at_us=group.at_us,
        due_us=group.due_us if whole else group.due_us[entities],
        values=tuple(group.shown),
        places=places,
        fresh=fresh,
        changes=group.changes,
        small=small,
        state_bytes=sum((part.stop - part.first for part in state_parts), np.zeros(size, dtype=np.int64)),
        words=words,
    )


def _views(
    group: Group, states: Sequence[EntityState], number_of: IntArray
) -> tuple[IntArray, BoolArray, IntArray, list[Runs]]:
    """By view and entity: row of its values, whether that is news, and words to write; and the words themselves."""
    count, size = len(group.shown), len(states)
    places = np.full((count, size), -1, dtype=np.int64)
    fresh = np.zeros((count, size), dtype=np.bool_)
    sizes = np.zeros((count, size), dtype=np.int64)
    parts: list[Runs] = []
    for view, values in enumerate(group.shown):
        if values is None:
            continue
        owners = number_of[values.entities]
        rows = np.flatnonzero(owners >= 0)
        own = owners[rows]
        known = np.array([state.written[view] if state.written else 0 for state in states], dtype=np.int64)
        is_new = values.digests[rows] != known[own]
        places[view, own], fresh[view, own] = rows, is_new
        sizes[view, own] = np.where(is_new, values.plan.words.count, _KEPT)
        new = np.full(len(owners), -1, dtype=np.int64)
        new[rows[is_new]] = own[is_new]
        run = _spread(values.words, new, size)
        if not is_new.all():
            run = joined([run, _stamps(values, sizes[view] == _KEPT)], size)
        parts.append(run)
    return places, fresh, sizes, parts


def _spread(runs: Runs, places: IntArray, size: int) -> Runs:
    """The runs for `size` entities, run `i` being that of entity `places[i]`."""
    same = len(places) == size and (places == np.arange(size)).all()
    return runs if same else runs.spread(places, size)


def _stamps(values: ViewValues, kept: BoolArray) -> Runs:
    """The field of a view's timestamp, for those of whom the view is kept."""
    stamp = word(timestamp_field(values.plan.view.stored_name))
    count = kept.astype(np.int64)
    return Runs(np.frombuffer(stamp, dtype=np.uint8), np.zeros_like(count), len(stamp) * count, count)


def _small(kind: EntityKind, states: Sequence[EntityState]) -> list[dict[bytes, bytes]] | None:
    """The small fields of states; None where their kind has none."""
    if kind.segments_view is None and len(kind.windows) == len(kind.views):
        return None
    return [small_fields(state) for state in states]


def _changed(states: Sequence[EntityState], small: Sequence[dict[bytes, bytes]]) -> Runs:
    return _pairs(
        {name: data for name, data in fields.items() if state.small.get(name) != data}
        for state, fields in zip(states, small, strict=True)
    )


def _dropped(states: Sequence[EntityState], small: Sequence[dict[bytes, bytes]] | None) -> Runs:
    """Fields of views, and segments, that are no longer defined."""
    if not any(state.unwanted or state.small for state in states):
        return no_runs(len(states))
    return runs_of(
        [*state.unwanted, *(name for name in state.small if small is None or name not in small[number])]
        if state.unwanted or state.small
        else ()
        for number, state in enumerate(states)
    )


def _recent(states: Sequence[EntityState]) -> tuple[Runs, Runs]:
    """What event ids were noted and forgotten; they count as written from now on."""
    changes: list[tuple[dict[bytes, bytes], list[bytes]]] = [
        ({}, []) if state.recent_ids is None else state.recent_ids.take_changes() for state in states
    ]
    drops = [drop for _, drop in changes]
    return _pairs([put for put, _ in changes]), runs_of(drops) if any(drops) else no_runs(len(drops))


def _pairs(fields: Iterable[Mapping[bytes, bytes]]) -> Runs:
    return runs_of([part for pair in own.items() for part in pair] if own else () for own in fields)


def send_writes(writer: EntityWriter, prepared: Sequence[PreparedWrites]) -> list[Written]:
    """Write."""
    return _written(prepared, writer.apply_many([part.words for part in prepared]))


def send_behind(
    writer: EntityWriter, announcement: Announcement, prepared: Sequence[PreparedWrites]
) -> Callable[[], tuple[object, list[Written] | None]]:
    """Write in one piece with what must happen before, as `EntityWriter.ask_behind` says it."""
    asked = writer.ask_behind(announcement, [part.words for part in prepared])

    def take() -> tuple[object, list[Written] | None]:
        reply, outcomes = asked()
        return reply, None if outcomes is None else _written(prepared, outcomes)

    return take


def _written(prepared: Sequence[PreparedWrites], outcomes: Sequence[Outcomes]) -> list[Written]:
    return [
        Written(outcome.accepted, part.fresh & outcome.written.T)
        for part, outcome in zip(prepared, outcomes, strict=True)
    ]


def note_written(prepared: Sequence[PreparedWrites]) -> None:
    """Note on states what the store holds once their writes are accepted; one that is refused must be read again."""
    for part in prepared:
        _note(part)


def _note(part: PreparedWrites) -> None:
    digests = np.zeros_like(part.places)
    for view, values in enumerate(part.values):
        if values is not None:
            own = part.places[view] >= 0
            digests[view, own] = values.digests[part.places[view, own]]
    known = list(zip(*digests.tolist(), strict=True)) if len(digests) else [()] * len(part)
    for number, state in enumerate(part.states):
        state.revision += 1
        state.written = known[number]
        state.is_lasting = True
        if state.unwanted:
            state.unwanted = ()
        if part.small is not None:
            state.small = part.small[number]
        elif state.small:
            state.small = {}
