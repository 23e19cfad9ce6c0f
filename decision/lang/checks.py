"""Findings about a policy that compiles: what is always so, never so, in vain, or against something else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations, islice
from typing import Final

from decision.lang.findings import Code, Finding, Severity, finding
from decision.lang.limits import CASES_MAX, PAIRS_MAX, PROOFS_MAX
from decision.lang.logic import can_fail, can_follow, can_hold, implies
from decision.lang.syntax import And, Case, Compare, Expr, Or, Span, walk
from decision.lang.types import is_null
from decision.policy import (
    Action,
    Boost,
    Exclude,
    Include,
    Pin,
    Policy,
    Rule,
    Selector,
    Show,
    TagDecision,
)

Tags = dict[str, frozenset[str]]
"""Tags by offer."""
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


def check_constant(policy: Policy) -> Iterator[Finding]:
    """Conditions, and alternatives in them, that are always or never true."""
    for owner, condition in conditions(policy):
        whole = _constant(condition, f"the condition of {owner}")
        if whole is not None:
            yield whole
        elif isinstance(condition, And | Or):
            parts = (part for part in condition.operands if isinstance(part, And | Or))
            found = (_constant(part, f"this part of {owner}") for part in parts)
            yield from filter(None, found)


def _constant(condition: Expr, what: str) -> Finding | None:
    if not can_hold(condition):
        hint = "write IS NULL" if _compares_with_null(condition) else "look at its bounds, or remove it"
        return finding(Code.ALWAYS_FALSE, f"{what} is never true", condition.span, hint)
    if not can_fail(condition):
        hint = "remove it, or write what it should test"
        return finding(Code.ALWAYS_TRUE, f"{what} is always true", condition.span, hint)
    return None


def _compares_with_null(condition: Expr) -> bool:
    return any(
        isinstance(node, Compare) and any(is_null(side) for side in (node.left, node.right))
        for node in walk(condition)
    )


def check_branches(policy: Policy) -> Iterator[Finding]:
    """Branches of CASE that an earlier one always takes first."""
    for owner, condition in conditions(policy):
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


def check_pairs(policy: Policy) -> Iterator[Finding]:
    """Rules that are shadowed by a higher one, or contradict an equal one."""
    tags = {offer.name: frozenset(offer.tags) for offer in policy.offers}
    pairs = _related(policy)
    suspects = (
        suspect for pair in islice(pairs, PAIRS_MAX) if (suspect := _suspect(*pair, tags=tags)) is not None
    )
    proofs = (item for suspect in islice(suspects, PROOFS_MAX) for item in suspect())
    yield from _once_shadowed(proofs)
    if next(suspects, None) is not None or next(pairs, None) is not None:
        message = "so many rules are about the same offers that not all pairs were compared"
        span = policy.rules[0].span
        code = Code.BOUND_EXCEEDED
        yield Finding(severity=Severity.WARNING, code=code, message=message, suggestion="", span=span)


def _once_shadowed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One rule that shadows another is enough to say so."""
    seen: set[Span] = set()
    for item in findings:
        if item.code != Code.SHADOWED or item.span not in seen:
            yield item
        if item.code == Code.SHADOWED:
            seen.add(item.span)


Suspect = Callable[[], Iterator[Finding]]
"""The proof, yet to be made, that two rules are in each other's way."""


def _suspect(first: Rule, second: Rule, *, tags: Tags) -> Suspect | None:
    """What the actions alone make likely; comparing conditions costs a hundred times as much."""
    if first.priority == second.priority:
        return _suspect_contradiction(first, second, tags)
    high, low = (first, second) if first.priority > second.priority else (second, first)
    if not low.actions or low.otherwise or not _lasts(high, low):
        return None
    moot = all(any(_moot(action, above, tags) for above in high.actions) for action in low.actions)
    return partial(_shadow, high, low) if moot else None


def _related(policy: Policy) -> Iterator[tuple[Rule, Rule]]:
    """Pairs of rules of one placement, active at a common time, that speak of one offer or one position."""
    groups: dict[tuple[str, object], list[Rule]] = defaultdict(list)
    members: dict[str, list[str]] = defaultdict(list)
    for offer in policy.offers:
        for tag in offer.tags:
            members[tag].append(offer.name)
    for rule in policy.rules:
        for subject in dict.fromkeys(_subjects(rule, members)):
            groups[rule.placement, subject].append(rule)
    seen: set[tuple[str, str]] = set()
    for group in groups.values():
        for first, second in combinations(group, 2):
            pair = (first.name, second.name)
            if pair not in seen and _overlap(first, second):
                seen.add(pair)
                yield first, second


