"""Explains a recorded decision: its conditions in words, and why other offers are not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decision.bundle import Bundle
from decision.explain import WhyNot, why_not
from decision.explanation import CUSTOMER_LEVEL, ConditionVerdict, Kept, explain_verdicts
from decision.program import Truth
from decision.rows import Rows
from decision.schema import Value
from decision.whynot.nearest import Change, Nearest
from server.deciding import skips_scoring
from server.decision_codec import (
    degradations_from_proto,
    frame_from_record,
    request_from_proto,
    verdicts_from_proto,
)
from server.replay import check_replayable
from server.values import to_proto
from waypost.decision.v1 import decision_pb2

WHY_NOT_MAX = 10
"""Offers of which one call may ask why not: each search takes up to half a second."""


def explain_record(
    record: decision_pb2.DecisionRecord, bundle: Bundle, offers: Sequence[str] = ()
) -> decision_pb2.ExplainResponse:
    """Put a record into words.

    Args:
        record: A record of the decision log.
        bundle: The bundle and the models that the record names; see `server.bundles.kept_bundle`.
        offers: Offers of the policy to say why not of.

    Raises:
        ReplayError: Another version of the engine decided, or the bundle is another.
        decision.errors.RequestError: The policy has no such offer.
    """
    check_replayable(record, bundle)
    plan = bundle.placement(record.request.placement)
    request = request_from_proto(record.request, plan)
    frame, now_us = frame_from_record(record, bundle.catalog), record.decided_at_us
    rows = Rows.of(plan, frame, request, now_us)
    kept = Kept(
        request=verdicts_from_proto(record.request_verdicts),
        candidates=verdicts_from_proto(record.candidate_verdicts),
        offers=tuple(record.candidates.rows),
        now_us=now_us,
    )
    told = {*offers, *(offer.offer for offer in record.response.offers)}

    def row(offer: str) -> Mapping[str, Value]:
        return rows.customer if offer == CUSTOMER_LEVEL else rows.candidate(offer)

    explanation = explain_verdicts(plan, kept, told, row)
    skip = skips_scoring(plan, degradations_from_proto(record.degraded))
    answers = [
        why_not(bundle, request, frame, offer, now_us, seed=record.seed, skip_scoring=skip)
        for offer in offers
    ]
    return decision_pb2.ExplainResponse(
        decision=record.response,
        conditions=[_condition(verdict) for verdict in explanation.verdicts],
        conditions_left_out=explanation.left_out,
        why_not=[_why_not(answer) for answer in answers],
    )


def _condition(verdict: ConditionVerdict) -> decision_pb2.ConditionVerdict:
    return decision_pb2.ConditionVerdict(
        rule=verdict.rule,
        offer=verdict.offer,
        text=verdict.text,
        truth=_truth(verdict.truth),
        active=verdict.active,
        actions=verdict.actions,
        comparisons=[
            decision_pb2.ComparisonVerdict(
                text=part.text,
                truth=_truth(part.truth),
                values={name: to_proto(value, dtype) for name, (dtype, value) in part.values.items()},
            )
            for part in verdict.comparisons
        ],
    )


def _truth(truth: Truth) -> decision_pb2.Truth.ValueType:
    if truth is None:
        return decision_pb2.TRUTH_NULL
    return decision_pb2.TRUTH_TRUE if truth else decision_pb2.TRUTH_FALSE


def _why_not(answer: WhyNot) -> decision_pb2.WhyNot:
    return decision_pb2.WhyNot(
        offer=answer.offer,
        shown=answer.shown,
        obstacles=[
            decision_pb2.Obstacle(
                kind=decision_pb2.ObstacleKind.Value(f"OBSTACLE_KIND_{item.kind.name}"),
                name=item.name,
                detail=item.detail,
            )
            for item in answer.obstacles
        ],
        nearest=None if answer.nearest is None else _nearest(answer.nearest),
    )


def _nearest(nearest: Nearest) -> decision_pb2.NearestChange:
    return decision_pb2.NearestChange(
        changes=[_change(change) for change in nearest.changes],
        place=nearest.place,
        exact=nearest.exact,
        note=nearest.note,
    )


def _change(change: Change) -> decision_pb2.InputChange:
    return decision_pb2.InputChange(
        name=change.name,
        before=to_proto(change.before, change.dtype),
        after=to_proto(change.after, change.dtype),
        such_as=change.such_as,
    )
