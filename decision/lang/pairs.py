"""Findings about pairs of rules: one that changes nothing beside a higher one, or contradicts an equal one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations, islice, product

from decision.lang.findings import Code, Finding, Severity, finding
from decision.lang.fold import bottom_up, simplify
from decision.lang.limits import ACTS_MAX, CASES_MAX, PAIRS_MAX, PROOFS_MAX
from decision.lang.logic import can_hold, implies
from decision.lang.syntax import Expr, IsNull, Literal, Not, Ref, Span
from decision.policy import (
    Action,
    Boost,
    Exclude,
    Include,
    Offer,
    Pin,
    Policy,
    Rule,
    Selector,
    Show,
    TagDecision,
)

Offers = Mapping[str, Offer]
"""By name."""


def check_pairs(policy: Policy) -> Iterator[Finding]:
    """Rules that are shadowed by a higher one, or contradict an equal one or themselves."""
    offers = {offer.name: offer for offer in policy.offers}
    pairs = _related(policy)
    suspects = (
        suspect for pair in islice(pairs, PAIRS_MAX) if (suspect := _suspect(*pair, offers)) is not None
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


def _suspect(first: Sided, second: Sided, offers: Offers) -> Suspect | None:
    """What the actions alone make likely; comparing conditions costs a hundred times as much."""
    one, other = first.rule, second.rule
    if one.priority == other.priority:
        return _suspect_contradiction(first, second, offers)
    high, low = (one, other) if one.priority > other.priority else (other, one)
    if not low.actions or low.otherwise or not _lasts(high, low):
        return None
    moot = all(any(_moot(action, above, offers) for above in high.actions) for action in low.actions)
    return partial(_shadow, high, low) if moot else None


def _related(policy: Policy) -> Iterator[tuple[Sided, Sided]]:
    """Pairs of rules of one placement, active at a common time, that speak of one offer or one position.

    Each rule is a pair with itself too, for what it says against itself.
    """
    groups: dict[tuple[str, object], list[Sided]] = defaultdict(list)
    members: dict[str, list[str]] = defaultdict(list)
    for offer in policy.offers:
        for tag in offer.tags:
            members[tag].append(offer.name)
    for sided in map(Sided.of, policy.rules):
        for subject in dict.fromkeys(_subjects(sided.rule, members)):
            groups[sided.rule.placement, subject].append(sided)
        if (sided.pins or sided.excludes) and any(len(side.actions) > 1 for side in sided.sides):
            yield sided, sided
    seen: set[tuple[str, str]] = set()
    for group in groups.values():
        for first, second in combinations(group, 2):
            pair = (first.rule.name, second.rule.name)
            if pair not in seen and _overlap(first.rule, second.rule):
                seen.add(pair)
                yield first, second


def _subjects(rule: Rule, members: dict[str, list[str]]) -> Iterator[object]:
    for action in (*rule.actions, *rule.otherwise):
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """What a rule does, and when: its actions where the condition holds, or those of its ELSE."""

    rule: Rule
    actions: tuple[Action, ...]
    holds: bool

    @property
    def ways(self) -> tuple[Expr, ...]:
        """Conditions of which one holds where it acts: FALSE is tried before NULL, which takes longer to tell."""
        holds = self.rule.condition
        return (holds,) if self.holds else (Not(operand=holds), IsNull(operand=holds))

    @property
    def title(self) -> str:
        return f"`{self.rule.name}`" if self.holds else f"`{self.rule.name}` (by its ELSE)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sided:
    """A rule with what pairs of it are told by at a glance, since most pairs are of no interest."""

    rule: Rule
    sides: tuple[Side, ...]
    pins: bool
    excludes: bool

    @classmethod
    def of(cls, rule: Rule) -> Sided:
        holds = Side(rule=rule, actions=rule.actions, holds=True)
        fails = Side(rule=rule, actions=rule.otherwise, holds=False)
        actions = (*rule.actions, *rule.otherwise)
        return cls(
            rule=rule,
            sides=(holds, fails) if rule.otherwise else (holds,),
            pins=any(isinstance(action, Pin) for action in actions),
            excludes=any(isinstance(action, Exclude) for action in actions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Two sides that demand what cannot be both: in words, and the offer that each speaks of."""

    sides: tuple[Side, Side]
    text: str
    offers: tuple[str, str]


def _suspect_contradiction(first: Sided, second: Sided, offers: Offers) -> Suspect | None:
    if not (first.excludes or second.excludes or (first.pins and second.pins)):
        return None
    clashes = _clashes(first, second, offers)
    clash = next(clashes, None)
    return None if clash is None else partial(_contradiction, chain([clash], clashes), offers)


def _clashes(first: Sided, second: Sided, offers: Offers) -> Iterator[Clash]:
    if first is second:  # it holds, or its ELSE acts
        for side in first.sides:
            yield from _clash(side, side, combinations(side.actions, 2), offers)
        return
    for one, other in product(first.sides, second.sides):
        yield from _clash(one, other, product(one.actions, other.actions), offers)


