"""Conditions that read the row, and rows close to what they compare with."""

from __future__ import annotations

import math
import random
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, get_args

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from decision.lang.calendar import HOUR_US, days_before
from decision.lang.fold import simplify
from decision.lang.syntax import (
    Arithmetic,
    ArithmeticOp,
    Call,
    Compare,
    DatePart,
    Expr,
    FunctionName,
    Like,
    Literal,
    PartName,
    Ref,
    references,
    walk,
)
from decision.lang.types import ELEMENTS, NUMBERS
from decision.schema import DType, Value
from tests.support.lang_exprs import (
    DAYLIGHT_US,
    FLOAT_EDGES,
    INT_EDGES,
    NOWS,
    SCALAR_TYPES,
    TEXTS,
    ZONES,
    Maker,
)

Row = dict[str, Value]
DAY_EDGES_US = [
    days_before(year, month, day) * 86_400_000_000
    for year in (-4, 0, 1, 1900, 1970, 2000, 2023, 2024, 2100)
    for month, day in ((1, 1), (3, 1), (12, 31))
]
INT64_ENDS = (-(2**63), 2**63 - 1)
SPECIAL_FLOATS = [*FLOAT_EDGES, math.nan, math.inf, -math.inf]
Branch = Callable[[Maker, DType, int], Expr]


def _compare(kind: DType) -> Branch:
    """Comparisons of one type; drawn among all, one type alone would be seldom seen."""
    ops = ["=", "<>"] if kind in (DType.STRING, DType.BOOL) else ["=", "<>", "<", "<=", ">", ">="]

    def build(maker: Maker, _dtype: DType, depth: int) -> Expr:
        left, right = maker.make(kind, depth), maker.make(kind, depth)
        return Compare(op=maker.pick(ops), left=left, right=right)

    return build


def _date_part(part: PartName) -> Branch:
    def build(maker: Maker, _dtype: DType, depth: int) -> Expr:
        return DatePart(part=part, operand=maker.make(DType.TIMESTAMP, depth), zone=maker.pick(ZONES))

    return build


def _contains(kind: DType) -> Branch:
    def build(maker: Maker, dtype: DType, depth: int) -> Expr:
        args = (maker.ref(kind), maker.make(ELEMENTS[kind], depth))
        return Call(function="contains", args=args, dtype=dtype)

    return build


def _arithmetic(op: ArithmeticOp) -> Branch:
    def build(maker: Maker, dtype: DType, depth: int) -> Expr:
        left, right = maker.make(dtype, depth), maker.make(dtype, depth)
        return Arithmetic(op=op, left=left, right=right, dtype=dtype)

    return build


def _rounding(function: FunctionName) -> Branch:
    def build(maker: Maker, dtype: DType, depth: int) -> Expr:
        return Call(function=function, args=(maker.make(dtype, depth),), dtype=dtype)

    return build


def _like(maker: Maker, _dtype: DType, depth: int) -> Expr:
    pattern = "".join(maker.pick("__%%abé🥛") for _ in range(maker.pick(range(1, 5))))
    return Like(operand=maker.make(DType.STRING, depth), pattern=pattern)


_SPELT_OUT = (Maker.like, Maker.date_part, Maker.compare, Maker.contains, Maker.number, Maker.rounding)
ROOTS: list[tuple[DType, Branch]] = [
    *((DType.INT64, _date_part(part)) for part in get_args(PartName)),
    *((DType.BOOL, _compare(kind)) for kind in (*SCALAR_TYPES, *[*NUMBERS, DType.STRING] * 2)),
    *[(DType.BOOL, _like)] * 3,
    *((DType.BOOL, _contains(kind)) for kind in ELEMENTS),
    *((dtype, _arithmetic(op)) for dtype in NUMBERS for op in get_args(ArithmeticOp) if op != "/"),
    (DType.FLOAT64, _arithmetic("/")),
    *((dtype, _rounding(function)) for dtype in NUMBERS for function in ("round", "floor")),
    *(
        (dtype, branch)
        for dtype, branches in Maker.branches.items()
        for branch in [*branches, Maker.coalesce, Maker.case]
        if branch not in _SPELT_OUT
    ),
]


@st.composite
def rooted(draw: st.DrawFn, dtype: DType, branch: Branch, depth: int = 2) -> Expr:
    """Trees that read the row, with that operator on top."""
    maker = Maker(draw)
    simple = simplify(branch(maker, dtype, draw(st.integers(0, depth))))
    assume(references(simple))
    return simple


