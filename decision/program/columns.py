"""Rows and columns of values into a program's registers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from decision.errors import FrameError
from decision.frame import Block
from decision.frame import Layout as BlockLayout
from decision.lang.types import ELEMENTS
from decision.program import opcodes
from decision.program.gather import Input, Source, gather, source, write_lists
from decision.program.graph import SLOT, Graph
from decision.program.layout import Layout
from decision.program.results import Results
from decision.program.texts import Generation
from decision.schema import DType, Scalar, Value

Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A column of numbers, bools or timestamps.

    Attributes:
        values: float64 for float64 (NaN is NULL), int64 for int64 and timestamps (µs), bool for bool.
        nulls: bool of the same length, True where there is no value; None where all are there.
    """

    values: NDArray[Any]
    nulls: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCodes:
    """A dictionary-encoded column of texts: codes index `texts`, a negative one is NULL."""

    codes: NDArray[Any]
    texts: Sequence[str]


Column = Numbers | TextCodes | Sequence[Value]


@dataclass(frozen=True, slots=True)
class Slot:
    """A scalar of the row and its register."""

    name: str
    dtype: DType
    register: int


@dataclass(frozen=True, slots=True)
class ListSlot:
    """A list of the row; its place is its number."""

    name: str
    dtype: DType


@dataclass(slots=True)
class Frame:
    """The registers of up to b rows, private to one evaluation at a time.

    Attributes:
        arena: int64[...], all of it as the kernel takes it; the next three are parts of it.
        numbers: int64[r, b], see `kernels`.
        truths: uint8[v, b].
        masks: uint64[b, w].
        texts: uint64[codes, w].
        lists: int64[...].
        room: b.
        rows: Rows in use.
        results: What the last evaluation of all rows said, as views.
    """

    arena: NDArray[np.int64]
    numbers: NDArray[np.int64]
    truths: NDArray[np.uint8]
    masks: NDArray[np.uint64]
    texts: NDArray[np.uint64]
    lists: NDArray[np.int64]
    room: int
    rows: int
    results: Results


def resolve(
    name: str, column: Column, dtype: DType, row_count: int, texts: Generation
) -> Numbers | Sequence[Value]:
    """A column checked for length and kind, its texts as codes of the generation.

    Raises:
        FrameError: If the column has another length, or arrays of another type than the values have.
    """
    if isinstance(column, TextCodes):
        _check(dtype is DType.STRING, name, f"holds texts, not {dtype}")
        _check(len(column.codes) == row_count, name, f"has {len(column.codes)} values for {row_count} rows")
        return _coded(name, column, texts)
    if isinstance(column, Numbers):
        kinds = {DType.BOOL: "b", DType.FLOAT64: "fiu", DType.STRING: "", **dict.fromkeys(ELEMENTS, "")}
        _check(
            column.values.dtype.kind in kinds.get(dtype, "iu"), name, f"is {column.values.dtype}, not {dtype}"
        )
        _check(len(column.values) == row_count, name, f"has {len(column.values)} values for {row_count} rows")
        return column
    _check(len(column) == row_count, name, f"has {len(column)} values for {row_count} rows")
    return column


def _coded(name: str, column: TextCodes, texts: Generation) -> Numbers:
    _check(bool(np.all(column.codes < len(column.texts))), name, "has codes beyond its texts")
    codes = np.array([*map(texts.code, column.texts), 0], np.int64)
    nulls = column.codes < 0
    return Numbers(values=codes[np.where(nulls, len(codes) - 1, column.codes)], nulls=nulls)


def _check(holds: bool, name: str, problem: str) -> None:
    if not holds:
        raise FrameError(f"column {name} {problem}")


_NO_LISTS: Final = np.zeros(0, np.int64)
_NO_TEXTS: Final = np.zeros((0, 1), np.uint64)