def _clash(one: Side, other: Side, pairs: Iterable[tuple[Action, Action]], offers: Offers) -> Iterator[Clash]:
    for a, b in islice(pairs, ACTS_MAX):
        found = clashing(a, b, offers)
        if found is not None:
            yield Clash(sides=(one, other), text=found[0], offers=found[1])


def _contradiction(clashes: Iterable[Clash], offers: Offers) -> Iterator[Finding]:
    tried = islice(clashes, CASES_MAX)
    clash = next((clash for clash in tried if _together(clash, offers)), None)
    if clash is None:
        return
    one, other = clash.sides
    if one.rule is other.rule:
        message, hint = f"rule {one.title} contradicts itself: {clash.text}", "leave one of them out"
    else:
        message = f"rules {one.title} and {other.title} can hold together and contradict: {clash.text}"
        hint = "give one a higher priority, or keep their conditions apart"
    yield finding(Code.CONTRADICTORY, message, other.rule.span, hint)


def _together(clash: Clash, offers: Offers) -> bool:
    """Whether both sides may act, each upon its offer."""
    one, other = (
        [_upon(way, offers.get(name)) for way in side.ways]
        for side, name in zip(clash.sides, clash.offers, strict=True)
    )
    return any(can_hold(*both) for both in product(one, other))


def _upon(condition: Expr, offer: Offer | None) -> Expr:
    """The condition as it is about one offer, whose attributes and tags are constants."""
    if offer is None:
        return condition

    def put(expr: Expr) -> Expr:
        if not isinstance(expr, Ref) or not expr.name.startswith("offer."):
            return expr
        name = expr.name.removeprefix("offer.")
        value = offer.tags if name == "tags" else offer.attributes.get(name)
        return Literal(value=value, dtype=expr.dtype, span=expr.span)

    about = bottom_up(put)(condition)
    return condition if about is condition else simplify(about)


def _shadow(high: Rule, low: Rule) -> Iterator[Finding]:
    if implies(low.condition, high.condition):
        message = f"rule `{low.name}` has no effect: `{high.name}` of higher priority always acts with it"
        yield finding(Code.SHADOWED, message, low.span, f"see {high.span}; change a condition or a priority")


def clashing(a: Action, b: Action, offers: Offers) -> tuple[str, tuple[str, str]] | None:
    """What two actions of equal priority cannot both have, in words, with the offer that each is about; or None."""
    if isinstance(a, Pin) and isinstance(b, Pin):
        text = _pins_clash(a, b)
        return None if text is None else (text, (a.offer, b.offer))
    excluding, wanting = (a, b) if isinstance(a, Exclude) else (b, a)
    if not isinstance(excluding, Exclude):
        return None
    if isinstance(wanting, Show | Pin) and _covers(excluding.selector, wanting.offer, offers):
        verb = "shows" if isinstance(wanting, Show) else "pins"
        return f"one {verb} `{wanting.offer}`, the other excludes it", (wanting.offer, wanting.offer)
    if isinstance(wanting, Include) and _unmakes(excluding.selector, wanting.selector, offers):
        named = wanting.selector.offer or ""
        return f"one includes, the other excludes {named or wanting.selector.tag}", (named, named)
    return None


def _pins_clash(a: Pin, b: Pin) -> str | None:
    if a.position == b.position and a.offer != b.offer:
        return f"both pin to position {a.position}"
    return f"`{a.offer}` is pinned twice" if a.offer == b.offer and a.position != b.position else None


def _unmakes(excluded: Selector, included: Selector, offers: Offers) -> bool:
    """Whether nothing is left of what is included; a tag but for one of its offers is no contradiction."""
    if included.offer is not None:
        return _covers(excluded, included.offer, offers)
    return included == excluded != Selector()


def _covers(selector: Selector, offer: str, offers: Offers) -> bool:
    return offer == selector.offer or (offer in offers and selector.tag in offers[offer].tags)


def _lasts(high: Rule, low: Rule) -> bool:
    """Whether the higher rule is active whenever the lower is."""
    starts = high.active_from_us is None or (
        low.active_from_us is not None and low.active_from_us >= high.active_from_us
    )
    ends = high.active_until_us is None or (
        low.active_until_us is not None and low.active_until_us <= high.active_until_us
    )
    return starts and ends


def _moot(action: Action, above: Action, offers: Offers) -> bool:
    """Whether an action changes nothing beside another of higher priority.

    Another offer pinned to the same position is no such thing: it may be out, and leaves the position then.
    """
    if isinstance(above, Exclude) and isinstance(action, Show | Pin):
        return _covers(above.selector, action.offer, offers)
    if isinstance(above, Exclude) and isinstance(action, Boost | Include | Exclude):
        return action.selector == above.selector or (
            action.selector.offer is not None and _covers(above.selector, action.selector.offer, offers)
        )
    return isinstance(action, Show | Pin | TagDecision | Include) and action == above
