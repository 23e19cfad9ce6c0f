"""How far entities are applied, as words: of many at once and of each alone."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from online.words import word
from streaming.entity import POSITIONS, EntityState, decode_mark, positions_field, positions_runs

NUMBERS = st.integers(0, 2**63 - 1)
OTHERS = st.lists(st.builds(struct.Struct("<Iqq").pack, st.integers(5, 9), NUMBERS, NUMBERS), max_size=2)


@st.composite
def states(draw: st.DrawFn) -> EntityState:
    """A state that was applied somewhere."""
    state = EntityState(draw(NUMBERS))
    state.position, state.mark, state.others = draw(NUMBERS), draw(NUMBERS), b"".join(draw(OTHERS))
    return state


@given(st.lists(states(), max_size=5), st.none() | st.integers(0, 4))
def test_positions_of_many_are_those_of_each(written: list[EntityState], partition: int | None) -> None:
    """A name and what stands under it, with the sources of other partitions or without any."""
    runs = positions_runs(written, partition)
    for number, state in enumerate(written):
        field = positions_field(state, partition)
        assert runs.row(number) == word(POSITIONS) + word(field)
        if partition is not None:
            assert decode_mark(field, partition) == state.mark
    assert runs.sizes.tolist() == [2] * len(written)
