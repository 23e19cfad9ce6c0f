"""Distinct values numbered by first appearance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]

MOST_BY_HAND = 512
"""Up to so many values a dictionary is done before pandas has found out what they are."""


def numbered(values: npt.NDArray[Any]) -> tuple[IntArray, list[Any]]:
    """The number of each value, -1 for NULL, and the distinct values in the order of their numbers."""
    if len(values) <= MOST_BY_HAND:
        items = values.tolist()
        if values.dtype.kind == "i" or (
            values.dtype.kind == "O" and all(type(item) is str for item in items)
        ):
            return _by_hand(items)
    codes, distinct = pd.factorize(values)
    return codes.astype(np.int64, copy=False), distinct.tolist()


def numbered_texts(values: Sequence[str]) -> tuple[IntArray, list[str]]:
    """As `numbered`, of texts."""
    if len(values) <= MOST_BY_HAND:
        return _by_hand(values)
    return numbered(np.array(values, dtype=object))


def _by_hand(values: Sequence[Hashable]) -> tuple[IntArray, list[Any]]:
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return np.array(codes, dtype=np.int64), list(numbers)
