"""Positions and other numbers of many records, compared with one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.positions import pack_columns, pack_position, unpack_position

NUMBERS = st.integers(0, 2**63 - 1)
IDS = st.tuples(st.integers(0, 2**43 - 1), st.integers(0, 2**20 - 1))


@given(st.lists(st.tuples(IDS, NUMBERS, NUMBERS), max_size=20))
def test_positions_and_numbers_are_those_of_one_by_one(rows: list[tuple[tuple[int, int], int, int]]) -> None:
    """Side by side, also where there are none."""
    ids = [b"%d-%d" % stream_id for stream_id, _, _ in rows]
    columns = [[number for _, number, _ in rows], [number for _, _, number in rows]]
    table = pack_columns(ids, *([b"%d" % number for number in column] for column in columns))
    assert table.tolist() == [[pack_position(name) for name in ids], *columns]
    assert [unpack_position(position).encode() for position in table[0].tolist()] == ids


@pytest.mark.parametrize("text", [b"", b"x", b"1.5", b"-1", b" 1", b"1\n2"])
def test_what_is_no_number_is_an_error(text: bytes) -> None:
    """And not a number that nobody wrote."""
    with pytest.raises(ValueError, match="no numbers"):
        pack_columns([b"1-0", b"2-0"], [b"1", text])
