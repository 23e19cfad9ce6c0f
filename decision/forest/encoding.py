"""Feature values in Python to the float32 matrix a forest reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.forest.errors import ForestInputError
from decision.schema import Value

_NUMERIC: Final = frozenset({bool, int, float, type(None)})


class Encoded(NamedTuple):
    """A matrix and what could not be put into it.

    Attributes:
        rows: float32[n, f], NaN where a value is missing or unseen.
        unseen: (feature, value) of every category the model does not know, in order of first occurrence.
    """

    rows: NDArray[np.float32]
    unseen: tuple[tuple[str, Value], ...]


def encode_columns(
    names: Sequence[str], codes: Mapping[str, Mapping[str | int, int]], columns: Sequence[Sequence[Value]]
) -> Encoded:
    """Encode one column per feature; see `Forest.encode`."""
    if len(columns) != len(names):
        raise ForestInputError(f"{len(columns)} columns for {len(names)} features")
    counts = {len(column) for column in columns}
    if len(counts) > 1:
        raise ForestInputError(f"columns of different lengths: {sorted(counts)[:9]}")
    rows = np.empty((counts.pop() if counts else 0, len(names)), np.float32)
    unseen: dict[tuple[str, Value], None] = {}
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        if name in codes:
            rows[:, index] = _codes(name, codes[name], column, unseen)
        else:
            rows[:, index] = _numbers(name, column)
    return Encoded(rows, tuple(unseen))


def _codes(
    name: str,
    codes: Mapping[str | int, int],
    column: Sequence[Value],
    unseen: dict[tuple[str, Value], None],
) -> list[float]:
    """Category codes, NaN for None and for what the model never saw."""
    encoded = []
    for value in column:
        if value is not None and not isinstance(value, str | int | float):
            raise ForestInputError(f"{name}: a category cannot be {value!r}")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            encoded.append(math.nan)
            continue
        code = codes.get(value)  # type: ignore[arg-type]
        if code is None:
            unseen[name, value] = None
        encoded.append(math.nan if code is None else float(code))
    return encoded


def _numbers(name: str, column: Sequence[Value]) -> NDArray[np.float32]:
    """Numbers rounded once to float32, as XGBoost does with an int64 or float64 column."""
    kinds = set(map(type, column))
    if not kinds <= _NUMERIC:
        raise ForestInputError(
            f"{name}: a number expected, not {sorted(kind.__name__ for kind in kinds - _NUMERIC)}"
        )
    with np.errstate(over="ignore"):
        if int in kinds:
            return np.array([_number(name, value) for value in column], np.float32)
        return np.array(column, np.float64).astype(np.float32)


def _number(name: str, value: Value) -> np.float32:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ForestInputError(f"{name}: {value} is not an int64")
        return np.int64(value).astype(np.float32)
    return np.float32(np.nan if value is None else value)  # type: ignore[arg-type]
