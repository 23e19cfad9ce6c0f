"""The typed syntax tree of conditions.

Every node is immutable, hashable and carries its type and its place in the source. Places do not count in
comparisons, so equal conditions from different lines are equal. Names are bound: a `Ref` holds the canonical name
under which a row maps the value, and conversions between number types are explicit (`ToFloat`), so evaluators never
look at types to decide what an operator means beyond the node's own `dtype`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from types import MemberDescriptorType
from typing import Any, Final, NamedTuple, TypeVar, cast
from typing import Literal as OneOf

from decision.schema import DType, Value

CompareOp = OneOf["=", "<>", "<", "<=", ">", ">="]
ArithmeticOp = OneOf["+", "-", "*", "/", "%"]
FunctionName = OneOf["coalesce", "abs", "least", "greatest", "round", "floor", "contains", "bucket"]
PartName = OneOf["year", "month", "day", "weekday", "day_of_year", "hour", "minute", "second"]


class Span(NamedTuple):
    """A stretch of source text; lines and columns count from 1, the end column is the one after the last character."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def moved(self, file: str, lines: int) -> Span:
        """The same stretch in another file, so many lines further down."""
        return Span(file, self.line + lines, self.column, self.end_line + lines, self.end_column)


NOWHERE = Span("", 1, 1, 1, 1)
"""The place of nodes that no source text stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A time zone with its transitions in it, so that evaluation needs no time zone database.

    Attributes:
        name: IANA name, such as Europe/Berlin.
        transitions_us: Instants from 1970 to 2100 at which the offset changes, ascending, in µs since the epoch.
        offsets_s: Seconds east of UTC; entry i holds from transition i - 1 on, so there is one more than transitions.
    """

    name: str
    transitions_us: tuple[int, ...] = ()
    offsets_s: tuple[int, ...] = (0,)


UTC = Zone(name="UTC")


class _Node:
    """Shared by all nodes: room for the hash, which is worked out once, since trees are keys in many tables."""

    __slots__ = ("_hash",)


N = TypeVar("N", bound=_Node)


def _hashed_once(node: type[N]) -> type[N]:
    """Keep a node's hash beside its fields, where neither comparing nor pickling sees it."""
    work_out = cast("Callable[[N], int]", node.__hash__)

    def kept_hash(self: N) -> int:
        try:
            return self._hash  # type: ignore[no-any-return, attr-defined]
        except AttributeError:
            value = work_out(self)
            object.__setattr__(self, "_hash", value)
            return value

    node.__hash__ = kept_hash  # type: ignore[assignment, method-assign]
    return node


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Literal(_Node):
    """A constant; None is NULL. Timestamps and intervals are int microseconds."""

    value: Value
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Ref(_Node):
    """A value of the row by canonical name: `view.feature`, `context.NAME` or `offer.NAME`."""

    name: str
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Now(_Node):
    """`now()`, the instant of evaluation."""

    span: Span = field(default=NOWHERE, compare=False)

    @property
    def dtype(self) -> DType:
        return DType.TIMESTAMP


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class ToFloat(_Node):
    """An int64 read as float64, rounded to nearest even."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def dtype(self) -> DType:
        return DType.FLOAT64


class _Condition(_Node):
    """Shared by nodes whose value is TRUE, FALSE or NULL."""

    __slots__ = ()

    @property
    def dtype(self) -> DType:
        return DType.BOOL


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Not(_Condition):
    """`NOT operand`."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class And(_Condition):
    """All of two or more operands."""

    operands: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Or(_Condition):
    """Any of two or more operands."""

    operands: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Compare(_Condition):
    """A comparison of two scalars of one type."""

    op: CompareOp
    left: Expr
    right: Expr
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class In(_Condition):
    """`operand IN (items)`, all of one type."""

    operand: Expr
    items: tuple[Expr, ...]
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Like(_Condition):
    """`operand LIKE pattern`: % is any text, _ any one code point, nothing is escaped."""

    operand: Expr
    pattern: str
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class IsNull(_Condition):
    """`operand IS NULL`; never NULL itself."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Case(_Node):
    """The value beside the first condition that is TRUE, else the default."""

    branches: tuple[tuple[Expr, Expr], ...]
    default: Expr
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic(_Node):
    """`left op right`. Numbers are both of `dtype`; timestamps and intervals mix as `docs/rules.md` says."""

    op: ArithmeticOp
    left: Expr
    right: Expr
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Negate(_Node):
    """`-operand` of an int64, float64 or interval."""

    operand: Expr
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def dtype(self) -> DType:
        return self.operand.dtype


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Node):
    """A function of its arguments alone."""

    function: FunctionName
    args: tuple[Expr, ...]
    dtype: DType
    span: Span = field(default=NOWHERE, compare=False)


@_hashed_once
@dataclass(frozen=True, slots=True, kw_only=True)
class DatePart(_Node):
    """A part of a timestamp as a clock and calendar of the zone show it."""

    part: PartName
    operand: Expr
    zone: Zone = UTC
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def dtype(self) -> DType:
        return DType.INT64


Expr = (
    Literal
    | Ref
    | Now
    | ToFloat
    | Not
    | And
    | Or
    | Compare
    | In
    | Like
    | IsNull
    | Case
    | Arithmetic
    | Negate
    | Call
    | DatePart
)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of a node, in evaluation order."""
    return _CHILDREN[type(expr)](expr)


