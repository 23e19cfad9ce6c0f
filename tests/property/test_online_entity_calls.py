"""Writes of many entities laid out as calls, compared with what Python makes of each entity alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from online.entity_calls import EntityWrites, entity_calls
from online.keys import state_key
from online.pipes import pack
from online.words import Spans, runs_of, word

KEYS = st.binary(max_size=40) | st.lists(st.sampled_from([b"{", b"}", b"a", b"bc"]), max_size=9).map(b"".join)
ROWS = st.lists(st.binary(max_size=12), max_size=4)
AS_IT_IS = 2**32 - 1


class Entity(NamedTuple):
    """What is written of one entity: the words of views, of pieces of state, and of pieces of what is dropped."""

    key: bytes
    revision: int
    lasting: bool
    views: list[list[bytes]]
    state: list[list[bytes]]
    dropped: list[list[bytes]]


class Kind(NamedTuple):
    """Entities of the same views and pieces; `orders` has the entities in the order of each piece."""

    entities: list[Entity]
    ttl_s: int
    views: int
    state: int
    dropped: int
    orders: list[list[int]]


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    """Entities of one kind."""
    views, state, dropped = draw(st.integers(0, 3)), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    sections = [st.lists(ROWS, min_size=count, max_size=count) for count in (views, state, dropped)]
    entity = st.builds(Entity, KEYS, st.integers(0, 2**62), st.booleans(), *sections)
    entities = draw(st.lists(entity, max_size=6))
    orders = [draw(st.permutations(range(len(entities)))) for _ in range(views + state + dropped)]
    return Kind(entities, draw(st.sampled_from([0, 9, 10**9])), views, state, dropped, orders)


def as_writes(kind: Kind) -> EntityWrites:
    """What the writer takes; entities stand in any order in a piece, or not at all, and other rows with them."""

    def spans(piece: int, rows: list[list[bytes]]) -> Spans:
        owners = [number for number in kind.orders[piece] if rows[number]]
        runs = runs_of([[b"left out"], *(rows[number] for number in owners)])
        return runs.owned(np.array([-1, *owners], dtype=np.int64))

    entities = kind.entities
    pieces = [
        spans(piece, [[*entity.views, *entity.state, *entity.dropped][piece] for entity in entities])
        for piece in range(kind.views + kind.state + kind.dropped)
    ]
    return EntityWrites(
        keys=[entity.key for entity in entities],
        revisions=np.array([entity.revision for entity in entities], dtype=np.int64),
        lasting=np.array([entity.lasting for entity in entities], dtype=np.bool_),
        memory_s=None,
        views=[piece if any(piece.table[0] >= 0) else None for piece in pieces[: kind.views]],
        state=pieces[kind.views : kind.views + kind.state],
        dropped=pieces[kind.views + kind.state :],
    )


def flat(pieces: Iterable[list[bytes]]) -> list[bytes]:
    """Words of pieces, one after another."""
    return list(chain.from_iterable(pieces))


def words_of(entity: Entity, ttl_s: int) -> list[bytes]:
    """Head, revisions and words of one entity."""
    views, state, dropped = flat(entity.views), flat(entity.state), flat(entity.dropped)
    memory = ttl_s or (AS_IT_IS if entity.lasting else 0)
    head = struct.pack("<IHH", memory, len(state), len(dropped))
    head += b"".join(struct.pack("<H", len(view)) for view in entity.views)
    revisions = b"%d" % entity.revision, b"%d" % (entity.revision + 1)
    return [head, *revisions, *views, *state, *dropped]


@settings(max_examples=300, deadline=None)
@given(st.lists(kinds(), max_size=3), st.integers(1, 5), st.booleans())
def test_calls_are_the_words_of_their_entities(parts: list[Kind], each: int, is_signed: bool) -> None:
    """Keys with those of their states, whatever braces they hold; what stands between; heads, revisions and words."""
    before, behind = ([b"sign key"], [b"sign"]) if is_signed else ([], [])
    between = [*before, b"60", *behind]
    everyone = [(entity, kind.ttl_s) for kind in parts for entity in kind.entities]
    laid = entity_calls(
        [as_writes(kind) for kind in parts],
        [kind.ttl_s for kind in parts],
        b"".join(map(word, between)),
        len(behind),
        each,
    )
    expected = []
    for start in range(0, len(everyone), each):
        some = everyone[start : start + each]
        keys = [key for entity, _ in some for key in (entity.key, state_key(entity.key))]
        words = [part for entity, ttl_s in some for part in words_of(entity, ttl_s)]
        expected.append((len(keys) + len(before), *keys, *between, *words))
    assert [pack(call) for call in laid.calls] == [pack(call) for call in expected]
    assert [call[1] for call in laid.calls] == [call[1] for call in expected]
    sizes = [sum(len(word(part)) for part in flat(entity.state)) for entity, _ in everyone]
    assert laid.state_bytes.tolist() == sizes
