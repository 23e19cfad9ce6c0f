"""A frame out of columns that lie together by type from the start.

A frame of pandas that is made column by column has each by itself: made slowly, and cut slowly by a transformation that
keeps some of its rows. Of few rows that is most of what a transformation takes. pandas makes a frame of finished blocks
by what it keeps for libraries that do (`pandas.core.internals.make_block`, as Arrow uses it; from pandas 3 on
`pandas.api.internals.create_dataframe_from_blocks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.core.internals import BlockManager, make_block

Column: TypeAlias = list[Any] | npt.NDArray[np.float64] | pd.api.extensions.ExtensionArray
"""One value a row: objects, numbers, or what pandas keeps by itself."""
_UTC = pd.DatetimeTZDtype("us", "UTC")


def frame_of(columns: Mapping[str, Column], count: int) -> pd.DataFrame:
    """A frame of columns by name, in their order, of so many rows numbered from 0.

    Args:
        columns: Lists become columns of objects. Arrays are taken as they are, without a copy where one is the only one
            of its type.
        count: Rows of each.
    """
    kinds = tuple([_kind(column) for column in columns.values()])
    places = _layout(kinds)
    held = list(columns.values())
    blocks = [make_block(_block([held[place] for place in own], count), own) for own in places]
    # Each has names of its own: pandas lets what is behind an index be changed in place.
    names = pd.Index(list(columns), dtype=object)
    manager = BlockManager(blocks, [names, pd.RangeIndex(count)], verify_integrity=False)
    return pd.DataFrame._from_mgr(manager, manager.axes)  # noqa: SLF001 - as Arrow does


def times(micros: npt.NDArray[np.int64]) -> pd.api.extensions.ExtensionArray:
    """Microseconds since the epoch as datetime64[us, UTC], a copy; the least number is NaT."""
    return pd.arrays.DatetimeArray._simple_new(micros.astype("datetime64[us]"), dtype=_UTC)  # noqa: SLF001 - `pd.array` takes 20 us


def _kind(column: Column) -> str:
    """What columns of one block have in common; of those that pandas keeps by themselves nothing."""
    if isinstance(column, list):
        return "object"
    return column.dtype.name if isinstance(column, np.ndarray) else ""


@lru_cache(256)
def _layout(kinds: tuple[str, ...]) -> list[list[int]]:
    """The numbers of the columns of each block."""
    blocks: dict[object, list[int]] = {}
    for place, kind in enumerate(kinds):
        blocks.setdefault(kind or place, []).append(place)
    return list(blocks.values())


def _block(columns: Sequence[Column], count: int) -> Any:
    """Values of one block, shape (columns, rows), or the one column that is a block by itself."""
    first = columns[0]
    if not isinstance(first, list | np.ndarray):
        return first
    dtype = first.dtype if isinstance(first, np.ndarray) else np.dtype(object)
    if isinstance(first, np.ndarray) and len(columns) == 1:
        return first.reshape(1, count)
    values = np.empty((len(columns), count), dtype=dtype)
    for row, column in enumerate(columns):
        values[row] = column
    return values
