"""Many entities' writes laid out as calls of the script that applies them, all in one go.

A call is the keys of its entities, what is the same for all of them, and of each a head and its words. The head says
how long the state lives, and how many words are of the state, to be dropped, and of each view.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from online.errors import WriteTooLargeError
from online.keys import STATE_MARK
from online.pipes import Packed
from online.route import Command
from online.slots import TAG_BYTES, slot_tags
from online.words import ByteArray, IntArray, Spans, side_by_side
from online.write_kernels import fill_crc, lay_out, tally

MAX_FIELDS = 3_500
"""Most fields of each view, and of the state, in one write: Lua unpacks at most some 8,000 arguments."""

_STATE, _DROPPED, VIEWS = 0, 1, 2
"""Sections of an entity's words, and the first of those of its views."""
NUMBER_ROOM = 32
KEY_ROOM = 2 * NUMBER_ROOM + 1 + TAG_BYTES + len(STATE_MARK)
_HEAD_ROOM = 4 * NUMBER_ROOM
_NO_SPANS = Spans(np.empty(0, dtype=np.uint8), np.empty((4, 0), dtype=np.int64))
_MARK = np.frombuffer(STATE_MARK, dtype=np.uint8)


class EntityWrites(NamedTuple):
    """The changes of many entities with the same views, as `EntityWrite`, of words that are packed already.

    The rows of spans are numbers of entities.

    Attributes:
        keys: Entity keys, each once.
        revisions: As there, shape (entities,).
        lasting: Whether the time to live of the state is right already where `memory_s` gives it none.
        memory_s: As there.
        views: Words of each view: those of `online.view_words` where it is written, the field of its timestamp where it
            is kept; None where no entity has any.
        state: Words of the state: names and chunks in turn.
        dropped: Names of the state's fields that are dropped.
    """

    keys: Sequence[bytes]
    revisions: IntArray
    lasting: npt.NDArray[np.bool_]
    memory_s: int | None
    views: Sequence[Spans | None]
    state: Sequence[Spans]
    dropped: Sequence[Spans]


def warm() -> None:
    """Make what is made once, a tenth of a second's work, before the first write waits for it."""
    slot_tables()


class EntityCalls(NamedTuple):
    """Calls that apply writes.

    Attributes:
        calls: In the order of the entities.
        state_bytes: How much of each entity's state they write.
    """

    calls: list[Command]
    state_bytes: IntArray


