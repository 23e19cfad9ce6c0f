"""Distinct values numbered by first appearance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]

_CUT = "\0"
"""Where pandas takes texts to end when it tells them apart."""
MOST_BY_HAND = 512
"""Up to so many values a dictionary is done before pandas has found out what they are."""


def numbered(values: npt.NDArray[Any] | pd.api.extensions.ExtensionArray) -> tuple[IntArray, list[Any]]:
    """The number of each value, -1 for NULL, and the distinct values in the order of their numbers."""
    if not isinstance(values, np.ndarray):
        if pd.api.types.is_integer_dtype(values.dtype):
            return _factorized(values)  # made an array of numpy's, they would be floats where one is NULL
        values = np.asarray(values)
    kind, are_few = values.dtype.kind, len(values) <= MOST_BY_HAND
    if kind == "O":
        items = values.tolist()
        if all(isinstance(item, str) for item in items) and (are_few or _CUT in "".join(items)):
            return _by_hand(items)
    elif kind == "i" and are_few:
        return _by_hand(values.tolist())
    return _factorized(values)


def _factorized(values: Any) -> tuple[IntArray, list[Any]]:
    codes, distinct = pd.factorize(values)
    return codes.astype(np.int64, copy=False), distinct.tolist()


def repeated(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether a row before has the same values in all of the columns."""
    codes = pd.DataFrame({number: numbered(column)[0] for number, column in enumerate(columns)})
    return np.asarray(codes.duplicated(), dtype=np.bool_)


def numbered_texts(values: Sequence[str]) -> tuple[IntArray, list[str]]:
    """As `numbered`, of texts."""
    if len(values) <= MOST_BY_HAND:
        return _by_hand(values)
    return numbered(np.array(values, dtype=object))


def _by_hand(values: Sequence[Hashable]) -> tuple[IntArray, list[Any]]:
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return np.array(codes, dtype=np.int64), list(numbers)
