"""Findings about a policy that compiles: what is always so, never so, in vain, or against something else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from decision.lang.findings import Code, Finding, finding
from decision.lang.limits import CASES_MAX
from decision.lang.logic import Outcome, alternatives, can_fail, can_follow, can_hold
from decision.lang.pairs import check_pairs
from decision.lang.syntax import And, Case, Compare, Expr, In, Or, walk
from decision.lang.types import is_null
from decision.policy import Pin, Policy, Show

Check = Callable[[Policy], Iterator[Finding]]


def check(policy: Policy, *, whole: bool = True) -> Iterator[Finding]:
    """Run every check.

    Args:
        policy: What was read.
        whole: Whether that is all there is. Where declarations are missing because of errors in them, what is there is
            checked all the same, but nothing is said to be missing.
    """
    for run in CHECKS:
        yield from run(policy)
    if whole:
        yield from check_showable(policy)


def conditions(policy: Policy) -> Iterator[tuple[str, Expr]]:
    """Every condition with what it belongs to."""
    for segment in policy.segments:
        yield f"segment `{segment.name}`", segment.condition
    for offer in policy.offers:
        if offer.when is not None:
            yield f"offer `{offer.name}`", offer.when
    for rule in policy.rules:
        yield f"rule `{rule.name}`", rule.condition


@functools.lru_cache(maxsize=32_768)
def is_sound(condition: Expr) -> bool:
    """Whether there is nothing to find in a condition by itself. Kept by tree: most are as they were."""
    return not any(chain(_constants(condition, "", ""), _branches(condition, "")))


def check_constant(policy: Policy) -> Iterator[Finding]:
    """Conditions, and alternatives in them, that are always or never true."""
    for owner, condition in conditions(policy):
        if not is_sound(condition):
            yield from _constants(condition, owner, f"the condition of {owner}")


def _constants(condition: Expr, owner: str, what: str) -> Iterator[Finding]:
    """The greatest parts that are always or never true."""
    if not can_hold(condition):
        hint = _null_hint(condition) or "look at its bounds, or remove it"
        yield finding(Code.ALWAYS_FALSE, f"{what} is never true", condition.span, hint)
    elif not can_fail(condition):
        hint = "remove it, or write what it should test"
        yield finding(Code.ALWAYS_TRUE, f"{what} is always true", condition.span, hint)
    elif isinstance(condition, And | Or):
        for part in condition.operands:
            if isinstance(part, And | Or) or _is_in_vain(part, within_and=isinstance(condition, And)):
                yield from _constants(part, owner, f"this part of {owner}")


def _is_in_vain(part: Expr, *, within_and: bool) -> bool:
    """Whether a part that is no AND or OR decides nothing; one that decides all was found with the whole."""
    outcomes: tuple[Outcome, ...] = ("false", "null") if within_and else ("true",)
    return not any(alternatives(part, outcome) != () for outcome in outcomes)


def _null_hint(condition: Expr) -> str | None:
    for node in walk(condition):
        if isinstance(node, Compare) and (is_null(node.left) or is_null(node.right)):
            return "write IS NULL"
        if isinstance(node, In) and any(map(is_null, node.items)):
            return "take NULL out of the list, and write IS NULL beside it if that is meant"
    return None


def check_branches(policy: Policy) -> Iterator[Finding]:
    """Branches of CASE that an earlier one always takes first."""
    for owner, condition in conditions(policy):
        if not is_sound(condition):
            yield from _branches(condition, owner)


def _branches(condition: Expr, owner: str) -> Iterator[Finding]:
    for node in walk(condition):
        if isinstance(node, Case):
            yield from _dead_branches(node, owner)


def _dead_branches(case: Case, owner: str) -> Iterator[Finding]:
    tests = [test for test, _ in case.branches[:CASES_MAX]]
    for index, test in enumerate(tests):
        if not can_follow(tests[:index], test):
            span = test.span
            yield finding(
                Code.UNREACHABLE, f"this WHEN of {owner} is never taken", span, "an earlier WHEN covers it"
            )


def check_rule_reach(policy: Policy) -> Iterator[Finding]:
    """Rules, or their ELSE, that can never act."""
    for rule in policy.rules:
        since, until = rule.active_from_us, rule.active_until_us
        if since is not None and until is not None and since >= until:
            message = f"rule `{rule.name}` ends before it begins"
            yield finding(Code.UNREACHABLE, message, rule.span, "exchange FROM and UNTIL")
        if rule.otherwise and not can_fail(rule.condition):
            yield finding(
                Code.UNREACHABLE, f"the ELSE of rule `{rule.name}` never acts", rule.span, "remove it"
            )


def check_showable(policy: Policy) -> Iterator[Finding]:
    """Offers that no placement, rule or fallback can show."""
    tags, names = _shown(policy)
    for offer in policy.offers:
        if offer.name not in names and tags.isdisjoint(offer.tags):
            message = f"nothing can show the offer `{offer.name}`"
            hint = "name it or one of its tags among the candidates of a placement, or show it by a rule"
            yield finding(Code.UNSHOWABLE_OFFER, message, offer.span, hint)


def _shown(policy: Policy) -> tuple[set[str], set[str]]:
    """Tags and names of offers that something can show."""
    selectors = [selector for placement in policy.placements for selector in placement.candidates]
    tags = {selector.tag for selector in selectors if selector.tag is not None}
    names = {selector.offer for selector in selectors if selector.offer is not None}
    names |= {name for placement in policy.placements for name in placement.fallback}
    actions = (action for rule in policy.rules for action in (*rule.actions, *rule.otherwise))
    names |= {action.offer for action in actions if isinstance(action, Show | Pin)}
    return tags, names


CHECKS: Final[tuple[Check, ...]] = (
    check_constant,
    check_branches,
    check_rule_reach,
    check_pairs,
)