def _subjects(rule: Rule, members: dict[str, list[str]]) -> Iterator[object]:
    for action in rule.actions:
        match action:
            case Pin():
                yield action.position
                yield action.offer
            case Show():
                yield action.offer
            case Include() | Exclude():
                yield from _selected(action.selector, members)
            case Boost() | TagDecision():
                pass


def _selected(selector: Selector, members: dict[str, list[str]]) -> Iterable[str]:
    if selector.tag is not None:
        return members.get(selector.tag, ())
    return () if selector.offer is None else (selector.offer,)


def _overlap(first: Rule, second: Rule) -> bool:
    starts = [rule.active_from_us for rule in (first, second) if rule.active_from_us is not None]
    ends = [rule.active_until_us for rule in (first, second) if rule.active_until_us is not None]
    return not starts or not ends or max(starts) < min(ends)


def _suspect_contradiction(first: Rule, second: Rule, tags: Tags) -> Suspect | None:
    texts = (clashing(a, b, tags) for a in first.actions for b in second.actions)
    clash = next(filter(None, texts), None)
    return None if clash is None else partial(_contradiction, first, second, clash)


def _contradiction(first: Rule, second: Rule, clash: str) -> Iterator[Finding]:
    if can_hold(first.condition, second.condition):
        message = f"rules `{first.name}` and `{second.name}` can hold together and contradict: {clash}"
        hint = "give one a higher priority, or keep their conditions apart"
        yield finding(Code.CONTRADICTORY, message, second.span, hint)


def _shadow(high: Rule, low: Rule) -> Iterator[Finding]:
    if implies(low.condition, high.condition):
        message = f"rule `{low.name}` has no effect: `{high.name}` of higher priority always acts with it"
        yield finding(Code.SHADOWED, message, low.span, f"see {high.span}; change a condition or a priority")


def clashing(a: Action, b: Action, tags: Tags) -> str | None:
    """What two actions of equal priority cannot both have, in words, or None."""
    if isinstance(a, Pin) and isinstance(b, Pin):
        return _pins_clash(a, b)
    excluding, wanting = (a, b) if isinstance(a, Exclude) else (b, a)
    if not isinstance(excluding, Exclude):
        return None
    if isinstance(wanting, Show | Pin) and _covers(excluding.selector, wanting.offer, tags):
        verb = "shows" if isinstance(wanting, Show) else "pins"
        return f"one {verb} `{wanting.offer}`, the other excludes it"
    if isinstance(wanting, Include) and wanting.selector == excluding.selector != Selector():
        return f"one includes, the other excludes {wanting.selector.offer or wanting.selector.tag}"
    return None


def _pins_clash(a: Pin, b: Pin) -> str | None:
    if a.position == b.position and a.offer != b.offer:
        return f"both pin to position {a.position}"
    return f"`{a.offer}` is pinned twice" if a.offer == b.offer and a.position != b.position else None


def _covers(selector: Selector, offer: str, tags: Tags) -> bool:
    return offer == selector.offer or (selector.tag is not None and selector.tag in tags.get(offer, ()))


def _lasts(high: Rule, low: Rule) -> bool:
    """Whether the higher rule is active whenever the lower is."""
    starts = high.active_from_us is None or (
        low.active_from_us is not None and low.active_from_us >= high.active_from_us
    )
    ends = high.active_until_us is None or (
        low.active_until_us is not None and low.active_until_us <= high.active_until_us
    )
    return starts and ends


def _moot(action: Action, above: Action, tags: Tags) -> bool:
    """Whether an action changes nothing beside another of higher priority."""
    if isinstance(above, Exclude) and isinstance(action, Show | Pin):
        return _covers(above.selector, action.offer, tags)
    if isinstance(above, Exclude) and isinstance(action, Boost | Include | Exclude):
        return action.selector == above.selector or (
            action.selector.offer is not None and _covers(above.selector, action.selector.offer, tags)
        )
    if isinstance(above, Pin) and isinstance(action, Pin):
        return above.position == action.position
    return isinstance(action, Show | TagDecision | Include) and action == above


CHECKS: Final[tuple[Check, ...]] = (
    check_constant,
    check_branches,
    check_rule_reach,
    check_pairs,
)