def entity_calls(
    parts: Sequence[EntityWrites], ttls_s: Sequence[int], between: bytes, sign_count: int, each: int
) -> EntityCalls:
    """Lay writes out, those of all parts one after another.

    Args:
        parts: What to write.
        ttls_s: How long the states of each part live; 0 is for ever.
        between: The words between keys and heads: keys that signs lie under, the time to live, and the signs.
        sign_count: How many signs there are.
        each: Most entities of a call.

    Raises:
        WriteTooLargeError: A write has more than `MAX_FIELDS` fields of a view, chunks or dropped fields.
    """
    if not any(part.keys for part in parts):
        return EntityCalls([], np.zeros(0, dtype=np.int64))
    words = gathered(parts, ttls_s)
    keys = words.keys
    places = np.empty((-(-len(keys) // each), 3), dtype=np.int64)
    head_room = _HEAD_ROOM + 2 * max([len(part.views) for part in parts])
    room = words.byte_count + 2 * words.key_bytes + len(keys) * (KEY_ROOM + head_room)
    out = np.empty(room + len(places) * len(between), dtype=np.uint8)
    lay_out(*words.arguments, np.frombuffer(between, dtype=np.uint8), each, out, places)
    data = out.data
    calls: list[Command] = []
    for number, (first, stop, size) in enumerate(places.tolist()):
        start = number * each
        key_count = 2 * (min(start + each, len(keys)) - start) + sign_count
        # All keys but the first, the time to live, the signs, and the entities' words.
        calls.append((key_count, keys[start], Packed(key_count + sign_count + size, data[first:stop])))
    return EntityCalls(calls, words.state_bytes)


class Gathered(NamedTuple):
    """Words of all parts, for the kernels that lay them out.

    Attributes:
        arguments: The first of `lay_out`, up to those that say how state keys are made.
        keys: Entity keys.
        key_bytes: Theirs.
        byte_count: Bytes of all words.
        sizes: Words by section, shape (entities, sections).
        state_bytes: How much of each entity's state is among them.
    """

    arguments: tuple[Any, ...]
    keys: list[bytes]
    key_bytes: int
    byte_count: int
    sizes: IntArray
    state_bytes: IntArray


def gathered(parts: Sequence[EntityWrites], ttls_s: Sequence[int]) -> Gathered:
    """Put the words of all parts side by side; there is one entity at least.

    Args:
        parts: What to write.
        ttls_s: As `entity_calls` takes them.

    Raises:
        WriteTooLargeError: As there.
    """
    found = [(_NO_SPANS, _STATE, 0)]
    keys: list[bytes] = []
    for part in parts:
        first = len(keys)
        found += [(own, VIEWS + view, first) for view, own in enumerate(part.views) if own is not None]
        found += [(own, _STATE, first) for own in part.state]
        found += [(own, _DROPPED, first) for own in part.dropped]
        keys += part.keys
    starts = itertools.accumulate([len(own.data) for own, _, _ in found], initial=0)
    pieces = [
        (own.table.shape[1], section, entity, start)
        for (own, section, entity), start in zip(found, starts, strict=False)
    ]
    spans = np.concatenate([own.table for own, _, _ in found], axis=1)
    most = _most_words(VIEWS + max([len(part.views) for part in parts]))
    sizes = np.zeros((len(keys), len(most)), dtype=np.int64)
    span_at = np.zeros(len(keys) + 1, dtype=np.int64)
    state_bytes = np.zeros(len(keys), dtype=np.int64)
    byte_count, large = tally(np.array(pieces), spans, most, sizes, span_at, state_bytes)
    if large >= 0:
        row, section = divmod(large, len(most))
        check_size(keys[row], _field_count(int(sizes[row, section]), section))
    data = np.concatenate([own.data for own, _, _ in found])
    kinds = [(len(part.keys), len(part.views), ttl_s) for part, ttl_s in zip(parts, ttls_s, strict=True)]
    blob, key_at = side_by_side(keys)
    arguments = (
        data, spans, span_at, sizes, np.array(kinds),
        np.concatenate([part.revisions for part in parts]), np.concatenate([part.lasting for part in parts]),
        blob, key_at, *slot_tables(),
    )  # fmt: skip
    return Gathered(arguments, keys, len(blob), byte_count, sizes, state_bytes)


def check_size(key: bytes, count: int) -> None:
    """See that a write has at most so many fields of one kind.

    Raises:
        WriteTooLargeError: It has more.
    """
    if count > MAX_FIELDS:
        raise WriteTooLargeError(
            f"a write of {key!r} has {count} fields; at most {MAX_FIELDS} fit one script call"
        )


def _field_count(words: int, section: int) -> int:
    if section == _DROPPED:
        return words
    return words // 2 if section == _STATE else words // 2 - 1


@cache
def _most_words(sections: int) -> IntArray:
    most = [2 * MAX_FIELDS, MAX_FIELDS, *[2 + 2 * MAX_FIELDS] * (sections - VIEWS)]
    return np.array(most, dtype=np.int64)


@cache
def slot_tables() -> tuple[ByteArray, ByteArray, IntArray]:
    """What kernels make keys of states with."""
    crcs = np.empty(256, dtype=np.int64)
    fill_crc(crcs)
    return np.frombuffer(b"".join(slot_tags()), dtype=np.uint8).reshape(-1, TAG_BYTES), _MARK, crcs
