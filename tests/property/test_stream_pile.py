"""Rows that come a few at a time and are taken many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from decision.schema import ValueType
from streaming.packed import Field, Layout, tables
from streaming.pile import LARGE_BYTES, Pile

FEW = st.lists(st.integers(0, 9), max_size=3)
LAYOUT = Layout([Field("n", ValueType.INT64)])


def _packed(numbers: list[int]) -> list[bytes]:
    """A part for every two of them."""
    return [LAYOUT.pack(len(own), [own]) for own in (numbers[:2], numbers[2:])]


def _read(parts: list[bytes]) -> list[int]:
    return [n for table in tables(parts) for n in table["n"].to_pylist()]


@given(st.lists(st.one_of(FEW, st.sampled_from(["take", "give back"])), max_size=40))
def test_rows_are_taken_in_the_order_in_which_they_came(turns: list[list[int] | str]) -> None:
    """What is given back stands before what came since."""
    pile, taken = Pile(), list[bytes]()
    expected, gone = list[int](), list[int]()
    for turn in turns:
        if turn == "take":
            taken, gone, expected = pile.take(), expected, []
        elif turn == "give back":
            pile.give_back(taken)
            taken, gone, expected = [], [], [*gone, *expected]
        else:
            assert isinstance(turn, list)
            pile.add(_packed(turn))
            expected = [*expected, *turn]
        assert pile.row_count == len(expected)
    assert _read(pile.take()) == expected


def test_large_rows_weigh_as_several() -> None:
    """Memory is bounded by weight: of small rows it is their number, of large ones what they take."""
    pile = Pile()
    pile.add(_packed([1, 2, 3]))
    assert pile.weight == pile.row_count == 3
    layout = Layout([Field("text", ValueType.STRING)])
    large = layout.pack(1, [["x" * 10 * LARGE_BYTES]])
    pile.add([large])
    assert pile.row_count == 4
    assert 10 <= pile.weight <= 11
    taken = pile.take()
    assert pile.weight == 0
    pile.give_back(taken)
    assert 10 <= pile.weight <= 11
