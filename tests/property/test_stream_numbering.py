"""Numbers of distinct values: the same ways for few values and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from streaming.numbering import MOST_BY_HAND, numbered, numbered_texts, repeated

TEXT = st.text(max_size=3) | st.text("\0ab", max_size=3)
TEXTS = st.lists(TEXT)
MIXED = st.lists(st.one_of(TEXT, st.none(), st.just(float("nan")), st.integers(0, 3)))
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1))
COLUMN = st.one_of(TEXTS, MIXED, NUMBERS)


def _one_by_one(items: list[Any]) -> tuple[list[int], list[Any]]:
    codes, distinct = [], []
    for item in items:
        if pd.isna(item):
            codes.append(-1)
            continue
        if item not in distinct:
            distinct.append(item)
        codes.append(distinct.index(item))
    return codes, distinct


def _objects(items: list[Any]) -> np.ndarray[Any, Any]:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values


def _column(items: list[Any]) -> np.ndarray[Any, Any]:
    if items and all(isinstance(item, int) for item in items):
        return np.array(items, dtype=np.int64)
    return _objects(items)


@given(COLUMN, st.sampled_from([1, MOST_BY_HAND + 1]))
def test_values_are_numbered_as_they_first_appear(items: list[Any], times: int) -> None:
    """NULL is -1; whether there are few or many."""
    values = items * times
    codes, distinct = numbered(_column(values))
    assert codes.dtype == np.int64
    expected, known = _one_by_one(items)
    assert (codes.tolist(), distinct) == (expected * times, known)


@given(st.lists(TEXT), st.sampled_from([1, MOST_BY_HAND + 1]))
def test_texts_are_numbered_as_they_first_appear(items: list[str], times: int) -> None:
    """As any values."""
    codes, distinct = numbered_texts(items * times)
    expected, known = _one_by_one(items)
    assert (codes.tolist(), distinct) == (expected * times, known)


@given(st.lists(st.tuples(TEXT, TEXT)), st.sampled_from([1, MOST_BY_HAND + 1]))
def test_rows_are_repeated_where_all_their_values_are(rows: list[tuple[str, str]], times: int) -> None:
    """Whether there are few or many."""
    many = rows * times
    found = repeated(*(_objects([row[place] for row in many]) for place in (0, 1)))
    assert found.tolist() == [row in rows[:number] or number >= len(rows) for number, row in enumerate(many)]
