"""Random typed conditions and the rows to run them on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from hypothesis import strategies as st

from decision.lang.calendar import load_zone
from decision.lang.fold import simplify
from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Case,
    Compare,
    DatePart,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Negate,
    Not,
    Now,
    Or,
    Ref,
    ToFloat,
)
from decision.lang.types import ELEMENTS
from decision.schema import DTYPES, DType, Value
from tests.support.lang_world import VALUES

ZONES = tuple(
    zone
    for name in ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
    if (zone := load_zone(name)) is not None
)
NAMES: dict[DType, list[str]] = {}
for _feature in VALUES.features:
    NAMES.setdefault(DTYPES[_feature.value_type], []).append(f"v.{_feature.name}")

INT_EDGES = [0, 1, -1, 2, -2, 3, 7, 2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63)]
FLOAT_EDGES = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-300, 1e300, 2.0**52 + 0.5, 0.49999999999999994]
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "aab",
    "é",
    "e\u0301",
    "🥛",
    "milk",
    "MILK",
    "a%b",
    "a_b",
    'say "hi"',
    "it's",
    "\n",
]
DAYLIGHT_US = [1_774_746_000_000_000, 1_792_890_000_000_000, 1_709_164_800_000_000, 1_709_251_199_999_999]
"""Berlin springs forward and falls back in 2026; the leap day of 2024 begins and ends."""
NOWS = st.one_of(
    st.integers(0, 4 * 10**15),
    st.sampled_from(DAYLIGHT_US).flatmap(lambda at: st.integers(at - 2_000_000, at + 2_000_000)),
)


def ints() -> st.SearchStrategy[int]:
    return st.one_of(st.integers(-5, 5), st.sampled_from(INT_EDGES), st.integers(-(2**63), 2**63 - 1))


def floats() -> st.SearchStrategy[float]:
    return st.one_of(st.sampled_from(FLOAT_EDGES), st.floats(allow_nan=False, allow_infinity=False))


def texts() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(TEXTS), st.text("ab%_é🥛", max_size=4))


def instants() -> st.SearchStrategy[int]:
    return st.one_of(NOWS, ints())


def intervals() -> st.SearchStrategy[int]:
    seconds = st.integers(-90, 90).map(lambda count: count * 1_000_000)
    return st.one_of(seconds, seconds.map(lambda size: size * 3600), st.integers(-(10**15), 10**15))


VALUE_OF: dict[DType, st.SearchStrategy[Any]] = {
    DType.BOOL: st.booleans(),
    DType.INT64: ints(),
    DType.FLOAT64: floats(),
    DType.STRING: texts(),
    DType.TIMESTAMP: instants(),
    DType.INTERVAL: intervals(),
}
SCALAR_TYPES = tuple(VALUE_OF)
PARTS = ("year", "month", "day", "weekday", "day_of_year", "hour", "minute", "second")


def row_values(dtype: DType) -> st.SearchStrategy[Value]:
    """What a row may hold: NULL, and for floats NaN and infinities too."""
    if dtype in ELEMENTS:
        return st.none() | st.lists(_scalars(ELEMENTS[dtype]), max_size=3).map(tuple)
    return st.none() | _scalars(dtype)


def _scalars(dtype: DType) -> st.SearchStrategy[Any]:
    special = [math.nan, math.inf, -math.inf]
    return floats() | st.sampled_from(special) if dtype is DType.FLOAT64 else VALUE_OF[dtype]


def rows() -> st.SearchStrategy[dict[str, Value]]:
    """A value for some of the features; the others are absent."""
    strategies = {name: row_values(dtype) for dtype, names in NAMES.items() for name in names}
    return st.fixed_dictionaries({}, optional=strategies)


@st.composite
def trees(draw: st.DrawFn, dtype: DType, depth: int = 3) -> Expr:
    """Typed trees as the binder makes them."""
    return Maker(draw).make(dtype, depth)


def expressions(dtype: DType, depth: int = 3) -> st.SearchStrategy[Expr]:
    """Typed trees as the compiler makes them, simplified like them."""
    return trees(dtype, depth).map(simplify)


class Maker:
    """Draws a tree node by node; strategies nested as deep would take seconds to build."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def make(self, dtype: DType, depth: int) -> Expr:
        if depth == 0 or self.draw(st.integers(0, 5)) == 0:
            return self.leaf(dtype)
        return cast(
            "Expr", self.pick([*self.branches[dtype], Maker.coalesce, Maker.case])(self, dtype, depth - 1)
        )

    def leaf(self, dtype: DType) -> Expr:
        kinds = (
            [self.literal]
            + [self.ref] * (2 * (dtype in NAMES))
            + [self.now] * (2 * (dtype is DType.TIMESTAMP))
        )
        return cast("Expr", self.pick(kinds)(dtype))

    def literal(self, dtype: DType) -> Expr:
        return Literal(value=self.draw(VALUE_OF[dtype]), dtype=dtype)

    def ref(self, dtype: DType) -> Expr:
        return Ref(name=self.pick(NAMES[dtype]), dtype=dtype)

    def now(self, _dtype: DType) -> Expr:
        return Now()

    def some(self, dtype: DType, depth: int, fewest: int = 1) -> tuple[Expr, ...]:
        return tuple(self.make(dtype, depth) for _ in range(self.draw(st.integers(fewest, 3))))

    def coalesce(self, dtype: DType, depth: int) -> Expr:
        return Call(function="coalesce", args=self.some(dtype, depth), dtype=dtype)

    def extreme(self, dtype: DType, depth: int) -> Expr:
        return Call(function=self.pick(["least", "greatest"]), args=self.some(dtype, depth), dtype=dtype)

    def case(self, dtype: DType, depth: int) -> Expr:
        count = self.draw(st.integers(1, 2))
        branches = tuple((self.make(DType.BOOL, depth), self.make(dtype, depth)) for _ in range(count))
        return Case(branches=branches, default=self.make(dtype, depth), dtype=dtype)

    def inverse(self, dtype: DType, depth: int) -> Expr:
        return Not(operand=self.make(dtype, depth))

    def both(self, dtype: DType, depth: int) -> Expr:
        return And(operands=self.some(dtype, depth, 2))

    def either(self, dtype: DType, depth: int) -> Expr:
        return Or(operands=self.some(dtype, depth, 2))

    def is_null(self, _dtype: DType, depth: int) -> Expr:
        return IsNull(operand=self.make(self.pick(SCALAR_TYPES), depth))

    def compare(self, _dtype: DType, depth: int) -> Expr:
        kind = self.pick(SCALAR_TYPES)
        ops = ["=", "<>"] if kind in (DType.STRING, DType.BOOL) else ["=", "<>", "<", "<=", ">", ">="]
        return Compare(op=self.pick(ops), left=self.make(kind, depth), right=self.make(kind, depth))

    def bound(self, _dtype: DType, _depth: int) -> Expr:
        """A comparison with a constant, which the analysis understands."""
        kind = self.pick([DType.INT64, DType.FLOAT64, DType.TIMESTAMP])
        op = self.pick(["=", "<>", "<", "<=", ">", ">="])
        return Compare(op=op, left=self.ref(kind), right=self.literal(kind))

    def member(self, _dtype: DType, depth: int) -> Expr:
        kind = self.pick([DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP])
        null = Literal(value=None, dtype=kind)
        items = [
            self.pick([self.literal(kind), self.ref(kind), null]) for _ in range(self.draw(st.integers(1, 3)))
        ]
        return In(operand=self.make(kind, depth), items=tuple(items))

    def like(self, _dtype: DType, depth: int) -> Expr:
        return Like(operand=self.make(DType.STRING, depth), pattern=self.draw(texts()))

    def contains(self, _dtype: DType, depth: int) -> Expr:
        kind = self.pick([DType.STRING_LIST, DType.FLOAT64_LIST, DType.TIMESTAMP_LIST, DType.INT64_LIST])
        args = (self.ref(kind), self.make(ELEMENTS[kind], depth))
        return Call(function="contains", args=args, dtype=DType.BOOL)

    def number(self, dtype: DType, depth: int) -> Expr:
        ops = "+-*%" if dtype is DType.INT64 else "+-*/%"
        left, right = self.make(dtype, depth), self.make(dtype, depth)
        return Arithmetic(op=self.pick(ops), left=left, right=right, dtype=dtype)

    def shift(self, dtype: DType, depth: int) -> Expr:
        left, right = self.make(dtype, depth), self.make(DType.INTERVAL, depth)
        return Arithmetic(op=self.pick("+-"), left=left, right=right, dtype=dtype)

    def since(self, dtype: DType, depth: int) -> Expr:
        left, right = self.make(DType.TIMESTAMP, depth), self.make(DType.TIMESTAMP, depth)
        return Arithmetic(op="-", left=left, right=right, dtype=dtype)

    def times(self, dtype: DType, depth: int) -> Expr:
        left, right = self.make(dtype, depth), self.make(DType.INT64, depth)
        return Arithmetic(op="*", left=left, right=right, dtype=dtype)

    def negate(self, dtype: DType, depth: int) -> Expr:
        return Negate(operand=self.make(dtype, depth))

    def absolute(self, dtype: DType, depth: int) -> Expr:
        return Call(function="abs", args=(self.make(dtype, depth),), dtype=dtype)

    def rounding(self, dtype: DType, depth: int) -> Expr:
        return Call(function=self.pick(["round", "floor"]), args=(self.make(dtype, depth),), dtype=dtype)

    def widen(self, dtype: DType, depth: int) -> Expr:
        operand = self.make(DType.INT64, depth)
        return self.ref(dtype) if isinstance(operand, Literal) else ToFloat(operand=operand)

    def date_part(self, _dtype: DType, depth: int) -> Expr:
        operand = self.make(DType.TIMESTAMP, depth)
        return DatePart(part=self.pick(PARTS), operand=operand, zone=self.pick(ZONES))

    def bucket(self, dtype: DType, depth: int) -> Expr:
        unit = self.make(self.pick([DType.STRING, DType.INT64]), depth)
        salt, count = Literal(value="salt", dtype=DType.STRING), Literal(value=10, dtype=DType.INT64)
        return Call(function="bucket", args=(unit, salt, count), dtype=dtype)

    branches: ClassVar[dict[DType, list[Any]]] = {
        DType.BOOL: [
            *(inverse, both, both, either, either, is_null, compare, compare, compare, bound, bound),
            *(member, like, contains),
        ],
        DType.INT64: [number, number, negate, absolute, extreme, date_part, date_part, bucket],
        DType.FLOAT64: [number, number, negate, absolute, rounding, extreme, widen],
        DType.STRING: [],
        DType.TIMESTAMP: [shift, shift, shift, extreme],
        DType.INTERVAL: [since, since, shift, times, negate, absolute, extreme],
    }
