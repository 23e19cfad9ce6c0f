"""Decisions in words, and why an offer was not shown."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from decision.assess import Standing
from decision.bundle import Bundle
from decision.errors import UnknownCandidateError, nearest
from decision.frame import Frame
from decision.plan import RulePlan
from decision.policy import Exclude, Pin, Show
from decision.record import Decision, RankedOffer, Request
from decision.validate import check_request
from decision.weigh import Weighing, weigh
from decision.whynot.nearest import Case, Nearest, nearest_change
from decision.words import failures


class ObstacleKind(enum.StrEnum):
    """What can keep an offer out of an answer, in the order in which it is checked."""

    NOT_A_CANDIDATE = "not_a_candidate"
    EXCLUDED = "excluded"
    CONDITION = "condition"
    CAP = "cap"
    TAG_LIMIT = "tag_limit"
    MINIMUM_SCORE = "minimum_score"
    OUTRANKED = "outranked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing in the way; `name` is the rule, cap, tag, offer or placement."""

    kind: ObstacleKind
    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """Why an offer is not in an answer.

    Attributes:
        obstacles: All of them on the first level that stops it; none where it is shown.
        nearest: The smallest change that would make it eligible; None where it is.
    """

    offer: str
    shown: bool
    obstacles: tuple[Obstacle, ...]
    nearest: Nearest | None = None


def why_not(
    bundle: Bundle,
    request: Request,
    frame: Frame,
    offer: str,
    now_us: int,
    *,
    seed: int = 0,
    skip_scoring: bool = False,
) -> WhyNot:
    """Find out by deciding again what kept an offer out, and what would have let it in.

    Args:
        bundle: As the decision's.
        request: As the decision's.
        frame: As the decision's.
        offer: An offer of the policy.
        now_us: The decision's clock, microseconds since the epoch.
        seed: The decision's.
        skip_scoring: Whether the decision had no time to score.

    Raises:
        RequestError: If the request is wrong, or the policy has no such offer.
    """
    plan = bundle.placement(request.placement)
    known = [known.name for known in bundle.policy.offers]
    if offer not in known:
        raise UnknownCandidateError("offer", f"no offer {offer!r}", nearest(offer, known))
    request = check_request(request, plan)
    weighing = weigh(request, frame, plan, now_us=now_us, seed=seed, skip_scoring=skip_scoring)
    shown = offer in weighing.ranking.order[: request.limit]
    obstacles = () if shown else tuple(_obstacles(weighing, offer, request.limit, now_us))
    case = Case(
        bundle=bundle,
        plan=plan,
        request=request,
        frame=frame,
        now_us=now_us,
        seed=seed,
        skip_scoring=skip_scoring,
    )
    return WhyNot(offer=offer, shown=shown, obstacles=obstacles, nearest=_nearest(case, weighing, offer))


def _nearest(case: Case, weighing: Weighing, offer: str) -> Nearest | None:
    standing = weighing.assessment.standings.get(offer)
    if standing is None:
        return Nearest(exact=True, note="none found: no change of inputs brings it into this placement")
    if standing.eligible:
        return None
    row = weighing.rows.candidate(offer)
    return nearest_change(case, offer, requested=standing.requested, row=row)


def _obstacles(weighing: Weighing, offer: str, limit: int, now_us: int) -> Iterator[Obstacle]:
    standing = weighing.assessment.standings.get(offer)
    if standing is None or not standing.competes:
        yield from _absence(weighing, offer, now_us)
    elif not standing.eligible:
        yield from _ineligibility(weighing, standing, now_us)
    else:
        yield _placing(weighing, offer, limit)


def _absence(weighing: Weighing, offer: str, now_us: int) -> Iterator[Obstacle]:
    """Not among the candidates, nor added by any of the rules that could have."""
    name = weighing.plan.name
    yield Obstacle(
        kind=ObstacleKind.NOT_A_CANDIDATE, name=name, detail=f"it does not compete at {name} by itself"
    )
    for rule in weighing.plan.rules:
        if any(offer in act.targets for act in rule.then if isinstance(act.action, Show | Pin)):
            detail = _unheld(weighing, rule, offer, now_us)
            yield Obstacle(kind=ObstacleKind.NOT_A_CANDIDATE, name=rule.rule.name, detail=detail)


def _unheld(weighing: Weighing, rule: RulePlan, offer: str, now_us: int) -> str:
    if not rule.active(now_us):
        return "the rule would add it, but is not active now"
    row = weighing.rows.candidate(offer) if rule.rule.per_candidate else weighing.rows.customer
    return f"the rule would add it, but {' and '.join(failures(rule.rule.condition, row, now_us))}"


def _ineligibility(weighing: Weighing, standing: Standing, now_us: int) -> Iterator[Obstacle]:
    for act in standing.acts:
        if isinstance(act.action, Exclude):
            yield Obstacle(kind=ObstacleKind.EXCLUDED, name=act.rule.name, detail="the rule excludes it")
    when = standing.plan.offer.when
    if when is not None and not standing.fits and not standing.included:
        for failure in failures(when, weighing.rows.candidate(standing.name), now_us):
            yield Obstacle(kind=ObstacleKind.CONDITION, name=standing.name, detail=failure)
    for reached in standing.reached:
        cap = reached.cap.cap
        detail = f"{cap.counter} is {reached.count:g} and at most {cap.limit} are allowed"
        yield Obstacle(kind=ObstacleKind.CAP, name=cap.name, detail=detail)


def _placing(weighing: Weighing, offer: str, limit: int) -> Obstacle:
    ranking, placement = weighing.ranking, weighing.plan.placement
    score = weighing.scores[offer]
    if (tag := ranking.crowded.get(offer)) is not None:
        detail = f"{placement.max_per_tag[tag]} better offers of tag {tag!r} are shown already"
        return Obstacle(kind=ObstacleKind.TAG_LIMIT, name=tag, detail=detail)
    if offer in ranking.below:
        detail = f"its score {score:.4g} is below {placement.minimum_score:g}"
        return Obstacle(kind=ObstacleKind.MINIMUM_SCORE, name=placement.name, detail=detail)
    place = ranking.order.index(offer) + 1
    detail = f"it came {place} of {len(ranking.order)} with score {score:.4g}, and {limit} are shown"
    return Obstacle(kind=ObstacleKind.OUTRANKED, name=placement.name, detail=detail)


def describe(decision: Decision) -> list[str]:
    """A decision as lines of text for people."""
    return [
        *(line for place, ranked in enumerate(decision.offers, 1) for line in _describe_offer(place, ranked)),
        *(f"tag {tag}" for tag in decision.tags),
        *(f"in segment {segment}" for segment in decision.segments),
        *(f"degraded: {d.kind.name.lower()} {d.name}: {d.detail}" for d in decision.degraded),
    ]


def _describe_offer(place: int, ranked: RankedOffer) -> Iterator[str]:
    yield f"{place}. {ranked.offer}, score {ranked.score:.4g}, first with probability {ranked.propensity:.4g}"
    for reason in ranked.reasons:
        yield f"   {reason.kind.name.lower()} {reason.name}: {reason.detail}"
