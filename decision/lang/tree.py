"""The untyped tree of one declaration, as the parser reads it.

Places are offsets into the declaration's own text, so that the tree of an unchanged declaration can be kept however
far it moves in its file.
"""

from __future__ import annotations

from dataclasses import dataclass

from decision.schema import Scalar

At = tuple[int, int]
"""Start and end offset in the declaration's text."""


@dataclass(frozen=True, slots=True)
class Word:
    """A name or a string with its place."""

    text: str
    at: At


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: bool, int, float, str or NULL. `decimal` is its spelling where it is a number."""

    value: Scalar | None
    at: At


@dataclass(frozen=True, slots=True)
class Duration:
    """An exact stretch of time; None where it is no whole number of microseconds or out of range."""

    value_us: int | None
    at: At


@dataclass(frozen=True, slots=True)
class Path:
    """One name or several joined by dots."""

    parts: tuple[str, ...]
    at: At


@dataclass(frozen=True, slots=True)
class Invoke:
    """`name(args)`."""

    name: Word
    args: tuple[Node, ...]
    at: At


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator on operands; `op` is its upper-case spelling, NEG for a sign."""

    op: str
    operands: tuple[Node, ...]
    at: At


@dataclass(frozen=True, slots=True)
class Choice:
    """CASE: pairs of condition and value, and the default."""

    branches: tuple[tuple[Node, Node], ...]
    default: Node | None
    at: At


Node = Constant | Duration | Path | Invoke | Operation | Choice


@dataclass(frozen=True, slots=True)
class Target:
    """A choice of offers in an action or list: by name, or by tag."""

    word: Word
    is_tag: bool


@dataclass(frozen=True, slots=True)
class ActionCall:
    """An action of a rule with its arguments."""

    name: Word
    args: tuple[Word | Constant | Target, ...]
    at: At


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a placement or offer: its kind and what it holds, in order."""

    kind: str
    parts: tuple[object, ...]
    at: At


@dataclass(frozen=True, slots=True)
class SegmentDecl:
    """`segment NAME "description" at least DWELL: condition`."""

    name: Word
    description: str
    condition: Node
    dwell: Duration | None


@dataclass(frozen=True, slots=True)
class PlacementDecl:
    """`placement NAME: clauses`."""

    name: Word
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class OfferDecl:
    """`offer NAME (keys): clauses`."""

    name: Word
    keys: tuple[tuple[Word, Constant], ...]
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class CapDecl:
    """`cap NAME on PLACEMENT: at most N in WINDOW per customer per … counted by view.feature`."""

    name: Word
    placement: Word | None
    limit: Constant
    window: Duration
    per_customer: bool
    target: Target | None
    counter: Path


@dataclass(frozen=True, slots=True)
class RuleDecl:
    """`rule NAME on PLACEMENT …: IF condition THEN actions ELSE otherwise`."""

    name: Word
    placement: Word
    priority: Constant | None
    active_from: Word | None
    active_until: Word | None
    condition: Node
    actions: tuple[ActionCall, ...]
    otherwise: tuple[ActionCall, ...]


Decl = SegmentDecl | PlacementDecl | OfferDecl | CapDecl | RuleDecl


def operands(node: Node) -> tuple[Node, ...]:
    """The direct operands of a node."""
    match node:
        case Invoke():
            return node.args
        case Operation():
            return node.operands
        case Choice():
            parts = tuple(part for branch in node.branches for part in branch)
            return parts if node.default is None else (*parts, node.default)
        case _:
            return ()


def deeper_than(node: Node, levels: int) -> bool:
    """Whether the tree has more levels than that; needs no stack of its own depth."""
    level = [node]
    for _ in range(levels):
        level = [operand for parent in level for operand in operands(parent)]
        if not level:
            return False
    return True
