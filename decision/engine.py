"""The decision as a pure function: request, values, bundle, clock and seed in, ranked and explained offers out.

Nothing here does I/O, reads a clock or draws randomness, so the same inputs give the same decision, whatever the
order of the candidates in the request.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from decision import kernels
from decision.bundle import Bundle
from decision.frame import Frame
from decision.plan import PlacementPlan
from decision.reasons import fallback_reasons, feature_reasons, reasons
from decision.record import (
    Decision,
    Degradation,
    DegradationKind,
    RankedOffer,
    Reason,
    ReasonKind,
    Request,
    ViewAge,
)
from decision.validate import check_request
from decision.weigh import Weighing, weigh

__all__ = [
    "ENGINE_VERSION",
    "Decision",
    "Degradation",
    "DegradationKind",
    "RankedOffer",
    "Reason",
    "ReasonKind",
    "Request",
    "ViewAge",
    "decide",
]

ENGINE_VERSION: Final = "5"
"""Changes whenever the same inputs may give another decision or record; records name it."""


def decide(
    request: Request,
    frame: Frame,
    bundle: Bundle,
    *,
    now_us: int,
    seed: int,
    degraded: tuple[Degradation, ...] = (),
    skip_scoring: bool = False,
    attributions: bool = False,
) -> Decision:
    """Decide what to show.

    Args:
        request: What is asked.
        frame: The values of `bundle.placement(request.placement)`'s features for the customer and the offers that
            `considered` names. What is not in it reads as NULL.
        bundle: What decides.
        now_us: The decision's clock, microseconds since the epoch.
        seed: Unsigned 64-bit seed of exploration.
        degraded: What was already gone without, such as a store that did not answer.
        skip_scoring: Leave the model out because there is no time for it.
        attributions: Name the features that counted most for each returned offer; costs about as much again.

    Raises:
        RequestError: If the request names something that the placement does not have.
    """
    plan = bundle.placement(request.placement)
    request = check_request(request, plan)
    weighing = weigh(request, frame, plan, now_us=now_us, seed=seed, skip_scoring=skip_scoring)
    found = _survey(frame)
    ranked = _ranked(weighing, request.limit, attributions=attributions)
    return Decision(
        offers=ranked or _fallback(weighing, request.limit),
        tags=weighing.assessment.tags,
        segments=_segments(weighing),
        bundle_version=bundle.version,
        model_version=weighing.model_version,
        feature_ages=_feature_ages(found, now_us),
        degraded=_degradations(weighing, found, degraded, fallback=not ranked),
        verdicts=weighing.assessment.verdicts,
    )


def _ranked(weighing: Weighing, limit: int, *, attributions: bool) -> tuple[RankedOffer, ...]:
    rows = weighing.ranking.order_rows[:limit]
    predictions = weighing.predictions(rows)
    features = feature_reasons(weighing, rows.tolist()) if attributions else {}
    offers = weighing.plan.offers
    return tuple(
        RankedOffer(
            offers[offer].name,
            offers[offer].content,
            score,
            propensity,
            prediction,
            (*words, *features.get(row, ())) if features else words,
        )
        for row, offer, score, propensity, prediction, words in zip(
            rows.tolist(),
            weighing.rows.offers[rows].tolist(),
            weighing.by_row[rows].tolist(),
            weighing.ranking.propensity_by_row[rows].tolist(),
            predictions,
            reasons(weighing, rows, predictions),
            strict=True,
        )
    )


def _fallback(weighing: Weighing, limit: int) -> tuple[RankedOffer, ...]:
    """The placement's fallback: whatever its conditions and caps say, but never what a rule excludes."""
    flags, place, row_of = weighing.assessment.flags, weighing.plan.place, weighing.rows.row_of
    names = [
        name for name in weighing.plan.placement.fallback if not flags[row_of[place[name]]] & kernels.EXCLUDED
    ]
    return tuple(
        _fallback_offer(weighing, name, first=place == 0) for place, name in enumerate(names[:limit])
    )


