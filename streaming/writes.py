"""From a group of entities to their conditional writes, and back again once the store has taken them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.entity_calls import EntityWrites
from online.entity_line import EntityLine
from online.keys import timestamp_field
from online.words import Runs, Spans, packed_runs, runs_of, word
from online.write import Announcement, EntityWriter, Outcomes
from streaming.advance import Group, SegmentChange, ViewValues
from streaming.entity import EntityState, positions_runs, small_fields
from streaming.plan import EntityKind
from streaming.write_kernels import find_news

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_NO_CHANGES: tuple[dict[bytes, bytes], list[bytes]] = {}, []


@dataclass(slots=True)
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
        digests: By entity and view: what stands for its row, or 0; shape (entities, views).
        changes: Segments that they entered and left.
        small: The small fields of each state as they stand in the store afterwards.
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
    digests: IntArray
    changes: list[SegmentChange]
    small: list[dict[bytes, bytes]] | None
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
        state_bytes: How much of the accepted ones' state was written.
    """

    accepted: BoolArray
    visible: BoolArray
    state_bytes: int


def prepare_writes(group: Group, entities: IntArray, partition: int | None) -> PreparedWrites:
    """Put writes together: changed views, changed state, dropped state.

    Args:
        group: Entities that were brought to a time.
        entities: Numbers of those to be written, ascending.
        partition: Whose position and mark the states carry.
    """
    kind = group.kind
    whole = len(entities) == len(group.keys)
    keys = group.keys if whole else [group.keys[number] for number in entities.tolist()]
    states = group.states if whole else [group.states[number] for number in entities.tolist()]
    number_of = np.full(len(group.keys), -1, dtype=np.int64)
    number_of[entities] = everyone = np.arange(len(entities))
    news = _news(group, states, number_of)
    small = _small(kind, states)
    noted, forgotten = _recent(states)
    put = [positions_runs(states, partition), *_changed(states, small), *noted]
    state_words = [runs.owned(everyone) for runs in put]
    dropped_words = [runs.owned(everyone) for runs in (*_dropped(states, small), *forgotten)]
    for owners, change in group.tiles:
        own = number_of[owners]
        state_words.append(change.put.owned(own))
        dropped_words.append(change.drop.owned(own))
    return PreparedWrites(
        kind=kind,
        keys=keys,
        states=states,
        at_us=group.at_us,
        due_us=group.due_us if whole else group.due_us[entities],
        values=tuple(group.shown),
        places=news.places,
        fresh=news.fresh,
        digests=news.digests,
        changes=group.changes,
        small=small,
        words=EntityWrites(
            keys=keys,
            revisions=np.array([state.revision for state in states], dtype=np.int64),
            lasting=np.array([state.is_lasting for state in states], dtype=np.bool_),
            memory_s=kind.memory_s,
            views=news.words,
            state=state_words,
            dropped=dropped_words,
        ),
    )


class _News(NamedTuple):
    """What is news of a kind's views: `PreparedWrites.places`, `fresh` and `digests`, and the words of each view."""

    places: IntArray
    fresh: BoolArray
    digests: IntArray
    words: list[Spans | None]


def _news(group: Group, states: Sequence[EntityState], number_of: IntArray) -> _News:
    count, size = len(group.shown), len(states)
    unknown = (0,) * count
    written = itertools.chain.from_iterable([state.written or unknown for state in states])
    known = np.fromiter(written, dtype=np.int64, count=size * count).reshape(size, count)
    places = np.full((count, size), -1, dtype=np.int64)
    fresh = np.zeros((count, size), dtype=np.bool_)
    digests = np.zeros((size, count), dtype=np.int64)
    words: list[Spans | None] = [None] * count
    for view, values in enumerate(group.shown):
        if values is not None:
            words[view] = own = values.words.owned(values.entities)
            find_news(
                values.entities, number_of, known, view, own.table, values.digests,
                len(word(timestamp_field(values.plan.view.stored_name))), places, fresh[view], digests,
            )  # fmt: skip
    return _News(places, fresh, digests, words)


def _small(kind: EntityKind, states: Sequence[EntityState]) -> list[dict[bytes, bytes]] | None:
    """The small fields of states; None where their kind has none."""
    if kind.segments_view is None and len(kind.windows) == len(kind.views):
        return None
    return [small_fields(state) for state in states]


def _changed(states: Sequence[EntityState], small: Sequence[dict[bytes, bytes]] | None) -> list[Runs]:
    """The small fields that are not in the store as they are; no runs where there are none."""
    if small is None:
        return []
    return _pairs(
        [
            {name: data for name, data in fields.items() if state.small.get(name) != data}
            for state, fields in zip(states, small, strict=True)
        ]
    )


def _dropped(states: Sequence[EntityState], small: Sequence[dict[bytes, bytes]] | None) -> list[Runs]:
    """Fields of views, and segments, that are no longer defined; no runs where there are none."""
    if not any(state.unwanted or state.small for state in states):
        return []
    return _names(
        [
            [*state.unwanted, *(name for name in state.small if small is None or name not in small[number])]
            for number, state in enumerate(states)
        ]
    )


def _recent(states: Sequence[EntityState]) -> tuple[list[Runs], list[Runs]]:
    """What event ids were noted and forgotten; they count as written from now on."""
    changes = [
        _NO_CHANGES if state.recent_ids is None else state.recent_ids.take_changes() for state in states
    ]
    return _pairs([put for put, _ in changes]), _names([drop for _, drop in changes])


def _pairs(fields: Sequence[Mapping[bytes, bytes]]) -> list[Runs]:
    """Names and data of each; no runs where there are none."""
    if not any(fields):
        return []
    rows = [
        [b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(data), data) for name, data in own.items()]
        for own in fields
    ]
    return [packed_runs([b"".join(row) for row in rows], [2 * len(row) for row in rows])]


def _names(rows: Sequence[Sequence[bytes]]) -> list[Runs]:
    """Names of each; no runs where there are none."""
    return [runs_of(rows)] if any(rows) else []


def send_writes(writer: EntityWriter, prepared: Sequence[PreparedWrites]) -> list[Written]:
    """Write."""
    return _written(prepared, writer.apply_many([part.words for part in prepared]))


def send_behind(
    line: EntityLine, announcement: Announcement, prepared: Sequence[PreparedWrites]
) -> Callable[[], tuple[bool, list[Written] | None]]:
    """Write in one piece with what must happen before, as `EntityLine.write` says it."""
    asked = line.write(announcement, [part.words for part in prepared])

    def take() -> tuple[bool, list[Written] | None]:
        is_announced, outcomes = asked()
        return is_announced, None if outcomes is None else _written(prepared, outcomes)

    return take


def _written(prepared: Sequence[PreparedWrites], outcomes: Sequence[Outcomes]) -> list[Written]:
    return [
        Written(outcome.accepted, part.fresh & outcome.written.T, outcome.state_bytes)
        for part, outcome in zip(prepared, outcomes, strict=True)
    ]


def note_written(prepared: Sequence[PreparedWrites]) -> None:
    """Note on states what the store holds once their writes are accepted; one that is refused must be read again."""
    for part in prepared:
        _note(part)


def _note(part: PreparedWrites) -> None:
    for number, (state, written) in enumerate(zip(part.states, part.digests.tolist(), strict=True)):
        state.revision += 1
        state.written = tuple(written)
        state.is_lasting = True
        if state.unwanted:
            state.unwanted = ()
        if part.small is not None:
            state.small = part.small[number]
        elif state.small:
            state.small = {}
