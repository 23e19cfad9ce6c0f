"""Simplification: passes from tree to tree that never change a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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

Pass = Callable[[Expr], Expr]


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


def bottom_up(rewrite: Pass) -> Pass:
    """Apply a rewrite to every node, operands first; untouched subtrees are kept as they are."""

    def run(expr: Expr) -> Expr:
        before = children(expr)
        after = tuple(map(run, before))
        same = all(a is b for a, b in zip(before, after, strict=True))
        return rewrite(expr if same else with_children(expr, after))

    return run


def flatten(expr: Expr) -> Expr:
    """`(a AND b) AND c` is `a AND b AND c`; the same for OR."""
    if not isinstance(expr, And | Or) or not any(
        isinstance(operand, type(expr)) for operand in expr.operands
    ):
        return expr
    nested = (part.operands if isinstance(part, type(expr)) else (part,) for part in expr.operands)
    return replace(expr, operands=tuple(operand for group in nested for operand in group))


def fold_constants(expr: Expr) -> Expr:
    """An operator over constants alone is a constant."""
    parts = children(expr)
    if not parts or not all(isinstance(part, Literal) for part in parts):
        return expr
    return Literal(value=evaluate(expr, {}, 0), dtype=expr.dtype, span=expr.span)


def drop_neutral(expr: Expr) -> Expr:
    """TRUE in an AND and FALSE in an OR say nothing, the opposite says everything."""
    if not isinstance(expr, And | Or):
        return expr
    neutral = isinstance(expr, And)
    if any(isinstance(operand, Literal) and operand.value is (not neutral) for operand in expr.operands):
        return Literal(value=not neutral, dtype=expr.dtype, span=expr.span)
    kept = tuple(part for part in expr.operands if not (isinstance(part, Literal) and part.value is neutral))
    if len(kept) == len(expr.operands):
        return expr
    if not kept:
        return Literal(value=neutral, dtype=expr.dtype, span=expr.span)
    return kept[0] if len(kept) == 1 else replace(expr, operands=kept)


PASSES: Final[tuple[Pass, ...]] = (
    bottom_up(lambda expr: drop_neutral(fold_constants(expr))),
    bottom_up(flatten),
)
"""In this order; each is complete by itself, so a shorter tuple is a valid compiler too.

Folding and dropping are one pass, as each makes work for the other further up.
"""


def simplify(expr: Expr, passes: tuple[Pass, ...] = PASSES) -> Expr:
    """Run the passes."""
    for run in passes:
        expr = run(expr)
    return expr
