"""The values that a decision is made on: one block for the customer, one for the candidates.

A block is columnar: 64 bits, a status and, by view, an event time for every cell. Only PRESENT and STALE cells carry a
value, and a NaN is NULL. What is missing stays missing: nothing here invents a default.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from decision.errors import FrameError
from decision.schema import Catalog, DType, FeatureRef, Scalar, Status, Value

Object = str | bytes | tuple[Scalar, ...]
"""What does not fit into 64 bits: a text, bytes or a list."""

_PRESENT, _STALE, _NULL = int(Status.PRESENT), int(Status.STALE), int(Status.NULL)
_FLOAT: Final = struct.Struct("<d")
_WORD: Final = struct.Struct("<q")


@dataclass(frozen=True, eq=False)
class Layout:
    """The columns of a block, worked out once for all blocks of one plan.

    Attributes:
        names: The columns as `view.feature`, all different.
        dtypes: Type of each column; None for bytes and lists of bytes, which neither rules nor models read.
        views: The views of the columns, each once.
        view_of: int64[columns], index into `views`.

    Raises:
        FrameError: If a name occurs twice.
    """

    names: tuple[str, ...]
    dtypes: tuple[DType | None, ...]
    views: tuple[str, ...]
    view_of: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise FrameError("names of columns must be unique in a block")

    @classmethod
    def of(cls, columns: Iterable[tuple[str, DType | None]]) -> Layout:
        """A layout of columns given as (canonical name, type)."""
        known = tuple(columns)
        views = {view: place for place, view in enumerate(dict.fromkeys(view_of(name) for name, _ in known))}
        return cls(
            names=tuple(name for name, _ in known),
            dtypes=tuple(dtype for _, dtype in known),
            views=tuple(views),
            view_of=np.array([views[view_of(name)] for name, _ in known], np.int64),
        )

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Place of each column by name."""
        return {name: place for place, name in enumerate(self.names)}


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Features over rows, column-major.

    Attributes:
        layout: The columns.
        rows: Names of the rows, all different: the offers of the candidates' block; the customer's block has one row,
            of any name.
        words: int64[columns, rows], C-contiguous. An int64 and a timestamp (µs) as they are, a float64 by its bits, a
            bool as 0 or 1, anything else as an index into `objects`; 0 where the cell carries no value.
        statuses: uint8[columns, rows], the numbers of `Status`.
        event_us: int64[views, rows], event time of the view's last write in microseconds since the epoch, 0 where
            unknown or nothing is stored.
        objects: Texts, bytes and lists, not necessarily different.

    Raises:
        FrameError: If the shapes disagree or a row's name occurs twice.
    """

    layout: Layout
    rows: tuple[str, ...]
    words: NDArray[np.int64]
    statuses: NDArray[np.uint8]
    event_us: NDArray[np.int64]
    objects: tuple[Object, ...] = ()

    def __post_init__(self) -> None:
        columns, views, rows = len(self.layout.names), len(self.layout.views), len(self.rows)
        shapes = (self.words.shape, self.statuses.shape, self.event_us.shape)
        if shapes != ((columns, rows), (columns, rows), (views, rows)):
            raise FrameError(
                f"a block of {columns} columns of {views} views and {rows} rows has other shapes: {shapes}"
            )
        if len(set(self.rows)) != rows:
            raise FrameError("names of rows must be unique in a block")

    @classmethod
    def of(
        cls,
        layout: Layout,
        rows: Sequence[str],
        values: Sequence[Sequence[Value]],
        statuses: Sequence[Sequence[int]],
        event_us: Sequence[Sequence[int]],
    ) -> Block:
        """A block out of Python values, all given as `[column][row]`.

        Args:
            layout: The columns.
            rows: Names of the rows.
            values: Counts only where the status is PRESENT or STALE; None is NULL there.
            statuses: A cell without a value that is said to carry one becomes NULL.
            event_us: The columns of one view agree; the newest counts where they do not.

        Raises:
            FrameError: If the shapes disagree, a name occurs twice, or a value is not of its column's type.
        """
        shape = (len(layout.names), len(rows))
        for part in (values, statuses, event_us):
            _check_shape(part, shape)
        writer = _Writer()
        words = np.zeros(shape, np.int64)
        codes = np.zeros(shape, np.uint8)
        for place, (name, dtype) in enumerate(zip(layout.names, layout.dtypes, strict=True)):
            codes[place] = carried = _statuses(values[place], statuses[place])
            words[place] = writer.column(name, dtype, values[place], carried)
        times = np.zeros((len(layout.views), len(rows)), np.int64)
        np.maximum.at(times, layout.view_of, np.array(event_us, np.int64).reshape(shape))
        return cls(layout, tuple(rows), words, codes, times, tuple(writer.objects))

    @classmethod
    def of_row(cls, layout: Layout, values: Mapping[str, Value]) -> Block:
        """A block of one row of present values by column name; None and what is not given are NULL.

        Raises:
            FrameError: If a value is not of its column's type.
        """
        writer = _Writer()
        words, statuses = [], []
        for name, dtype in zip(layout.names, layout.dtypes, strict=True):
            value = values.get(name)
            words.append(0 if value is None else writer.column(name, dtype, (value,), (_PRESENT,))[0])
            statuses.append(_NULL if value is None else _PRESENT)
        return cls(
            layout,
            ("",),
            np.array(words, np.int64).reshape(-1, 1),
            np.array(statuses, np.uint8).reshape(-1, 1),
            np.zeros((len(layout.views), 1), np.int64),
            tuple(writer.objects),
        )

    @classmethod
    def empty(cls, rows: Sequence[str]) -> Block:
        """A block without columns, as where nothing needs to be read."""
        return cls.of(Layout.of(()), rows, (), (), ())

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.words.nbytes + self.statuses.nbytes + self.event_us.nbytes

    @property
    def carries(self) -> NDArray[np.bool_]:
        """bool[columns, rows]: whether the cell carries a value."""
        carried: NDArray[np.bool_] = (self.statuses == _PRESENT) | (self.statuses == _STALE)
        return carried

    def values(self) -> Iterator[list[Value]]:
        """The values of each column; None where a cell carries none."""
        carried = self.carries.tolist()
        for dtype, words, present in zip(self.layout.dtypes, self.words.tolist(), carried, strict=True):
            read = self._reader(dtype)
            yield [read(word) if carries else None for word, carries in zip(words, present, strict=True)]

    def value(self, name: str, row: int) -> Value:
        """The value that rules and models see: NULL unless the cell is there and carries one, and NULL for NaN."""
        place = self.layout.place.get(name)
        if place is None or self.statuses[place, row] not in (_PRESENT, _STALE):
            return None
        return clean(self._reader(self.layout.dtypes[place])(int(self.words[place, row])))

    def clean_rows(self) -> dict[str, dict[str, Value]]:
        """Values by row and column name, NULL where a cell carries no value and for NaN."""
        rows: dict[str, dict[str, Value]] = {row: {} for row in self.rows}
        targets = tuple(rows.values())
        for name, values in zip(self.layout.names, self.values(), strict=True):
            for target, value in zip(targets, values, strict=True):
                target[name] = clean(value)
        return rows

    def read(self, dtype: DType | None, words: Iterable[int]) -> list[Value]:
        """The values that words of a column of that type stand for."""
        return list(map(self._reader(dtype), words))

    def _reader(self, dtype: DType | None) -> Callable[[int], Value]:
        match dtype:
            case DType.BOOL:
                return bool
            case DType.FLOAT64:
                return float_of
            case DType.INT64 | DType.TIMESTAMP:
                return int
            case _:
                return self.objects.__getitem__


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What was fetched for one decision.

    Attributes:
        customer: Exactly one row.
        candidates: One row per offer; offers without a row and columns that were left out read as NULL.

    Raises:
        FrameError: If the customer's block has not one row.
    """

    customer: Block
    candidates: Block

    def __post_init__(self) -> None:
        if len(self.customer.rows) != 1:
            raise FrameError(f"the customer's block must have one row, not {len(self.customer.rows)}")

    def customer_row(self) -> Mapping[str, Value]:
        """The customer's values by column name."""
        return self.customer.clean_rows()[self.customer.rows[0]]


