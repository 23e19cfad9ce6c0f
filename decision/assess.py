"""What the rules make of each offer: added, excluded, boosted, pinned, eligible, capped.

Every rule that holds acts; ELSE acts where the condition is FALSE or NULL. What reads only customer and context is
evaluated once, what reads the offer or a feature keyed by it once per candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from decision.frame import Frame
from decision.plan import CONTEXT, CUSTOMER, CapPlan, Effect, OfferPlan, PlacementPlan, RulePlan
from decision.policy import Action, Boost, Exclude, Include, Pin, Show, TagDecision
from decision.record import Request
from decision.schema import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One action of one rule upon one offer; acts sort by rank: priority, then file order, then place in the rule."""

    rank: tuple[int, int, int]
    rule: RulePlan
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A cap whose counter has reached its limit."""

    cap: CapPlan
    count: float


@dataclass(slots=True, kw_only=True)
class Standing:
    """One offer in one decision, filled in by `assess`.

    Attributes:
        requested: It competes without any rule's doing.
        acts: All acts upon it, in file order of the rules.
        fits: Its own condition holds, or it has none.
        reached: Caps that keep it out.
    """

    plan: OfferPlan
    requested: bool
    acts: list[Act] = field(default_factory=list)
    fits: bool = True
    reached: list[Reached] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.plan.offer.name

    @property
    def shows(self) -> list[Act]:
        return [act for act in self.acts if isinstance(act.action, Show)]

    @property
    def pins(self) -> list[Act]:
        return [act for act in self.acts if isinstance(act.action, Pin)]

    @property
    def excluded(self) -> bool:
        return any(isinstance(act.action, Exclude) for act in self.acts)

    @property
    def included(self) -> bool:
        return any(isinstance(act.action, Include) for act in self.acts)

    @property
    def competes(self) -> bool:
        """It is a candidate at all: requested, or added by a rule that shows or pins it."""
        return self.requested or any(isinstance(act.action, Show | Pin) for act in self.acts)

    @property
    def eligible(self) -> bool:
        """Exclude beats all; include overrides the offer's own condition; caps hold for everything."""
        return self.competes and not self.reached and not self.excluded and (self.fits or self.included)


class Rows:
    """The values that conditions read, one row per level; a candidate's row is built when something reads it.

    A name that is absent from a row is NULL.
    """

    def __init__(self, plan: PlacementPlan, frame: Frame, request: Request) -> None:
        context = {f"{CONTEXT}.{name}": value for name, value in request.context.items()}
        self.customer: dict[str, Value] = {**frame.customer_row(), **context, CUSTOMER: request.customer_id}
        self._plan = plan
        self._fetched = frame.candidates.clean_rows()
        self._candidates: dict[str, dict[str, Value]] = {}

    def candidate(self, offer: str) -> dict[str, Value]:
        row = self._candidates.get(offer)
        if row is None:
            constants = self._plan.offer_plans[offer].constants
            row = {**self.customer, **self._fetched.get(offer, {}), **constants}
            self._candidates[offer] = row
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Standings of the considered offers in file order, and the tags that rules put on the decision."""

    standings: Mapping[str, Standing]
    tags: tuple[str, ...]


def assess(plan: PlacementPlan, candidates: frozenset[str], rows: Rows, now_us: int) -> Assessment:
    """Run rules, eligibility and caps.

    Args:
        plan: The placement.
        candidates: Offers that the request names, or none for all that the placement lists.
        rows: The values.
        now_us: The decision's clock, microseconds since the epoch.
    """
    requested = candidates or plan.listed
    standings = {
        name: Standing(plan=plan.offer_plans[name], requested=name in requested)
        for name in plan.considered(candidates)
    }
    marks = [
        mark for rule in plan.rules if rule.active(now_us) for mark in _run(rule, standings, rows, now_us)
    ]
    competing = [standing for standing in standings.values() if standing.competes]
    _check_conditions(competing, rows, now_us)
    for cap in plan.caps:
        _check_cap(cap, competing, rows)
    tags = dict.fromkeys(tag for tag, offer in marks if offer is None or standings[offer].competes)
    return Assessment(standings=standings, tags=tuple(tags))


Mark = tuple[str, str | None]
"""A decision tag and the candidate that a per-candidate rule found it for."""


def _run(rule: RulePlan, standings: Mapping[str, Standing], rows: Rows, now_us: int) -> list[Mark]:
    if rule.rule.per_candidate:
        return [mark for name in standings for mark in _run_for(rule, name, standings, rows, now_us)]
    marks: list[Mark] = []
    for place, effect in enumerate(_effects(rule, rows.customer, now_us)):
        if isinstance(effect.action, TagDecision):
            marks.append((effect.action.name, None))
        _act(rule, place, effect, [standings[name] for name in effect.targets if name in standings])
    return marks


def _run_for(
    rule: RulePlan, name: str, standings: Mapping[str, Standing], rows: Rows, now_us: int
) -> list[Mark]:
    marks: list[Mark] = []
    for place, effect in enumerate(_effects(rule, rows.candidate(name), now_us)):
        if isinstance(effect.action, TagDecision):
            marks.append((effect.action.name, name))
        elif name in effect.targets:
            _act(rule, place, effect, [standings[name]])
    return marks


def _effects(rule: RulePlan, row: Mapping[str, Value], now_us: int) -> tuple[Effect, ...]:
    return rule.then if rule.holds(row, now_us) is True else rule.otherwise


def _act(rule: RulePlan, place: int, effect: Effect, standings: list[Standing]) -> None:
    act = Act(rank=(*rule.rank, place), rule=rule, action=effect.action)
    for standing in standings:
        standing.acts.append(act)


def _check_conditions(competing: list[Standing], rows: Rows, now_us: int) -> None:
    """An offer's own condition must be TRUE: NULL does not make it eligible."""
    for standing in competing:
        eligible = standing.plan.eligible
        if eligible is not None:
            standing.fits = eligible(rows.candidate(standing.name), now_us) is True


def _check_cap(cap: CapPlan, competing: list[Standing], rows: Rows) -> None:
    """A counter that is not there has counted nothing."""
    for standing in competing:
        if standing.name not in cap.targets:
            continue
        row = rows.candidate(standing.name) if cap.per_candidate else rows.customer
        count = row.get(cap.counter)
        if isinstance(count, int | float) and count >= cap.cap.limit:
            standing.reached.append(Reached(cap=cap, count=count))


def phrase(action: Action) -> str:
    """What an action did to its offer, in words."""
    match action:
        case Show():
            return "shows it above scored offers"
        case Boost(factor=factor):
            return f"{'boosts' if factor >= 1 else 'buries'} its score by {factor:g}"
        case Include():
            return "makes it eligible"
        case Exclude():
            return "excludes it"
        case Pin(position=position):
            return f"pins it to position {position}"
        case TagDecision(name=name):
            return f"tags the decision {name!r}"
        case _:
            assert_never(action)
