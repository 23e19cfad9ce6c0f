"""What the rules make of each offer: added, excluded, boosted, pinned, eligible, capped.

Every rule that holds acts; ELSE acts where the condition is FALSE or NULL. What reads only customer and context is
evaluated once, what reads the offer or a feature keyed by it once per candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from decision.frame import Frame
from decision.plan import CONTEXT, CUSTOMER, Act, CapPlan, OfferPlan, PlacementPlan, RulePlan
from decision.policy import Action, Boost, Exclude, Include, Pin, Show, TagDecision
from decision.record import Request
from decision.schema import Value
from decision.verdicts import Verdicts


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
        acts: All acts upon it, in file order of the rules; the ones below are of one kind each.
        fits: Its own condition holds, or it has none.
        reached: Caps that keep it out.
    """

    plan: OfferPlan
    requested: bool
    acts: list[Act] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    shows: list[Act] = field(default_factory=list)
    pins: list[Act] = field(default_factory=list)
    excluded: bool = False
    included: bool = False
    fits: bool = True
    reached: list[Reached] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.plan.offer.name

    @property
    def competes(self) -> bool:
        """It is a candidate at all: requested, or added by a rule that shows or pins it."""
        return self.requested or bool(self.shows or self.pins)

    @property
    def eligible(self) -> bool:
        """Exclude beats all; include overrides the offer's own condition; caps hold for everything."""
        return self.competes and not self.reached and not self.excluded and (self.fits or self.included)

    def take(self, act: Act) -> None:
        self.acts.append(act)
        match act.action:
            case Boost(factor=factor):
                self.factors.append(factor)
            case Show():
                self.shows.append(act)
            case Pin():
                self.pins.append(act)
            case Include():
                self.included = True
            case Exclude():
                self.excluded = True
            case TagDecision():
                pass


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
    """Standings of the considered offers in file order, and the tags that rules put on the decision.

    Attributes:
        verdicts: How every condition came out.
    """

    standings: Mapping[str, Standing]
    tags: tuple[str, ...]
    verdicts: Verdicts


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
    held, verdicts = _run_programs(plan, tuple(standings), rows, now_us)
    active = (rule for rule in plan.rules if rule.active(now_us))
    marks = [mark for rule in active for mark in _run(rule, standings, held)]
    competing = [standing for standing in standings.values() if standing.competes]
    _check_conditions(competing, held)
    for cap in plan.caps:
        _check_cap(cap, competing, rows)
    tags = dict.fromkeys(tag for tag, offer in marks if offer is None or standings[offer].competes)
    return Assessment(standings=standings, tags=tuple(tags), verdicts=verdicts)


@dataclass(frozen=True, slots=True)
class Held:
    """Per place whether the condition is TRUE, for the request and for every candidate."""

    request: Sequence[bool]
    candidates: Mapping[str, Sequence[bool]]


def _run_programs(
    plan: PlacementPlan, names: tuple[str, ...], rows: Rows, now_us: int
) -> tuple[Held, Verdicts]:
    """Evaluate every condition: what acts now, and all of it for the record."""
    request = plan.request_program.run(rows.customer, now_us)
    many = [rows.candidate(name) for name in names] if plan.candidate_program.expressions else []
    candidates = plan.candidate_program.run(many, now_us)
    held = Held(
        (request.truth[0] == 1).tolist(),
        dict(zip(names, (candidates.truth == 1).tolist(), strict=True)) if many else {},
    )
    verdicts = Verdicts(
        names, plan.request_program, request.truths, plan.candidate_program, candidates.truths
    )
    return held, verdicts


Mark = tuple[str, str | None]
"""A decision tag and the candidate that a per-candidate rule found it for."""


def _run(rule: RulePlan, standings: Mapping[str, Standing], held: Held) -> list[Mark]:
    if rule.rule.per_candidate:
        return _run_per_candidate(rule, standings, held)
    acts = rule.then if held.request[rule.place] else rule.otherwise
    for act in acts:
        for name in act.targets & standings.keys():
            standings[name].take(act)
    return [(act.action.name, None) for act in acts if isinstance(act.action, TagDecision)]


def _run_per_candidate(rule: RulePlan, standings: Mapping[str, Standing], held: Held) -> list[Mark]:
    marks: list[Mark] = []
    for name, standing in standings.items():
        for act in rule.then if held.candidates[name][rule.place] else rule.otherwise:
            if name in act.targets:
                standing.take(act)
            elif isinstance(act.action, TagDecision):
                marks.append((act.action.name, name))
    return marks


def _check_conditions(competing: list[Standing], held: Held) -> None:
    """An offer's own condition must be TRUE: NULL does not make it eligible."""
    for standing in competing:
        place = standing.plan.place
        if place is not None:
            standing.fits = held.candidates[standing.name][place]


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
            return f"multiplies its score by {factor:g} ({'boost' if factor >= 1 else 'bury'})"
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