class Encoder:
    """Writes values into frames of one program."""

    def __init__(self, graph: Graph, layout: Layout, result_count: int) -> None:
        self._layout = layout
        self._result_count = result_count
        self._slots = tuple(
            Slot(name, dtype, layout.register[value])
            for (name, dtype), value in zip(graph.slots, _slot_values(graph), strict=True)
        )
        self._lists = tuple(ListSlot(name, dtype) for name, dtype in graph.lists)

    @property
    def dtypes(self) -> dict[str, DType]:
        """Types of the values that a row may give, by name."""
        scalars = {slot.name: slot.dtype for slot in self._slots}
        return scalars | {slot.name: slot.dtype for slot in self._lists}

    def frame(self, room: int) -> Frame:
        """Registers without rows."""
        layout = self._layout
        numbers_end = len(layout.numbers) * room
        truths_end = numbers_end + len(layout.truths) * room // 8
        arena = np.empty(truths_end + layout.words * room, np.int64)
        numbers = arena[:numbers_end].reshape(-1, room)
        truths = arena[numbers_end:truths_end].view(np.uint8).reshape(-1, room)
        masks = arena[truths_end:].view(np.uint64).reshape(room, -1)
        numbers[:], truths[:] = layout.numbers[:, None], layout.truths[:, None]
        results = Results(self._result_count, truths[layout.truth_base :], masks)
        return Frame(arena, numbers, truths, masks, _NO_TEXTS, _NO_LISTS, room, 0, results)

    def encode_rows(self, rows: Sequence[Row], texts: Generation) -> Frame:
        """A frame of rows; what a row lacks is NULL."""
        frame = self.frame(max(1, len(rows)))
        frame.rows = len(rows)
        if not rows:
            frame.results = frame.results.none()
        for slot in self._slots:
            self._fill(frame, slot, [row.get(slot.name) for row in rows], texts)
        if self._lists:
            columns = [[row.get(slot.name) for row in rows] for slot in self._lists]
            frame.lists = self._encode_lists(columns, max(1, len(rows)), texts)
        frame.texts = texts.table
        return frame

    def sources(self, given: Sequence[BlockLayout | Block]) -> tuple[Source, ...]:
        """Where the columns of blocks go; what no layout has stays NULL."""
        slots = [(slot.name, slot.dtype, slot.register) for slot in self._slots]
        lists = [(slot.name, slot.dtype) for slot in self._lists]
        return tuple(source(slots, lists, one) for one in given)

    def gather(
        self, frame: Frame, sources: Sequence[Source], inputs: Sequence[Input], texts: Generation
    ) -> None:
        """Write blocks, one per source, into a frame that has room for exactly their rows."""
        frame.rows = frame.numbers.shape[1]
        for bringing, given in zip(sources, inputs, strict=True):
            if not len(bringing.table):
                continue
            block, codes = given.block, bringing.codes(given, texts)
            gather(
                bringing.table, block.words, block.statuses, given.rows, codes, frame.numbers, frame.truths
            )
        if self._lists:
            frame.lists = write_lists(sources, inputs, len(self._lists), frame.rows, texts)
        frame.texts = texts.table

    def fill_block(
        self,
        frame: Frame,
        columns: Mapping[str, Numbers | Sequence[Value]],
        start: int,
        count: int,
        texts: Generation,
    ) -> None:
        """Write `count` rows of columns from `start` on; a column that is not there is NULL."""
        frame.rows = count
        for slot in self._slots:
            column = columns.get(slot.name)
            if isinstance(column, Numbers):
                self._fill_numbers(frame, slot, column, slice(start, start + count))
            elif column is not None:
                self._fill(frame, slot, column[start : start + count], texts)
        if self._lists:
            lists = [cast("Sequence[Value] | None", columns.get(slot.name)) for slot in self._lists]
            cut = [[None] * count if c is None else list(c[start : start + count]) for c in lists]
            frame.lists = self._encode_lists(cut, frame.numbers.shape[1], texts)
        frame.texts = texts.table

    def _fill(self, frame: Frame, slot: Slot, values: Sequence[Value], texts: Generation) -> None:
        try:
            self._fill_values(frame, slot, values, texts)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FrameError(f"a value of {slot.name} is no {slot.dtype}: {error}") from error

    def _fill_values(self, frame: Frame, slot: Slot, values: Sequence[Value], texts: Generation) -> None:
        register, truths = slot.register, frame.truths
        if slot.dtype is DType.BOOL:
            for i, value in enumerate(values):
                truths[register, i] = (
                    opcodes.NULL if value is None else opcodes.TRUE if value else opcodes.FALSE
                )
            return
        if slot.dtype is DType.FLOAT64:
            floats = frame.numbers.view(np.float64)
            for i, value in enumerate(values):
                floats[register, i] = math.nan if value is None else value
            return
        convert = _converter(slot.dtype, texts)
        numbers = frame.numbers
        for i, value in enumerate(values):
            truths[register, i] = value is None
            if value is not None:
                numbers[register, i] = convert(value)

    def _fill_numbers(self, frame: Frame, slot: Slot, column: Numbers, rows: slice) -> None:
        values = column.values[rows]
        nulls = None if column.nulls is None else column.nulls[rows]
        count, register = len(values), slot.register
        if slot.dtype is DType.BOOL:
            frame.truths[register, :count] = values.astype(np.uint8) << 1
            if nulls is not None:
                frame.truths[register, :count][nulls] = opcodes.NULL
        elif slot.dtype is DType.FLOAT64:
            target = frame.numbers.view(np.float64)[register, :count]
            np.copyto(target, values)
            if nulls is not None:
                np.copyto(target, np.nan, where=nulls)
        else:
            np.copyto(frame.numbers[register, :count], values, casting="safe")
            frame.truths[register, :count] = 0 if nulls is None else nulls

    def _encode_lists(
        self, columns: Sequence[Sequence[Value]], room: int, texts: Generation
    ) -> NDArray[np.int64]:
        """Bounds of every list of every row, then the elements."""
        bounds = np.full(2 * room * len(columns), -1, np.int64)
        words: list[int] = []
        floats: list[tuple[int, float]] = []
        for place, (slot, values) in enumerate(zip(self._lists, columns, strict=True)):
            element = ELEMENTS[slot.dtype]
            for i, value in enumerate(values):
                if value is None:
                    continue
                items = cast("tuple[Scalar, ...]", value)
                at = 2 * (place * room + i)
                bounds[at], bounds[at + 1] = len(words), len(words) + len(items)
                if element is DType.FLOAT64:
                    floats += [(len(words) + k, float(item)) for k, item in enumerate(items)]
                    words += [0] * len(items)
                else:
                    words += map(_converter(element, texts), items)
        encoded = np.array(words, np.int64)
        if floats:
            places, items_f = zip(*floats, strict=True)
            encoded.view(np.float64)[list(places)] = items_f
        bounds[bounds >= 0] += len(bounds)
        return np.concatenate([bounds, encoded])


def _slot_values(graph: Graph) -> list[int]:
    """Values of the slots by place."""
    places: dict[int, int] = {
        cast("int", operation.words[0]): value
        for value, operation in enumerate(graph.operations)
        if operation.kind == SLOT
    }
    return [places[place] for place in range(len(graph.slots))]


_TO_INT: Final[Callable[[Any], int]] = operator.index


def _converter(dtype: DType, texts: Generation) -> Callable[[Any], int]:
    return texts.code if dtype is DType.STRING else _TO_INT
