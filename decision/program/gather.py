"""Blocks of values into a program's registers, without a Python object per cell.

`gather` and its kin write what `kernels` reads; a cell that carries no value becomes NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import numpy as np
from numba import boolean, int64, njit, types, uint8, void
from numpy.typing import NDArray

from decision.errors import FrameError
from decision.frame import Block, Layout
from decision.lang.types import ELEMENTS
from decision.program.opcodes import FALSE, NULL, TRUE
from decision.program.texts import Generation
from decision.schema import DType, Scalar

INT: Final = 0
FLOAT: Final = 1
BOOL: Final = 2
TEXT: Final = 3

PRESENT: Final = 1
STALE: Final = 4
NAN_WORD: Final = 0x7FF8000000000000

_TABLE = types.Array(int64, 2, "C", readonly=True)
_WORDS = types.Array(int64, 2, "C", readonly=True)
_STATUSES = types.Array(uint8, 2, "C", readonly=True)
_INDEX = types.Array(int64, 1, "C", readonly=True)

_NO_CODES: Final = np.zeros(1, np.int64)


@njit(
    [void(_TABLE, _WORDS, _STATUSES, _INDEX, _INDEX, types.Array(int64, 2, "C"), types.Array(uint8, 2, "C"))],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def gather(table, words, statuses, index, codes, numbers, truths):  # type: ignore[no-untyped-def]
    """Write the slots of `table` for the rows that `index` names.

    Args:
        table: int64[slots, 3]: kind, register, column.
        words: int64[columns, rows], a block's.
        statuses: uint8[columns, rows], a block's.
        index: int64[b], a row of the block or -1 for NULL.
        codes: int64[objects], codes of texts by place among the block's objects.
        numbers: int64[r, b], see `kernels`.
        truths: uint8[v, b].
    """
    for k in range(table.shape[0]):
        kind, register, column = table[k, 0], table[k, 1], table[k, 2]
        for i in range(index.shape[0]):
            row = index[i]
            carries = False
            word = int64(0)
            if row >= 0:
                status = statuses[column, row]
                carries = status == PRESENT or status == STALE  # noqa: PLR1714 - compiled
                word = words[column, row]
            if kind == FLOAT:
                numbers[register, i] = word if carries else NAN_WORD
            elif kind == BOOL:
                truths[register, i] = NULL if not carries else TRUE if word != 0 else FALSE
            else:
                truths[register, i] = not carries
                if kind == TEXT and carries:
                    word = codes[word]
                numbers[register, i] = (
                    word if carries else 0
                )  # a code must lie within the table even where NULL


@njit(
    [void(_TABLE, _WORDS, _STATUSES, _INDEX, types.Array(boolean, 1, "C"))],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def mark_texts(table, words, statuses, index, used):  # type: ignore[no-untyped-def]
    """Mark the objects that the texts among `table`'s slots are, in the rows that `index` names."""
    for k in range(table.shape[0]):
        if table[k, 0] != TEXT:
            continue
        column = table[k, 2]
        for i in range(index.shape[0]):
            row = index[i]
            if row >= 0:
                status = statuses[column, row]
                if status == PRESENT or status == STALE:  # noqa: PLR1714, SIM109 - compiled
                    used[words[column, row]] = True


class Input(NamedTuple):
    """A block and the rows to take of it.

    Attributes:
        rows: int64[b], the block's row for each row of the program; -1 gives NULL.
    """

    block: Block
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lists:
    """One list of each row of a block, as words; `start` is -1 where there is none."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    words: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ListSlot:
    """A list that a program reads: its number there, and the block's column."""

    number: int
    column: int
    element: DType


@dataclass(frozen=True, slots=True)
class Source:
    """What the blocks of one layout bring to a program.

    Attributes:
        table: `gather`'s.
        lists: The lists.
    """

    table: NDArray[np.int64]
    lists: tuple[ListSlot, ...]

    def codes(self, given: Input, texts: Generation) -> NDArray[np.int64]:
        """Codes of the texts that are read, by place among the block's objects."""
        if not len(self.table) or self.table[-1, 0] != TEXT:  # sorted by kind
            return _NO_CODES
        block = given.block
        used = np.zeros(len(block.objects), np.bool_)
        mark_texts(self.table, block.words, block.statuses, given.rows, used)
        codes = np.zeros(max(1, len(used)), np.int64)
        for place in used.nonzero()[0].tolist():
            codes[place] = texts.code(cast("str", block.objects[place]))
        return codes

    def read_list(self, slot: ListSlot, given: Input, texts: Generation) -> Lists:
        """A list of the rows that are read."""
        return _read_list(given.block, slot, set(given.rows.tolist()), texts)


