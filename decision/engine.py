"""The decision as a pure function: request, values, bundle, clock and seed in, ranked and explained offers out.

Nothing here does I/O, reads a clock or draws randomness, so the same inputs give the same decision, whatever the
order of the candidates in the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from decision.bundle import Bundle
from decision.frame import Frame
from decision.kernels import EXCLUDED, survey
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
from decision.schema import Status
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

ENGINE_VERSION: Final = "3"
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
        degraded=_degradations(weighing, frame, found, degraded, fallback=not ranked),
        verdicts=weighing.assessment.verdicts,
    )


def _ranked(weighing: Weighing, limit: int, *, attributions: bool) -> tuple[RankedOffer, ...]:
    rows = weighing.ranking.order_rows[:limit].tolist()
    features = feature_reasons(weighing, rows) if attributions else {}
    return tuple(
        RankedOffer(
            offer=weighing.rows.names[row],
            content=weighing.plan.offers[offer].content,
            score=score,
            propensity=propensity,
            prediction=weighing.prediction(row),
            reasons=(*reasons(weighing, row), *features.get(row, ())),
        )
        for row, offer, score, propensity in zip(
            rows,
            weighing.rows.offers[rows].tolist(),
            weighing.by_row[rows].tolist(),
            weighing.ranking.propensity_by_row[rows].tolist(),
            strict=True,
        )
    )


def _fallback(weighing: Weighing, limit: int) -> tuple[RankedOffer, ...]:
    """The placement's fallback: whatever its conditions and caps say, but never what a rule excludes."""
    flags, place, row_of = weighing.assessment.flags, weighing.plan.place, weighing.rows.row_of
    names = [name for name in weighing.plan.placement.fallback if not flags[row_of[place[name]]] & EXCLUDED]
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
    stored = (segment for segment, _ in weighing.plan.memberships if rows.is_in(segment))
    return (*stored, *(f"{model}:{label}" for model, label in rows.labels.items() if label is not None))


@dataclass(frozen=True, slots=True)
class _Survey:
    """Of the views of both blocks: the newest event time read, 0 where nothing is stored, and which are stale."""

    newest_us: dict[str, int]
    stale: frozenset[str]


def _survey(frame: Frame) -> _Survey:
    newest_us: dict[str, int] = {}
    stale: set[str] = set()
    for block in (frame.customer, frame.candidates):
        views = block.layout.views
        newest, aged = np.zeros(len(views), np.int64), np.zeros(len(views), np.bool_)
        survey(block.layout.view_of, block.statuses, block.event_us, newest, aged)
        for view, event_us, is_stale in zip(views, newest.tolist(), aged.tolist(), strict=True):
            newest_us[view] = max(newest_us.get(view, 0), event_us)
            if is_stale:
                stale.add(view)
    return _Survey(newest_us, frozenset(stale))


def _feature_ages(found: _Survey, now_us: int) -> tuple[ViewAge, ...]:
    return tuple(
        ViewAge(view=view, age_us=now_us - event_us if event_us else None)
        for view, event_us in sorted(found.newest_us.items())
    )


def _degradations(
    weighing: Weighing, frame: Frame, found: _Survey, taken: tuple[Degradation, ...], *, fallback: bool
) -> tuple[Degradation, ...]:
    """What was gone without before, then what the values and the decision itself lack; each once."""
    plan = weighing.plan
    lacking = (
        *taken,
        *_unknown_customer(plan, frame),
        *_stale(found),
        *_untold(plan),
        *_unscored(weighing),
    )
    ended = _degradation(DegradationKind.FALLBACK, plan.name, "nothing else was left") if fallback else ()
    return tuple(dict.fromkeys((*lacking, *ended)))


def _unknown_customer(plan: PlacementPlan, frame: Frame) -> tuple[Degradation, ...]:
    """Nothing is stored under the customer's own key."""
    views = frame.customer.layout.views
    statuses = [
        status
        for view, status in zip(
            frame.customer.layout.view_of.tolist(), frame.customer.statuses[:, 0].tolist(), strict=True
        )
        if views[view] in plan.customer_keyed_views
    ]
    if not statuses or any(status != Status.NOT_FOUND for status in statuses):
        return ()
    return _degradation(
        DegradationKind.UNKNOWN_CUSTOMER, plan.customer_key, "nothing is stored for this customer"
    )


def _stale(found: _Survey) -> tuple[Degradation, ...]:
    detail = "older than the view's TTL, and used"
    return tuple(
        Degradation(kind=DegradationKind.STALE_FEATURES, name=view, detail=detail)
        for view in sorted(found.stale)
    )


def _untold(plan: PlacementPlan) -> tuple[Degradation, ...]:
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
