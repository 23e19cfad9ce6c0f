"""Rows that come a few at a time and are taken many at once."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streaming.pile import MOST_SMALL, Pile

FEW = st.lists(st.integers(0, 9), max_size=3)


@given(st.lists(st.one_of(FEW, st.sampled_from(["take", "give back"])), max_size=4 * MOST_SMALL))
def test_rows_are_taken_in_the_order_in_which_they_came(turns: list[list[int] | str]) -> None:
    """What is given back stands before what came since, and few tables are had at once."""
    pile, taken = Pile(), list[pa.Table]()
    expected, gone = list[int](), list[int]()
    for turn in turns:
        if turn == "take":
            taken, gone, expected = pile.take(), expected, []
            assert len(taken) < len(turns) // MOST_SMALL + MOST_SMALL + 1
        elif turn == "give back":
            pile.give_back(taken)
            taken, gone, expected = [], [], [*gone, *expected]
        else:
            pile.add(pa.table({"n": pa.array(turn, pa.int64())}))
            expected = [*expected, *turn]
        assert pile.row_count == len(expected)
    assert [n for table in pile.take() for n in table["n"].to_pylist()] == expected
