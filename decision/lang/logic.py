"""Whether conditions can hold: alone, together, or one without the other.

A condition is expanded into alternatives, each a conjunction that gives some expressions a `Domain`. What compares an
expression with a constant is understood; everything else counts as unknown, but is the same unknown wherever it
occurs. An alternative with an empty domain cannot be. The expansion is bounded, and beyond the bound the answer is
"perhaps", so a finding made here is true, and some that could be made are not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Literal as OneOf
from typing import cast

from decision.lang.domains import (
    MIRRORED,
    NOT_NULL,
    NULL,
    OPPOSITE,
    Domain,
    among,
    natural,
    outside,
    satisfying,
)
from decision.lang.limits import CASES_MAX
from decision.lang.syntax import And, Compare, Expr, In, IsNull, Literal, Not, Or
from decision.schema import Scalar

Outcome = OneOf["true", "false", "null"]
Facts = Mapping[Expr, Domain]
Alternatives = tuple[Facts, ...] | None
"""Ways in which something can be; none at all is impossible, None is too many to tell."""

FLIPPED: dict[Outcome, Outcome] = {"true": "false", "false": "true", "null": "null"}


@functools.lru_cache(maxsize=32_768)
def can_hold(*conditions: Expr) -> bool:
    """Whether all of them may be TRUE at once."""
    return _possible([alternatives(condition, "true") for condition in conditions])


@functools.lru_cache(maxsize=32_768)
def can_fail(condition: Expr) -> bool:
    """Whether it may be FALSE or NULL."""
    return _may(condition, "false") or _may(condition, "null")


def _may(expr: Expr, outcome: Outcome) -> bool:
    """Whether it can come out so: one way is enough, where `alternatives` would list them all."""
    match expr:
        case Not():
            return _may(expr.operand, FLIPPED[outcome])
        case And() if outcome == "false":
            return any(_may(operand, outcome) for operand in expr.operands)
        case Or() if outcome == "true":
            return any(_may(operand, outcome) for operand in expr.operands)
        case _:
            return _possible([alternatives(expr, outcome)])


def implies(condition: Expr, other: Expr) -> bool:
    """Whether the other is surely TRUE whenever the condition is."""
    return not _possible([alternatives(condition, "true"), not_true(other)])


def can_follow(earlier: Iterable[Expr], condition: Expr) -> bool:
    """Whether a condition may be TRUE where none of the earlier ones is."""
    return _possible([*map(not_true, earlier), alternatives(condition, "true")])


def not_true(condition: Expr) -> Alternatives:
    """Ways in which a condition is FALSE or NULL."""
    return _either([alternatives(condition, "false"), alternatives(condition, "null")])


def _possible(groups: Iterable[Alternatives]) -> bool:
    """Whether one combination is possible: of the longest group the first that fits is enough."""
    known = sorted((group for group in groups if group is not None), key=len)
    if not known:
        return True
    together = _both(known[:-1])
    return together is None or any(_join(a, b) is not None for a in together for b in known[-1])


@functools.lru_cache(maxsize=32_768)
def alternatives(expr: Expr, outcome: Outcome) -> Alternatives:
    """Ways in which a condition comes out so. Kept by tree, since rules share conditions and are compared in pairs."""
    match expr:
        case Literal():
            return (
                ({},)
                if {True: "true", False: "false", None: "null"}[cast("bool", expr.value)] == outcome
                else ()
            )
        case Not():
            return alternatives(expr.operand, FLIPPED[outcome])
        case And():
            return _conjunction(expr.operands, outcome, decisive="false")
        case Or():
            return _conjunction(expr.operands, outcome, decisive="true")
        case IsNull():
            return _is_null(expr, outcome)
        case Compare():
            return _comparison(expr, outcome)
        case In():
            return _membership(expr, outcome)
        case _:
            return _fact(expr, _truth(outcome))


def _truth(outcome: Outcome) -> Domain:
    return NULL if outcome == "null" else among(frozenset({outcome == "true"}))


def _fact(expr: Expr, domain: Domain) -> Alternatives:
    within = domain.meet(natural(expr))
    return () if within.empty else ({expr: within},)


def _conjunction(operands: tuple[Expr, ...], outcome: Outcome, *, decisive: Outcome) -> Alternatives:
    """AND, or OR read as its mirror: one decisive operand decides, all others together give the opposite."""
    rest = FLIPPED[decisive]
    if outcome == decisive:
        return _either([alternatives(operand, decisive) for operand in operands])
    if outcome == rest:
        return _both([alternatives(operand, rest) for operand in operands])
    undecided = [_either([alternatives(part, rest), alternatives(part, "null")]) for part in operands]
    return _both([*undecided, _either([alternatives(part, "null") for part in operands])])


def _is_null(expr: IsNull, outcome: Outcome) -> Alternatives:
    operand = expr.operand
    if outcome == "null":
        return ()
    if not isinstance(operand, Not | And | Or | Compare | In):
        return _fact(operand, NULL if outcome == "true" else NOT_NULL)
    if outcome == "true":
        return alternatives(operand, "null")
    return _either([alternatives(operand, "true"), alternatives(operand, "false")])


def _comparison(expr: Compare, outcome: Outcome) -> Alternatives:
    left, right, op = expr.left, expr.right, expr.op
    if isinstance(left, Literal):
        left, right, op = right, left, MIRRORED[op]
    if not isinstance(right, Literal):
        return _fact(expr, _truth(outcome))
    if right.value is None:
        return ({},) if outcome == "null" else ()
    if outcome == "null":
        return _fact(left, NULL)
    holds = op if outcome == "true" else OPPOSITE[op]
    return _fact(left, satisfying(holds, cast("Scalar", right.value), left.dtype))


def _membership(expr: In, outcome: Outcome) -> Alternatives:
    items = [item.value for item in expr.items if isinstance(item, Literal)]
    if len(items) < len(expr.items):
        return _fact(expr, _truth(outcome))
    operand, values = (
        expr.operand,
        frozenset(cast("list[Scalar]", [item for item in items if item is not None])),
    )
    if outcome == "true":
        return _fact(operand, among(values))
    elsewhere = _fact(operand, outside(values))
    if None not in items:
        return _fact(operand, NULL) if outcome == "null" else elsewhere
    return _either([_fact(operand, NULL), elsewhere]) if outcome == "null" else ()


def _either(groups: Iterable[Alternatives]) -> Alternatives:
    ways: list[Facts] = []
    for group in groups:
        if group is None:
            return None
        ways += group
    return tuple(ways) if len(ways) <= CASES_MAX else None


def _both(groups: Iterable[Alternatives]) -> Alternatives:
    """Every combination that is possible. A group that is too many to tell only makes the answer less sharp."""
    known = [group for group in groups if group is not None]
    together: tuple[Facts, ...] = ({},)
    for group in sorted(known, key=len):
        joined = (both for a in together for b in group if (both := _join(a, b)) is not None)
        together = tuple(islice(joined, CASES_MAX + 1))
        if len(together) > CASES_MAX:
            return None
    return together


def _join(a: Facts, b: Facts) -> Facts | None:
    """Both conjunctions as one, or None where they exclude each other."""
    joined = dict(a)
    for expr, domain in b.items():
        within = joined[expr].meet(domain) if expr in joined else domain
        if within.empty:
            return None
        joined[expr] = within
    return joined