def _none(_leaf: Any) -> tuple[Expr, ...]:
    return ()


def _one(node: Any) -> tuple[Expr, ...]:
    return (node.operand,)


_CHILDREN: Final[dict[type, Callable[[Any], tuple[Expr, ...]]]] = {
    **dict.fromkeys((Literal, Ref, Now), _none),
    **dict.fromkeys((ToFloat, Not, Like, IsNull, Negate, DatePart), _one),
    **dict.fromkeys((And, Or), attrgetter("operands")),
    **dict.fromkeys((Compare, Arithmetic), attrgetter("left", "right")),
    In: lambda node: (node.operand, *node.items),
    Case: lambda node: (*chain.from_iterable(node.branches), node.default),
    Call: attrgetter("args"),
}


def walk(expr: Expr) -> Iterator[Expr]:
    """The node and everything below it, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def references(expr: Expr) -> frozenset[str]:
    """Canonical names that the expression reads."""
    return frozenset(node.name for node in walk(expr) if isinstance(node, Ref))


def uses_now(expr: Expr) -> bool:
    """Whether the value can change through time alone."""
    return any(isinstance(node, Now) for node in walk(expr))


def moved(expr: E, file: str, lines: int) -> E:
    """The same tree as if its text stood in another file, so many lines further down."""
    kind: Any = type(expr)
    node: E = object.__new__(kind)
    for get, put, move in _members(kind):
        try:
            value = get(expr)
        except AttributeError:  # the hash, where nothing has asked for it yet
            continue
        put(node, value if move is None else move(value, file, lines))
    return node


def _moved_all(parts: tuple[Expr, ...], file: str, lines: int) -> tuple[Expr, ...]:
    return tuple([moved(part, file, lines) for part in parts])


def _moved_branches(branches: tuple[tuple[Expr, Expr], ...], file: str, lines: int) -> tuple[object, ...]:
    return tuple([_moved_all(branch, file, lines) for branch in branches])


E = TypeVar("E", bound=Expr)
Move = Callable[[Any, str, int], object]
_MOVES: Final[dict[str, Move]] = {
    **dict.fromkeys(("operand", "left", "right", "default"), moved),
    **dict.fromkeys(("operands", "items", "args"), _moved_all),
    "branches": _moved_branches,
    "span": Span.moved,
}
"""How what a node holds is moved, by name; everything else stays as it is."""
Member = tuple[Callable[[object], Any], Callable[[object, Any], None], Move | None]


@functools.cache
def _members(node: type[_Node]) -> tuple[Member, ...]:
    """Getter, setter and move of all that a kind of node holds; to make nodes by these takes half the time."""
    found = (member for kind in node.__mro__ for member in vars(kind).values())
    members = (member for member in found if isinstance(member, MemberDescriptorType))
    return tuple((member.__get__, member.__set__, _MOVES.get(member.__name__)) for member in members)
