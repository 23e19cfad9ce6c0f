"""Everything about a decision but its words: who competes, with which score, in which order."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from decision.arbitrate import Contender, Ranking, Terms, arbitrate
from decision.assess import Assessment, Rows, Standing, assess
from decision.frame import Frame
from decision.plan import PlacementPlan
from decision.policy import Explore
from decision.record import Degradation, DegradationKind, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The model's part.

    Attributes:
        matrix: The model's rows by offer, or None where no model scored.
        predictions: By offer; empty where no model scored.
        degradation: Why the placement's model did not score, or None.
    """

    matrix: Mapping[str, NDArray[np.float32]]
    predictions: Mapping[str, float]
    degradation: Degradation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """What a decision is worded from; `scores` holds every eligible offer."""

    plan: PlacementPlan
    rows: Rows
    assessment: Assessment
    scoring: Scoring
    scores: Mapping[str, float]
    ranking: Ranking
    now_us: int

    @property
    def model_version(self) -> str:
        """`name@version` of the model that scored, or empty."""
        scoring = self.plan.scoring
        return str(scoring.handle) if scoring and self.scoring.predictions else ""


def weigh(
    request: Request, frame: Frame, plan: PlacementPlan, *, now_us: int, seed: int, skip_scoring: bool
) -> Weighing:
    """Assess, score and order the offers for a checked request."""
    rows = Rows(plan, frame, request)
    assessment = assess(plan, frozenset(request.candidates), rows, now_us)
    eligible = [standing for standing in assessment.standings.values() if standing.eligible]
    scoring = _score(plan, eligible, rows, now_us, skip_scoring=skip_scoring)
    scores = {standing.name: _total(standing, scoring.predictions) for standing in eligible}
    terms = _terms(plan, seed, whole=scoring.degradation is None)
    return Weighing(
        plan=plan,
        rows=rows,
        assessment=assessment,
        scoring=scoring,
        scores=scores,
        ranking=arbitrate([_contender(standing, scores) for standing in eligible], terms),
        now_us=now_us,
    )


def _score(
    plan: PlacementPlan, eligible: Sequence[Standing], rows: Rows, now_us: int, *, skip_scoring: bool
) -> Scoring:
    model = plan.placement.model
    if model is None or not eligible:
        return Scoring(matrix={}, predictions={})
    if skip_scoring:
        return _unscored(DegradationKind.SCORING_SKIPPED, model, "no time was left to score")
    if plan.scoring is None:
        return _unscored(DegradationKind.MODEL_ABSENT, model, "the model is not loaded")
    matrix = plan.scoring.matrix(
        rows.customer, [rows.candidate(standing.name) for standing in eligible], now_us
    )
    predictions = plan.scoring.predict(matrix)
    if predictions is None:
        return _unscored(
            DegradationKind.MODEL_ABSENT, model, "the model gave something that is not a finite number"
        )
    names = [standing.name for standing in eligible]
    return Scoring(
        matrix=dict(zip(names, matrix, strict=True)), predictions=dict(zip(names, predictions, strict=True))
    )


def _unscored(kind: DegradationKind, model: str, detail: str) -> Scoring:
    return Scoring(matrix={}, predictions={}, degradation=Degradation(kind=kind, name=model, detail=detail))


def _total(standing: Standing, predictions: Mapping[str, float]) -> float:
    """Prediction × value × boosts in file order of the rules, kept finite."""
    parts = (predictions.get(standing.name, 1.0), standing.plan.offer.value, *standing.factors)
    score = math.prod(parts)
    return score if math.isfinite(score) else reduce(_times, parts, 1.0)


def _times(score: float, factor: float) -> float:
    return min(max(score * factor, -sys.float_info.max), sys.float_info.max)


def _terms(plan: PlacementPlan, seed: int, *, whole: bool) -> Terms:
    """Without the model that the placement is tuned for, its minimum and its exploration make no sense."""
    placement = plan.placement
    return Terms(
        max_per_tag=placement.max_per_tag,
        minimum_score=placement.minimum_score if whole else None,
        explore=placement.explore if whole else Explore(),
        seed=seed,
    )


def _contender(standing: Standing, scores: Mapping[str, float]) -> Contender:
    return Contender(
        name=standing.name,
        score=scores[standing.name],
        tags=standing.plan.offer.tags,
        show=min(standing.shows, key=lambda act: act.rank, default=None),
        pins=tuple(standing.pins),
    )
