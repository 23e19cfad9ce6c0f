"""Numbers of distinct values: the same ways for few values and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.numbering import MOST_BY_HAND, numbered, numbered_texts

TEXTS = st.lists(st.text(max_size=3))
MIXED = st.lists(st.one_of(st.text(max_size=2), st.none(), st.just(float("nan")), st.integers(0, 3)))
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1))


def _as_pandas(values: np.ndarray[Any, Any]) -> tuple[list[int], list[Any]]:
    codes, distinct = pd.factorize(values)
    return codes.tolist(), distinct.tolist()


def _objects(items: list[Any]) -> np.ndarray[Any, Any]:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values


@given(st.one_of(TEXTS, MIXED).map(_objects) | NUMBERS.map(lambda items: np.array(items, dtype=np.int64)))
def test_few_values_are_numbered_as_pandas_numbers_them(values: np.ndarray[Any, Any]) -> None:
    """By first appearance, NULL is -1; whether done by hand or not."""
    codes, distinct = numbered(values)
    assert codes.dtype == np.int64
    assert (codes.tolist(), distinct) == _as_pandas(values)


@pytest.mark.parametrize("count", [0, 1, MOST_BY_HAND, MOST_BY_HAND + 1])
def test_texts_are_numbered_alike_however_many(count: int) -> None:
    """Few by hand, many by pandas."""
    texts = [f"c{number % 7}" for number in range(count)]
    codes, distinct = numbered_texts(texts)
    assert (codes.tolist(), distinct) == _as_pandas(_objects(texts))