def explore(conditions: int, act: Callable[[Expr, int, int], None], **options: Any) -> None:
    """Call with at least that many conditions, a seed for their rows and an instant.

    Every operator is on top of equally many: hypothesis by itself keeps to a few for long.
    """
    for dtype, branch in ROOTS:
        strategy = rooted(dtype, branch)
        # A root that few subtrees fit draws again and again; how many cases ran is asserted by who asks for them.
        options.setdefault("suppress_health_check", [HealthCheck.filter_too_much])
        chosen = settings(max_examples=-(-conditions // len(ROOTS)), **options)
        chosen(given(strategy, st.integers(0, 2**32 - 1), NOWS)(act))()


class RowMaker:
    """Draws rows for one condition, often near its constants, its zones' transitions and values of the same row."""

    def __init__(self, expr: Expr, draw: random.Random) -> None:
        self.draw = draw
        self.dtypes: dict[str, DType] = {}
        self.hints: dict[DType, list[Any]] = {}
        for node in walk(expr):
            self._learn(node)
        self.nulls = draw.choice([0.0, 0.1, 0.5])

    def _learn(self, node: Expr) -> None:
        match node:
            case Ref():
                self.dtypes[node.name] = node.dtype
            case Literal() if node.value is not None:
                self.hints.setdefault(node.dtype, []).append(node.value)
            case Like():
                self.hints.setdefault(DType.STRING, []).append(node.pattern)
            case DatePart():
                edges_us = [
                    *self.draw.choices(DAY_EDGES_US, k=8),
                    *self.draw.choices(node.zone.transitions_us or (0,), k=8),
                ]
                self.hints.setdefault(DType.TIMESTAMP, []).extend(edges_us)
            case _:
                pass

    def row(self) -> Row:
        """A row in which some names are missing."""
        row: Row = {}
        for name in sorted(self.dtypes):
            if self.draw.random() >= self.nulls:
                row[name] = self.value(self.dtypes[name], row)
        return row

    def value(self, dtype: DType, row: Row) -> Any:
        """A value that is not NULL, of any kind or near something that the condition sees."""
        if dtype in ELEMENTS:
            return tuple(self._items(ELEMENTS[dtype], row))
        others = [row[name] for name in sorted(row) if self.dtypes[name] is dtype]
        pools = [pool for pool in (self.hints.get(dtype), others) if pool]
        if not pools or self.draw.random() < 0.3:
            return self._any(dtype)
        return self._near(dtype, self.draw.choice(self.draw.choice(pools)))

    def _items(self, dtype: DType, row: Row) -> Iterator[Value]:
        for _ in range(self.draw.randint(0, 3)):
            yield None if self.draw.random() < 0.1 else self.value(dtype, row)

    def _any(self, dtype: DType) -> Any:
        draw = self.draw
        match dtype:
            case DType.BOOL:
                return draw.random() < 0.5
            case DType.FLOAT64:
                rough = draw.gauss(0, 1) * 10.0 ** draw.randint(-9, 9)
                edge = draw.choice([0.0, -0.0, draw.choice(SPECIAL_FLOATS)])
                return draw.choice([edge, draw.randint(-8, 8) / 2, rough])
            case DType.STRING:
                made = "".join(draw.choices("ab%_é🥛", k=draw.randint(0, 4)))
                return draw.choice([draw.choice(TEXTS), made, "é", "e\u0301"])
            case DType.TIMESTAMP:
                edge = self._near(dtype, draw.choice([*DAYLIGHT_US, *DAY_EDGES_US]))
                return draw.choice([edge, draw.randint(0, 4 * 10**15), self._int()])
            case _:
                return draw.choice([0, *INT64_ENDS, draw.randint(-5, 5), self._int()])

    def _int(self) -> int:
        return self.draw.choice([self.draw.choice(INT_EDGES), self.draw.randint(-(2**63), 2**63 - 1)])

    def _near(self, dtype: DType, value: Any) -> Any:
        """The value or one that only the exact meaning tells from it."""
        draw = self.draw
        match dtype:
            case DType.INT64:
                return _int64(value + draw.choice([-1, 0, 1]))
            case DType.TIMESTAMP:
                step = draw.choice([-1, 0, 1, draw.randint(-HOUR_US, HOUR_US)])
                return _int64(value + step)
            case DType.FLOAT64:
                return draw.choice([value, -value, math.nextafter(value, math.inf), value + 0.5])
            case DType.STRING:
                return draw.choice([value, self._alike(value), self._taken(value)])
            case _:
                return value

    def _alike(self, text: str) -> str:
        """A text that a looser comparison would take for this one."""
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
        return self.draw.choice([*forms, text.swapcase(), text + " "])

    def _taken(self, pattern: str) -> str:
        """A text that the text as a pattern takes, or nearly."""
        texts = {"%": ["", "ab"], "_": ["é", "🥛", "a", ""]}
        filled = "".join(self.draw.choice(texts.get(mark, [mark])) for mark in pattern)
        return self.draw.choice([filled, filled, filled.swapcase(), "a" + filled, filled + "b"])


def _int64(value: int) -> int:
    return max(INT64_ENDS[0], min(INT64_ENDS[1], value))
