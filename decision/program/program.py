"""Conditions compiled to one program, run over one row or many.

`Program` is immutable and may be shared; frames are not. What it computes is what the reference interpreter computes
(`decision.lang.interpreter.evaluate`), for every condition and every value of the declared types.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.collector import CollectorPaused
from decision.frame import Block
from decision.frame import Layout as BlockLayout
from decision.lang.syntax import Expr, IsNull, Like, Not, Ref
from decision.program import kernels, opcodes
from decision.program.columns import Column, Encoder, Frame, Row, resolve
from decision.program.gather import Input, Source
from decision.program.layout import Layout, lay_out
from decision.program.lower import Lowering
from decision.program.results import Results
from decision.program.texts import Patterns, Texts
from decision.program.verdicts import Bits, listing
from decision.schema import DType

_BLOCK_BYTES: Final = 256 * 1024
"""Registers of a block should stay in the processor's cache."""
_SPARE_FRAMES: Final = 4
"""Frames kept for the next runs."""
_BLOCK_ROWS_MIN: Final = 64
_BLOCK_ROWS_MAX: Final = 16_384


class Program:
    """A compiled set of conditions.

    Attributes:
        expressions: The conditions, in the order of the results.
        bits: Bit of every distinct condition and part of one in `Results.parts`, by expression.
    """

    def __init__(
        self, expressions: tuple[Expr, ...], lowering: Lowering, results: list[int], common: Collection[str]
    ) -> None:
        graph = lowering.graph
        self.expressions = expressions
        self._layout: Layout = lay_out(graph, results, common)
        self._graph_texts = tuple(graph.texts)
        self._encoder = Encoder(graph, self._layout, len(results))
        self._texts = Texts(Patterns(tuple(graph.patterns), tuple(graph.salts)), self._graph_texts)
        self._lowering = lowering
        self._spare: deque[Frame] = deque(maxlen=_SPARE_FRAMES)

    @classmethod
    @CollectorPaused()
    def compile(cls, expressions: Sequence[Expr], common: Collection[str] = ()) -> Program:
        """Compile conditions.

        Args:
            expressions: Typed trees of type bool, such as rules' conditions and offers' `when`.
            common: Names of values that are the same in all rows of one `Binding.run`, such as the customer's over the
                candidates. What reads nothing else is computed once there.

        Raises:
            ValueError: If one of them is of another type.
        """
        for place, expr in enumerate(expressions):
            if expr.dtype is not DType.BOOL:
                raise ValueError(f"expression {place} at {expr.span} is {expr.dtype}, not a condition")
        lowering = Lowering()
        results = [lowering.value(expr) for expr in expressions]
        return cls(tuple(expressions), lowering, results, common)

    @property
    def dtypes(self) -> Mapping[str, DType]:
        """Types of the values that rows give, by name."""
        return self._encoder.dtypes

    @property
    def names(self) -> frozenset[str]:
        """Names of the values that rows give."""
        return frozenset(self._encoder.dtypes)

    @cached_property
    def bits(self) -> Mapping[Expr, int]:
        base = self._layout.truth_base
        register = self._layout.register
        return {
            expr: register[value] - base
            for expr, value in self._lowering.values.items()
            if expr.dtype is DType.BOOL
        }

    @cached_property
    def listing(self) -> tuple[Expr, ...]:
        """What the bits of `verdicts` stand for, see `decision.program.verdicts`."""
        return listing(self.expressions)

    @cached_property
    def listing_places(self) -> Mapping[Expr, int]:
        """Place of every comparison in `listing`."""
        first = len(self.expressions)
        return {part: place for place, part in enumerate(self.listing[first:], first)}

    def verdicts(self, truths: NDArray[np.uint8]) -> Bits:
        """The truths of an evaluation as bits to keep, a row for a row.

        Args:
            truths: `Results.truths` of `run` or `evaluate`.
        """
        if not truths.size:
            return Bits(count=len(self.listing))
        registers, flipped = self._listed
        listed = truths[registers].T
        return Bits.pack(np.where(flipped, opcodes.TRUE - listed, listed))

    @cached_property
    def _listed(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Register of each listed truth among `Results.truths`, and whether it holds the opposite."""
        known, register = self._lowering.values, self._layout.register
        places = [(place, False) for place in range(len(self.expressions))]
        for part in self.listing[len(places) :]:
            flipped = part not in known
            value = known[Not(operand=part) if flipped else part]
            places.append((register[value] - self._layout.truth_base, flipped))
        registers, flips = zip(*places, strict=True) if places else ((), ())
        return np.array(registers, np.int64), np.array(flips, np.bool_)

    def run(self, rows: Row | Sequence[Row], now_us: int) -> Results:
        """Evaluate every condition over one row or several.

        Args:
            rows: Values by canonical name; an absent name is NULL, a NaN is NULL.
            now_us: The value of `now()`, microseconds since the epoch.

        Raises:
            FrameError: If a value is not of its declared type.
        """
        return self.evaluate(self.encode([rows] if isinstance(rows, Mapping) else rows), now_us)

    def encode(self, rows: Sequence[Row]) -> Frame:
        """Rows as registers, for `evaluate`."""
        return self._encoder.encode_rows(rows, self._texts.generation())

    def evaluate(self, frame: Frame, now_us: int) -> Results:
        """Evaluate a frame; it may be evaluated again at another time, but not by two threads at once."""
        self._evaluate_block(frame, now_us, packs=True, shares=False)
        return frame.results

    def run_columns(self, columns: Mapping[str, Column], row_count: int, now_us: int) -> Results:
        """Evaluate every condition over columns, block by block.

        Args:
            columns: Columns of `row_count` values by canonical name; an absent one is NULL.
            row_count: Rows.
            now_us: The value of `now()`.

        Raises:
            FrameError: If a column has another length or type.
        """
        texts = self._texts.generation()
        dtypes = self._encoder.dtypes
        resolved = {
            name: resolve(name, columns[name], dtypes[name], row_count, texts)
            for name in dtypes.keys() & columns.keys()
        }
        registers = np.empty((len(self.expressions), row_count), np.uint8)
        frame = self._encoder.frame(self._block_rows(row_count))
        room = frame.room
        for start in range(0, row_count, room):
            count = min(room, row_count - start)
            self._encoder.fill_block(frame, resolved, start, count, texts)
            self._evaluate_block(frame, now_us, packs=False, shares=False)
            registers[:, start : start + count] = self._outputs(frame)
        return Results.of(registers)

    def bind(self, blocks: Sequence[BlockLayout | Block]) -> Binding:
        """Tie the program to the layouts of the blocks that its rows will come from.

        Args:
            blocks: Layouts, and blocks that every run will get again. A name that none of them has is NULL.

        Raises:
            FrameError: If a column has another type than the conditions.
        """
        return Binding(self, self._encoder.sources(blocks))

    def run_blocks(
        self, sources: Sequence[Source], inputs: Sequence[Input], row_count: int, now_us: int
    ) -> NDArray[np.uint8]:
        """Evaluate every condition over rows of blocks; see `Binding.run`."""
        frame = self._taken(row_count)
        self._encoder.gather(frame, sources, inputs, self._texts.generation())
        self._evaluate_block(frame, now_us, packs=False, shares=True)
        truths = frame.results.truths.copy()
        self._spare.append(frame)
        return truths

    def _taken(self, row_count: int) -> Frame:
        """Registers for so many rows: a run before left its constants in them, and every other register is written."""
        try:
            frame = self._spare.pop()
        except IndexError:
            return self._encoder.frame(row_count)
        return frame if frame.room == row_count else self._encoder.frame(row_count)

    def _block_rows(self, row_count: int) -> int:
        fitting = _BLOCK_BYTES // self._layout.row_bytes
        return max(1, min(row_count, max(_BLOCK_ROWS_MIN, min(_BLOCK_ROWS_MAX, fitting))))

    def _evaluate_block(self, frame: Frame, now_us: int, *, packs: bool, shares: bool) -> None:
        code, arena = self._layout.code, frame.arena
        kernels.run_now(code, arena, frame.texts, frame.lists, now_us, frame.room, frame.rows, packs, shares)

    def _outputs(self, frame: Frame) -> NDArray[np.uint8]:
        base = self._layout.truth_base
        return frame.truths[base : base + len(self.expressions), : frame.rows]


class Binding:
    """A program with the layouts of the blocks that its rows come from."""

    def __init__(self, program: Program, sources: Sequence[Source]) -> None:
        self._program = program
        self._sources = sources

    def run(self, inputs: Sequence[Input], row_count: int, now_us: int) -> NDArray[np.uint8]:
        """Evaluate every condition over rows of blocks.

        Args:
            inputs: A block of each bound layout, with `row_count` places of its rows; where the program was compiled
                with common names, those places are all one in the blocks that have them.
            row_count: At least 1.
            now_us: The value of `now()`.

        Returns:
            As `Results.truths`, the caller's own.
        """
        return self._program.run_blocks(self._sources, inputs, row_count, now_us)


def warm() -> None:
    """Load or compile every kernel and run a program through each entry, so that no request waits for it."""
    name = Ref(name="warm.name", dtype=DType.STRING)
    program = Program.compile([Like(operand=name, pattern="w%"), IsNull(operand=name)])
    for rows in (1, 2):
        program.run([{"warm.name": "warm"}] * rows, 0)