def _fallback_offer(weighing: Weighing, name: str, *, first: bool) -> RankedOffer:
    offer = weighing.plan.offer_plans[name].offer
    return RankedOffer(
        offer=name,
        content=offer.content,
        score=offer.value,
        propensity=1.0 if first else 0.0,
        prediction=None,
        reasons=fallback_reasons(weighing),
    )


def _segments(weighing: Weighing) -> tuple[str, ...]:
    """Stored memberships, then what models tell as model:label."""
    rows = weighing.rows
    stored = [segment for segment, _ in weighing.plan.memberships if rows.is_in(segment)]
    return (*stored, *[f"{model}:{label}" for model, label in rows.labels.items() if label is not None])


class _Survey(NamedTuple):
    """What is known of the views of both blocks.

    Attributes:
        newest_us: The newest event time read, 0 where nothing is stored.
        stale: Views of which a value is stale.
        found: Views of which anything was found.
    """

    newest_us: dict[str, int]
    stale: set[str]
    found: set[str]


def _survey(frame: Frame) -> _Survey:
    survey = _Survey({}, set(), set())
    customer, candidates = frame.customer, frame.candidates
    known = kernels.survey(
        customer.layout.view_of,
        customer.statuses,
        customer.event_us,
        candidates.layout.view_of,
        candidates.statuses,
        candidates.event_us,
    )
    views = (*customer.layout.views, *candidates.layout.views)
    for view, (event_us, is_stale, is_found) in zip(views, known.tolist(), strict=True):
        survey.newest_us[view] = max(survey.newest_us.get(view, 0), event_us)
        if is_stale:
            survey.stale.add(view)
        if is_found:
            survey.found.add(view)
    return survey


def _feature_ages(found: _Survey, now_us: int) -> tuple[ViewAge, ...]:
    return tuple(
        ViewAge(view=view, age_us=now_us - event_us if event_us else None)
        for view, event_us in sorted(found.newest_us.items())
    )


def _degradations(
    weighing: Weighing, found: _Survey, taken: tuple[Degradation, ...], *, fallback: bool
) -> tuple[Degradation, ...]:
    """What was gone without before, then what the values and the decision itself lack; each once."""
    plan = weighing.plan
    lacking = (
        *taken,
        *_unknown_customer(plan, found),
        *_stale(found),
        *_untold(plan),
        *weighing.rows.unseen,
        *_unscored(weighing),
        *weighing.scoring.unseen,
    )
    ended = _degradation(DegradationKind.FALLBACK, plan.name, "nothing else was left") if fallback else ()
    return tuple(dict.fromkeys((*lacking, *ended))) if lacking or ended else ()


def _unknown_customer(plan: PlacementPlan, found: _Survey) -> tuple[Degradation, ...]:
    """Nothing is stored under the customer's own key."""
    own = plan.customer_keyed_views & found.newest_us.keys()
    if not own or own & found.found:
        return ()
    return _degradation(
        DegradationKind.UNKNOWN_CUSTOMER, plan.customer_key, "nothing is stored for this customer"
    )


def _stale(found: _Survey) -> tuple[Degradation, ...]:
    if not found.stale:
        return ()
    detail = "older than the view's TTL, and used"
    return tuple(
        Degradation(kind=DegradationKind.STALE_FEATURES, name=view, detail=detail)
        for view in sorted(found.stale)
    )


def _untold(plan: PlacementPlan) -> tuple[Degradation, ...]:
    if not plan.labels:
        return ()
    detail = "the segmentation model is not loaded: its label is NULL"
    return tuple(
        Degradation(kind=DegradationKind.MODEL_ABSENT, name=label.model, detail=detail)
        for label in plan.labels
        if label.handle is None
    )


def _unscored(weighing: Weighing) -> tuple[Degradation, ...]:
    degradation = weighing.scoring.degradation
    return (degradation,) if degradation else ()


def _degradation(kind: DegradationKind, name: str, detail: str) -> tuple[Degradation, ...]:
    return (Degradation(kind=kind, name=name, detail=detail),)