def layout_of(catalog: Catalog, refs: Iterable[FeatureRef]) -> Layout:
    """The layout of features of a catalog; KeyError where one is unknown."""
    return Layout.of((str(ref), catalog.feature(ref).dtype) for ref in refs)


def clean(value: Value) -> Value:
    """The value that rules and models see: a NaN is NULL."""
    return None if isinstance(value, float) and math.isnan(value) else value


def view_of(name: str) -> str:
    """The view of a canonical `view.feature`."""
    return name.partition(".")[0]


def word_of(value: float) -> int:
    """The bits of a float64 as an int64."""
    return cast("int", _WORD.unpack(_FLOAT.pack(value))[0])


def float_of(word: int) -> float:
    """The float64 whose bits an int64 holds."""
    return cast("float", _FLOAT.unpack(_WORD.pack(word))[0])


def _statuses(values: Sequence[Value], statuses: Sequence[int]) -> list[int]:
    null = int(Status.NULL)
    return [
        null if value is None and status in (_PRESENT, _STALE) else int(status)
        for value, status in zip(values, statuses, strict=True)
    ]


def _check_shape(part: Sequence[Sequence[object]], shape: tuple[int, int]) -> None:
    columns, rows = shape
    if len(part) != columns or any(len(column) != rows for column in part):
        raise FrameError(f"a block of {columns} columns and {rows} rows has another shape")


class _Writer:
    """Turns values into words, each text stored once.

    Lists are not compared: 0.0 equals -0.0, and a record holds what was read.
    """

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self._texts: dict[str, int] = {}

    def column(
        self, name: str, dtype: DType | None, values: Sequence[Value], statuses: Sequence[int]
    ) -> list[int]:
        write = self._write(dtype)
        try:
            words = [
                write(value) if status in (_PRESENT, _STALE) else 0
                for value, status in zip(values, statuses, strict=True)
            ]
        except (TypeError, struct.error) as error:
            raise FrameError(f"a value of {name} is no {dtype}: {error}") from error
        if any(not -(1 << 63) <= word < 1 << 63 for word in words):
            raise FrameError(f"a value of {name} is beyond 64 bits")
        return words

    def _write(self, dtype: DType | None) -> Callable[[Value], int]:
        match dtype:
            case DType.BOOL | DType.INT64 | DType.TIMESTAMP:
                return cast("Callable[[Value], int]", operator.index)
            case DType.FLOAT64:
                return cast("Callable[[Value], int]", word_of)
            case DType.STRING:
                return self._text
            case _:
                return self._object

    def _text(self, value: Value) -> int:
        if not isinstance(value, str):
            raise TypeError(f"{value!r}")
        place = self._texts.setdefault(value, len(self.objects))
        if place == len(self.objects):
            self.objects.append(value)
        return place

    def _object(self, value: Value) -> int:
        if not isinstance(value, bytes | tuple):
            raise TypeError(f"{value!r}")
        self.objects.append(value)
        return len(self.objects) - 1
