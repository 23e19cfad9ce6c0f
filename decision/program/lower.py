"""From typed expressions to operations.

NOT moves into comparisons, constants beside a register become thresholds and sets, CASE becomes a choice between
values that are all computed (no operator can fail), lists are looked into where they are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, cast

from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Case,
    Compare,
    CompareOp,
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
    Zone,
)
from decision.lang.types import ELEMENTS, is_null
from decision.lang.values import INT64_MIN
from decision.program import opcodes
from decision.program.graph import NOW, Graph, Pool, Space
from decision.program.thresholds import MIRRORED, NEGATED, bits, float_threshold, int_threshold
from decision.schema import DType, Value

_SELECT: Final[dict[Space, int]] = {
    "int": opcodes.SELECT_I,
    "float": opcodes.SELECT_F,
    "truth": opcodes.SELECT_T,
}
_COALESCE: Final[dict[Space, int]] = {
    "int": opcodes.COALESCE_I,
    "float": opcodes.COALESCE_F,
    "truth": opcodes.COALESCE_T,
}
_NULL: Final[dict[Space, int]] = {"int": opcodes.NULL_I, "float": opcodes.NULL_F, "truth": opcodes.NULL_T}
_CONTAINS: Final[dict[Space, int]] = {
    "int": opcodes.CONTAINS_I,
    "float": opcodes.CONTAINS_F,
    "truth": opcodes.CONTAINS_T,
}
_INTS: Final = {"+": opcodes.ADD_I, "-": opcodes.SUB_I, "*": opcodes.MUL_I, "%": opcodes.REM_I}
_FLOATS: Final = {
    "+": opcodes.ADD_F,
    "-": opcodes.SUB_F,
    "*": opcodes.MUL_F,
    "/": opcodes.DIV_F,
    "%": opcodes.REM_F,
}
_EXTREMES: Final[dict[tuple[str, Space], int]] = {
    ("least", "int"): opcodes.MIN_I,
    ("greatest", "int"): opcodes.MAX_I,
    ("least", "float"): opcodes.MIN_F,
    ("greatest", "float"): opcodes.MAX_F,
}
_ORDERS: Final = {
    ("<", "int"): opcodes.LT_II,
    ("<=", "int"): opcodes.LE_II,
    ("=", "int"): opcodes.EQ_II,
    ("<>", "int"): opcodes.NE_II,
    ("<", "float"): opcodes.LT_FF,
    ("<=", "float"): opcodes.LE_FF,
    ("=", "float"): opcodes.EQ_FF,
    ("<>", "float"): opcodes.NE_FF,
    ("=", "truth"): opcodes.EQ_T,
    ("<>", "truth"): opcodes.NE_T,
}


def space_of(dtype: DType) -> Space:
    """Where values of a scalar type live."""
    match dtype:
        case DType.BOOL:
            return "truth"
        case DType.FLOAT64:
            return "float"
        case _:
            return "int"


@dataclass(slots=True)
class Lowering:
    """Adds expressions to a graph.

    Attributes:
        graph: Grows with every expression.
        values: Values of the expressions seen, so that equal ones are followed once.
    """

    graph: Graph = field(default_factory=Graph)
    values: dict[Expr, int] = field(default_factory=dict)

    def value(self, expr: Expr) -> int:
        """The value of an expression of a scalar type."""
        known = self.values.get(expr)
        if known is None:
            known = self.values[expr] = self._lower(expr)
        return known

    def _lower(self, expr: Expr) -> int:  # noqa: C901 - one case per node is the clearest form
        match expr:
            case Literal():
                return self._constant(expr.value, expr.dtype)
            case Ref():
                return self.graph.slot(expr.name, expr.dtype, space_of(expr.dtype))
            case Now():
                return self.graph.add(NOW, "int")
            case ToFloat():
                return self.graph.add(opcodes.TO_F, "float", (self.value(expr.operand),))
            case Not():
                return self._negation(expr.operand)
            case And():
                return self._joined(opcodes.AND, expr.operands)
            case Or():
                return self._joined(opcodes.OR, expr.operands)
            case Compare():
                return self._compare(expr)
            case In():
                return self._member(expr)
            case Like():
                return self._like(expr)
            case IsNull():
                return self._is_null(expr.operand)
            case Case():
                return self._case(expr)
            case Arithmetic():
                return self._arithmetic(expr)
            case Negate():
                return self._of_number(expr.operand, opcodes.NEG_I, opcodes.NEG_F)
            case Call():
                return self._call(expr)
            case DatePart():
                words = (opcodes.PARTS.index(expr.part), _zone(expr.zone))
                return self.graph.add(opcodes.PART, "int", (self.value(expr.operand),), words)

    def _constant(self, value: Value, dtype: DType) -> int:
        space = space_of(dtype)
        if space == "truth":
            return self.graph.truth(cast("bool | None", value))
        return self.graph.constant(None if value is None else self._bits(value, dtype), space)

    def _bits(self, value: Value, dtype: DType) -> int:
        """A constant that is not NULL as an int64: a text's code, a float's bits."""
        match dtype:
            case DType.STRING:
                return self.graph.text(cast("str", value))
            case DType.FLOAT64:
                return bits(cast("float", value))
            case _:
                return int(cast("int", value))

    def _negation(self, operand: Expr) -> int:
        match operand:
            case Not():
                return self.value(operand.operand)
            case Compare():
                return self.value(replace(operand, op=NEGATED[operand.op]))
            case _:
                return self.graph.add(opcodes.NOT, "truth", (self.value(operand),))

    def _joined(self, kind: int, operands: tuple[Expr, ...]) -> int:
        return self._join(kind, [self.value(operand) for operand in operands])

    def _join(self, kind: int, values: list[int]) -> int:
        distinct = tuple(dict.fromkeys(values))
        return distinct[0] if len(distinct) == 1 else self.graph.add(kind, "truth", distinct)

    def _compare(self, expr: Compare) -> int:
        left, right, op = expr.left, expr.right, expr.op
        if is_null(left) or is_null(right):
            return self.graph.truth(None)
        if isinstance(left, Literal):
            left, right, op = right, left, MIRRORED[op]
        if isinstance(right, Literal):
            return self._compare_constant(op, left, right)
        since = self._compare_now(op, left, right) or self._compare_now(MIRRORED[op], right, left)
        if since is not None:
            return since
        if op in (">", ">="):
            left, right, op = right, left, MIRRORED[op]
        space = space_of(left.dtype)
        return self.graph.add(_ORDERS[op, space], "truth", (self.value(left), self.value(right)))

    def _compare_now(self, op: CompareOp, left: Expr, right: Expr) -> int | None:
        """An instant against now() less a constant interval, as most conditions on time are written."""
        before_us = _before_now_us(right)
        if before_us is None or op not in opcodes.NOW_KINDS:
            return None
        return self.graph.add(opcodes.NOW_KINDS[op], "truth", (self.value(left),), (before_us,))

    def _compare_constant(self, op: CompareOp, left: Expr, limit: Literal) -> int:
        dtype = left.dtype
        if dtype is DType.BOOL:
            same = (op == "=") is limit.value
            return self.value(left) if same else self._negation(left)
        operand = self.value(left)
        if dtype is DType.FLOAT64:
            found = float_threshold(op, cast("float", limit.value))
        else:
            found = int_threshold(op, self._bits(limit.value, dtype))
        if found is None:
            return self._among(operand, (), dtype)
        return self.graph.add(found[0], "truth", (operand,), (found[1],))

    def _among(self, operand: int, items: tuple[int, ...], dtype: DType) -> int:
        kind = opcodes.IN_F if dtype is DType.FLOAT64 else opcodes.IN_I
        return self.graph.add(kind, "truth", (operand,), (Pool(items), len(items)))

    def _member(self, expr: In) -> int:
        dtype = expr.operand.dtype
        constants: list[Literal] = []
        parts: list[int] = []
        for item in expr.items:
            if isinstance(item, Literal) and item.value is not None and dtype is not DType.BOOL:
                constants.append(item)
            else:
                parts.append(self._compare(Compare(op="=", left=expr.operand, right=item)))
        if constants:
            parts.append(self._among(self.value(expr.operand), self._sorted(constants, dtype), dtype))
        return self._join(opcodes.OR, parts)

    def _sorted(self, constants: list[Literal], dtype: DType) -> tuple[int, ...]:
        """Distinct items as words, ascending by value."""
        if dtype is DType.FLOAT64:
            return tuple(bits(value) for value in sorted({cast("float", item.value) for item in constants}))
        return tuple(sorted({self._bits(item.value, dtype) for item in constants}))

    def _like(self, expr: Like) -> int:
        return self.graph.add(
            opcodes.LIKE, "truth", (self.value(expr.operand),), (self.graph.pattern(expr.pattern),)
        )

    def _is_null(self, operand: Expr) -> int:
        if operand.dtype in ELEMENTS:
            return self._is_null_list(operand)
        return self.graph.add(_NULL[space_of(operand.dtype)], "truth", (self.value(operand),))

    def _is_null_list(self, operand: Expr) -> int:
        match operand:
            case Ref():
                place = self.graph.list(operand.name, operand.dtype)
                return self.graph.add(opcodes.NULL_L, "truth", leading=(place,))
            case Call():
                return self._join(opcodes.AND, [self._is_null_list(arg) for arg in operand.args])
            case Case():
                branches = tuple((condition, IsNull(operand=value)) for condition, value in operand.branches)
                default = IsNull(operand=operand.default)
                return self.value(Case(branches=branches, default=default, dtype=DType.BOOL))
            case _:
                return self.graph.truth(True)

    def _contains(self, items: Expr, wanted: Expr) -> int:
        """Look into the list that an expression of list type chooses."""
        match items:
            case Ref():
                operand = self.value(wanted)
                kind = _CONTAINS[space_of(ELEMENTS[items.dtype])]
                place = self.graph.list(items.name, items.dtype)
                return self.graph.add(kind, "truth", (operand,), leading=(place,))
            case Case():
                branches = tuple((condition, _contains(value, wanted)) for condition, value in items.branches)
                default = _contains(items.default, wanted)
                return self.value(Case(branches=branches, default=default, dtype=DType.BOOL))
            case Call():
                tries = tuple(
                    (Not(operand=IsNull(operand=arg)), _contains(arg, wanted)) for arg in items.args
                )
                unknown = Literal(value=None, dtype=DType.BOOL)
                return self.value(Case(branches=tries, default=unknown, dtype=DType.BOOL))
            case _:
                return self.graph.truth(None)

    def _case(self, expr: Case) -> int:
        space = space_of(expr.dtype)
        value = self.value(expr.default)
        for condition, chosen in reversed(expr.branches):
            args = (self.value(condition), self.value(chosen), value)
            value = self.graph.add(_SELECT[space], space, args)
        return value

    def _arithmetic(self, expr: Arithmetic) -> int:
        args = (self.value(expr.left), self.value(expr.right))
        if expr.dtype is DType.FLOAT64:
            return self.graph.add(_FLOATS[expr.op], "float", args)
        return self.graph.add(_INTS[expr.op], "int", args)

    def _of_number(self, operand: Expr, int_kind: int, float_kind: int) -> int:
        if operand.dtype is DType.FLOAT64:
            return self.graph.add(float_kind, "float", (self.value(operand),))
        return self.graph.add(int_kind, "int", (self.value(operand),))

    def _call(self, expr: Call) -> int:
        match expr.function:
            case "contains":
                return self._contains(expr.args[0], expr.args[1])
            case "bucket":
                return self._bucket(expr)
            case "abs":
                return self._of_number(expr.args[0], opcodes.ABS_I, opcodes.ABS_F)
            case "round" | "floor":
                return self._integral(expr)
            case _:
                return self._folded(expr)

    def _integral(self, expr: Call) -> int:
        operand = self.value(expr.args[0])
        if expr.dtype is not DType.FLOAT64:
            return operand
        kind = opcodes.ROUND_F if expr.function == "round" else opcodes.FLOOR_F
        return self.graph.add(kind, "float", (operand,))

    def _folded(self, expr: Call) -> int:
        """coalesce, least and greatest, two arguments at a time."""
        space = space_of(expr.dtype)
        kind = _COALESCE[space] if expr.function == "coalesce" else _EXTREMES.get((expr.function, space))
        first, *others = (self.value(arg) for arg in expr.args)
        for other in others:
            if kind is None:
                return self.graph.truth(None)
            first = self.graph.add(kind, space, (first, other))
        return first

    def _bucket(self, expr: Call) -> int:
        unit, salt, count = expr.args
        text, size = cast("Literal", salt).value, cast("Literal", count).value
        operand, words = self.value(unit), cast("int", size)
        if unit.dtype is DType.STRING:
            column = self.graph.salt(cast("str", text))
            return self.graph.add(opcodes.BUCKET_TEXT, "int", (operand,), (column, words))
        data = cast("str", text).encode(errors="surrogatepass")
        return self.graph.add(opcodes.BUCKET_I, "int", (operand,), (Pool((len(data), *data)), words))


def _contains(items: Expr, wanted: Expr) -> Call:
    return Call(function="contains", args=(items, wanted), dtype=DType.BOOL)


def _before_now_us(expr: Expr) -> int | None:
    """How long before now() an expression's value lies, in µs, if that is a constant."""
    match expr:
        case Now():
            return 0
        case Arithmetic(op="-", left=Now(), right=Literal(value=int(back_us), dtype=DType.INTERVAL)):
            return back_us
        case Arithmetic(op="+", left=Now(), right=Literal(value=int(ahead_us), dtype=DType.INTERVAL)):
            return -ahead_us if ahead_us > INT64_MIN else None
        case _:
            return None


def _zone(zone: Zone) -> Pool:
    return Pool((len(zone.transitions_us), *zone.transitions_us, *zone.offsets_s))
