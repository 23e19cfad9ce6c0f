"""Simplification: rewrites from tree to tree that never change a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from operator import is_not
from typing import Final

from decision.lang.interpreter import evaluate
from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Case,
    Compare,
    Expr,
    In,
    Literal,
    Now,
    Or,
    Ref,
    children,
)

Rewrite = Callable[[Expr], Expr]
JUNCTIONS: Final = (And, Or)


def with_children(expr: Expr, parts: tuple[Expr, ...]) -> Expr:
    """The same node over other operands, given in the order of `syntax.children`."""
    match expr:
        case Literal() | Ref() | Now():
            return expr
        case And() | Or():
            return replace(expr, operands=parts)
        case Compare() | Arithmetic():
            return replace(expr, left=parts[0], right=parts[1])
        case In():
            return replace(expr, operand=parts[0], items=parts[1:])
        case Case():
            branches = tuple(zip(parts[:-1:2], parts[1:-1:2], strict=True))
            return replace(expr, branches=branches, default=parts[-1])
        case Call():
            return replace(expr, args=parts)
        case _:
            return replace(expr, operand=parts[0])


def bottom_up(rewrite: Rewrite) -> Rewrite:
    """Apply a rewrite to every node, operands first; untouched subtrees are kept as they are."""

    def run(expr: Expr) -> Expr:
        before = children(expr)
        after = tuple(map(run, before))
        changed = any(map(is_not, before, after))
        return rewrite(with_children(expr, after) if changed else expr)

    return run


def flatten(expr: Expr) -> Expr:
    """`(a AND b) AND c` is `a AND b AND c`; the same for OR."""
    if not isinstance(expr, JUNCTIONS) or not any(type(part) is type(expr) for part in expr.operands):
        return expr
    nested = (part.operands if type(part) is type(expr) else (part,) for part in expr.operands)
    return replace(expr, operands=tuple(chain.from_iterable(nested)))


def fold_constants(expr: Expr) -> Expr:
    """An operator over constants alone is a constant."""
    parts = children(expr)
    if not parts or not all(isinstance(part, Literal) for part in parts):
        return expr
    return Literal(value=evaluate(expr, {}, 0), dtype=expr.dtype, span=expr.span)


def drop_neutral(expr: Expr) -> Expr:
    """TRUE in an AND and FALSE in an OR say nothing, the opposite says everything."""
    if not isinstance(expr, JUNCTIONS):
        return expr
    known = [part.value for part in expr.operands if isinstance(part, Literal)]
    neutral = isinstance(expr, And)
    if (not neutral) in known:
        return Literal(value=not neutral, dtype=expr.dtype, span=expr.span)
    if neutral not in known:
        return expr
    kept = tuple(part for part in expr.operands if not (isinstance(part, Literal) and part.value is neutral))
    if not kept:
        return Literal(value=neutral, dtype=expr.dtype, span=expr.span)
    return kept[0] if len(kept) == 1 else replace(expr, operands=kept)


def _simplified(expr: Expr) -> Expr:
    return flatten(drop_neutral(fold_constants(expr)))


simplify: Final = bottom_up(_simplified)
"""The tree with constants worked out, neutral operands dropped, and nested ANDs and ORs joined; of the same value.

One pass, as each makes work for the others further up.
"""
