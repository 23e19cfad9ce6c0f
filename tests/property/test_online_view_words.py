"""Columns of values become the same bytes as values one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decision.schema import Feature, JoinKey, Value, ValueType, View
from online.errors import ValueEncodeError
from online.keys import feature_field, timestamp_field
from online.values import encode_timestamp, encode_value
from online.view_words import ViewWords, digests, is_number
from online.words import packed_runs

V = ValueType
VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    V.INT64: st.integers(-(2**63), 2**63 - 1),
    V.INT32: st.integers(-(2**31), 2**31 - 1),
    V.DOUBLE: st.floats(allow_nan=False),
    V.FLOAT: st.floats(allow_nan=False),
    V.BOOL: st.booleans(),
    V.UNIX_TIMESTAMP: st.integers(-(2**62), 2**62),
    V.STRING: st.text(max_size=300),
    V.BYTES: st.binary(max_size=200),
    V.INT64_LIST: st.lists(st.integers(-5, 2**40), max_size=4).map(tuple),
    V.STRING_LIST: st.lists(st.text(max_size=9), max_size=4).map(tuple),
}
_DTYPES: dict[ValueType, Any] = {V.DOUBLE: np.float64, V.FLOAT: np.float64, V.BOOL: np.bool_}


def words(data: bytes) -> list[bytes]:
    """The words of a protocol text."""
    found = []
    while data:
        size, _, data = data.removeprefix(b"$").partition(b"\r\n")
        found.append(data[: int(size)])
        assert data[int(size) : int(size) + 2] == b"\r\n"
        data = data[int(size) + 2 :]
    return found


def column(kind: ValueType, values: list[Value], as_list: bool) -> Any:
    if as_list or not is_number(kind):
        return values
    filled = [0 if value is None else value for value in values]
    null = np.array([value is None for value in values], dtype=np.bool_)
    return np.array(filled, dtype=_DTYPES.get(kind, np.int64)), null


def view_of(kinds: list[ValueType]) -> View:
    features = tuple(Feature(name=f"f{n}", value_type=kind) for n, kind in enumerate(kinds))
    return View(name="v", join_keys=(JoinKey(name="k", value_type=V.STRING),), features=features)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(list(VALUES)), max_size=6), st.integers(0, 4), st.data())
def test_columns_equal_values_one_by_one(kinds: list[ValueType], count: int, data: st.DataObject) -> None:
    """Every type, NULLs included, and timestamps before and after the epoch."""
    rows = [[data.draw(st.none() | VALUES[kind]) for kind in kinds] for _ in range(count)]
    moments = [data.draw(st.integers(-(2**60), 2**60) | st.just(0)) for _ in range(count)]
    view = view_of(kinds)
    columns = {
        f"f{n}": column(kind, [row[n] for row in rows], data.draw(st.booleans()))
        for n, kind in enumerate(kinds)
    }
    made = ViewWords(view).rows(columns, np.array(moments, dtype=np.int64))
    assert len(made.first) == count
    for number, (row, at_us) in enumerate(zip(rows, moments, strict=True)):
        text = made.row(number)
        expected = [timestamp_field("v"), encode_timestamp(at_us)]
        for n, (kind, value) in enumerate(zip(kinds, row, strict=True)):
            expected += [feature_field("v", f"f{n}"), encode_value(kind, value)]
        assert words(text) == expected
        assert len(words(text)) == ViewWords(view).count == made.sizes[number]


@given(st.lists(st.binary(max_size=40), max_size=6))
@example([b"", b"\x01"])
def test_digests_tell_rows_apart(rows: list[bytes]) -> None:
    """Rows have the same digest where they are the same, wherever they lie; none is 0."""
    made = digests(packed_runs(rows, [1] * len(rows))).tolist()
    assert all(digest > 0 for digest in made)
    for row, digest in zip(rows, made, strict=True):
        for other, also in zip(rows, made, strict=True):
            assert (row == other) == (digest == also)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_columns_refuse_what_does_not_fit(number: int) -> None:
    """A count beyond 32 bits is an error, as it is by itself, but not where it is NULL."""
    view = view_of([V.INT32])
    numbers, nobody = np.array([1, number]), np.zeros(2, dtype=np.bool_)
    with pytest.raises(ValueEncodeError, match="does not fit int32"):
        ViewWords(view).rows({"f0": (numbers, nobody)}, np.zeros(2, dtype=np.int64))
    ViewWords(view).rows({"f0": (numbers, np.array([False, True]))}, np.zeros(2, dtype=np.int64))
