"""Where a decision of the engine is another than the reference's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from decision.bundle import Bundle
from decision.engine import Decision
from decision.lang.interpreter import evaluate
from decision.plan import PlacementPlan
from decision.policy import Exclude, Exploration, Include
from decision.record import RankedOffer
from decision.validate import check_request
from decision.weigh import Weighing, weigh
from tests.oracle.engine_oracle import Answer, Question
from tests.support.decision_trials import decided, frame_of

THOMPSON = 1e-6
"""The quadrature's own bound."""
CLOSED_FORM = 1e-12


def differences(bundle: Bundle, question: Question, wanted: Answer) -> Iterator[str]:
    """Lines that name the part, what the engine has and what the reference has.

    Args:
        bundle: What the engine decides with.
        question: What is asked of it.
        wanted: The reference's answer.
    """
    plan = bundle.placement("home")
    decision = decided(bundle, question)
    yield from _parts(decision, wanted)
    yield from _offers(decision, wanted, plan)
    yield from _verdicts(decision, wanted, plan, question)
    yield from _ways(_weighed(plan, question), wanted, plan)


def _weighed(plan: PlacementPlan, question: Question) -> Weighing:
    return weigh(
        check_request(question.request, plan),
        frame_of(question, plan),
        plan,
        now_us=question.now_us,
        seed=question.seed,
        skip_scoring=question.skip_scoring,
    )


def _parts(decision: Decision, wanted: Answer) -> Iterator[str]:
    for part in ("tags", "segments", "model_version", "feature_ages", "degraded"):
        yield from _unlike(part, getattr(decision, part), getattr(wanted, part))


def _offers(decision: Decision, wanted: Answer, plan: PlacementPlan) -> Iterator[str]:
    yield from _unlike(
        "offers", [ranked.offer for ranked in decision.offers], [ranked.offer for ranked in wanted.offers]
    )
    for found, other in zip(decision.offers, wanted.offers, strict=False):
        for part in ("content", "reasons"):
            yield from _unlike(f"{part} of {other.offer}", getattr(found, part), getattr(other, part))
        yield from _numbers(found, other, plan)


def _numbers(found: RankedOffer, other: RankedOffer, plan: PlacementPlan) -> Iterator[str]:
    """Scores and predictions to the bit; what Thompson sampling draws, but for the rounding of its steps."""
    drawn = plan.placement.explore.kind is Exploration.THOMPSON
    if not (drawn and math.isclose(found.score, other.score, rel_tol=1e-9, abs_tol=1e-307)):
        yield from _unlike(f"score of {other.offer}", found.score.hex(), other.score.hex())
    yield from _unlike(f"prediction of {other.offer}", found.prediction, other.prediction)
    yield from _chance(other.offer, found.propensity, other.propensity, plan)


def _chance(name: str, found: float, wanted: float, plan: PlacementPlan) -> Iterator[str]:
    bound = THOMPSON if plan.placement.explore.kind is Exploration.THOMPSON else CLOSED_FORM
    if not abs(found - wanted) <= bound:
        yield f"propensity of {name}: {found} for {wanted}"


def _verdicts(decision: Decision, wanted: Answer, plan: PlacementPlan, question: Question) -> Iterator[str]:
    """The bits of the record: conditions as they were drawn, and each of their parts as it was compiled."""
    verdicts = decision.verdicts
    names = tuple(candidate.name for candidate in wanted.candidates)
    yield from _unlike("considered", verdicts.offers, names)
    rows = [
        *(
            [(verdicts.request.row(0), wanted.request_truths, wanted.customer_row)]
            if wanted.request_truths
            else []
        ),
        *(
            (verdicts.candidates.row(place), truths, candidate.row)
            for place, (candidate, truths) in enumerate(
                zip(wanted.candidates, wanted.candidate_truths, strict=True)
            )
            if truths
        ),
    ]
    for place, (found, truths, row) in enumerate(rows):
        program = plan.request_program if place == 0 and wanted.request_truths else plan.candidate_program
        yield from _unlike("conditions", found[: len(truths)], truths)
        parts = [evaluate(part, row, question.now_us) for part in program.listing[len(truths) :]]
        yield from _unlike("comparisons", found[len(truths) :], tuple(parts))


def _ways(weighing: Weighing, wanted: Answer, plan: PlacementPlan) -> Iterator[str]:
    """What came of each offer on its way: rules, caps, limits of tags, minimum score, place and propensity."""
    ranking, standings = weighing.ranking, weighing.assessment.standings
    yield from _unlike("order", ranking.order, wanted.order)
    for candidate in wanted.candidates:
        name, standing = candidate.name, standings[candidate.name]
        found = (
            standing.requested,
            standing.competes,
            standing.excluded,
            standing.included,
            standing.fits,
            standing.eligible,
            [reached.cap.cap.name for reached in standing.reached],
            [(act.rule.name, act.action) for act in standing.acts],
            ranking.crowded.get(name),
            name in ranking.below,
            ranking.pinned.get(name, 0),
        )
        other = (
            candidate.requested,
            candidate.competes,
            bool(candidate.acted(Exclude)),
            bool(candidate.acted(Include)),
            candidate.fits,
            candidate.eligible,
            candidate.reached,
            [(act.rule.name, act.action) for act in candidate.acts],
            candidate.crowded,
            candidate.below,
            candidate.pinned_to,
        )
        yield from _unlike(f"way of {name}", found, other)
        yield from _chance(name, ranking.propensity.get(name, 0.0), candidate.propensity, plan)


def _unlike(part: str, found: Any, wanted: Any) -> Iterator[str]:
    if found != wanted:
        yield f"{part}: {found} for {wanted}"