@dataclass(frozen=True, slots=True)
class FixedSource(Source):
    """What one block that never changes brings: its texts are looked up once for each generation of codes."""

    block: Block
    _kept: dict[int, tuple[Generation, NDArray[np.int64] | Lists]] = field(default_factory=dict)

    def codes(self, given: Input, texts: Generation) -> NDArray[np.int64]:  # noqa: ARG002 - as the base's
        """As `Source.codes`, for all rows."""
        kept = self._kept.get(-1)
        if kept is None or kept[0] is not texts:
            everything = Input(self.block, np.arange(len(self.block.rows)))
            kept = self._kept[-1] = (texts, Source.codes(self, everything, texts))
        return cast("NDArray[np.int64]", kept[1])

    def read_list(self, slot: ListSlot, given: Input, texts: Generation) -> Lists:  # noqa: ARG002 - as the base's
        """As `Source.read_list`, for all rows."""
        kept = self._kept.get(slot.number)
        if kept is None or kept[0] is not texts:
            kept = self._kept[slot.number] = (
                texts,
                _read_list(self.block, slot, range(len(self.block.rows)), texts),
            )
        return cast("Lists", kept[1])


def source(
    slots: Iterable[tuple[str, DType, int]], lists: Sequence[tuple[str, DType]], given: Layout | Block
) -> Source:
    """Where a layout's columns go.

    Args:
        slots: Name, type and register of the program's scalars.
        lists: Name and type of the program's lists.
        given: A layout, or a block that every run gets.

    Raises:
        FrameError: If a column has another type than the program expects.
    """
    layout = given.layout if isinstance(given, Block) else given
    table = [
        (_kind(dtype), register, _column(layout, name, dtype))
        for name, dtype, register in slots
        if name in layout.place
    ]
    found = tuple(
        ListSlot(number, _column(layout, name, dtype), ELEMENTS[dtype])
        for number, (name, dtype) in enumerate(lists)
        if name in layout.place
    )
    rows = np.array(sorted(table), np.int64).reshape(-1, 3)
    return FixedSource(rows, found, given) if isinstance(given, Block) else Source(rows, found)


def write_lists(
    sources: Sequence[Source], inputs: Sequence[Input], list_count: int, rows: int, texts: Generation
) -> NDArray[np.int64]:
    """The lists of all rows as `kernels` reads them: bounds of every list of every row, then the elements."""
    bounds = np.full((list_count, rows, 2), -1, np.int64)
    parts: list[NDArray[np.int64]] = [bounds.reshape(-1)]
    end = bounds.size
    for bringing, given in zip(sources, inputs, strict=True):
        for slot in bringing.lists:
            found = bringing.read_list(slot, given, texts)
            there = given.rows >= 0
            there[there] = found.start[given.rows[there]] >= 0
            at = given.rows[there]
            bounds[slot.number, there, 0] = found.start[at] + end
            bounds[slot.number, there, 1] = found.end[at] + end
            parts.append(found.words)
            end += len(found.words)
    return np.concatenate(parts)


def words_of(items: tuple[Scalar, ...], element: DType, texts: Generation) -> list[int]:
    """The elements of a list as words.

    Raises:
        FrameError: If one is of another type.
    """
    try:
        if element is DType.FLOAT64:
            return cast("list[int]", np.array(items, np.float64).view(np.int64).tolist())
        if element is DType.STRING:
            return [texts.code(cast("str", item)) for item in items]
        return [int(cast("int", item)) for item in items]
    except (TypeError, ValueError) as error:
        raise FrameError(f"a list of {element} holds something else: {error}") from error


def _read_list(block: Block, slot: ListSlot, rows: Iterable[int], texts: Generation) -> Lists:
    count = len(block.rows)
    start, end = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    words: list[int] = []
    carried = block.carries[slot.column].tolist()
    for row in rows:
        if row >= 0 and carried[row]:
            items = cast("tuple[Scalar, ...]", block.objects[block.words[slot.column, row]])
            start[row] = len(words)
            words += words_of(items, slot.element, texts)
            end[row] = len(words)
    return Lists(start, end, np.array(words, np.int64))


def _kind(dtype: DType) -> int:
    return {DType.BOOL: BOOL, DType.FLOAT64: FLOAT, DType.STRING: TEXT}.get(dtype, INT)


def _column(layout: Layout, name: str, dtype: DType) -> int:
    column = layout.place[name]
    if layout.dtypes[column] is not dtype:
        raise FrameError(f"column {name} is {layout.dtypes[column]}, not {dtype}")
    return column
