"""Everything about a decision but its words: who competes, with which score, in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision import kernels
from decision.arbitrate import NO_BELIEFS, Beliefs, Ranking, Terms, arbitrate
from decision.assess import Assessment, assess
from decision.frame import Frame
from decision.plan import PlacementPlan, Shape
from decision.policy import Explore
from decision.record import Degradation, DegradationKind, Request
from decision.rows import Rows

_NOTHING: Final = np.zeros(0)


@dataclass(kw_only=True, eq=False)  # as `decision.rows.Rows`
class Scoring:
    """The model's part.

    Attributes:
        rows: int64[m], the considered rows that the model scored; none where no model scored.
        matrix: float32[m, f], the model's rows.
        by_row: float64[n], predictions of the considered rows, NaN for those not scored; of length 0 where no model
            scored.
        degradation: Why the placement's model did not score, or None.
        unseen: Categories that the model that scored never saw.
    """

    rows: NDArray[np.int64]
    matrix: NDArray[np.float32]
    by_row: NDArray[np.float64]
    degradation: Degradation | None = None
    unseen: tuple[Degradation, ...] = ()

    @classmethod
    def none(cls, degradation: Degradation | None = None) -> Scoring:
        """No model scored."""
        return cls(
            rows=np.zeros(0, np.int64),
            matrix=np.zeros((0, 0), np.float32),
            by_row=_NOTHING,
            degradation=degradation,
        )


@dataclass(kw_only=True, eq=False)  # as `decision.rows.Rows`
class Weighing:
    """What a decision is worded from.

    Attributes:
        by_row: float64[n], scores of the considered rows, with what Thompson sampling drew where it did; NaN for those
            not eligible.
        beliefs: What Thompson sampling draws from, or None.
    """

    plan: PlacementPlan
    rows: Rows
    assessment: Assessment
    scoring: Scoring
    by_row: NDArray[np.float64]
    ranking: Ranking
    beliefs: Beliefs | None
    now_us: int

    @property
    def model_version(self) -> str:
        """`name@version` of the model that scored, or empty."""
        scoring = self.plan.scoring
        return str(scoring.handle) if scoring and len(self.scoring.rows) else ""

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """Scores of the eligible offers."""
        return {self.rows.names[row]: float(self.by_row[row]) for row in self.assessment.eligible.tolist()}

    def predictions(self, rows: NDArray[np.int64]) -> list[float | None]:
        """What the model says about considered rows, None where it says nothing."""
        if not len(self.scoring.by_row):
            return [None] * len(rows)
        return [None if math.isnan(found) else found for found in self.scoring.by_row[rows].tolist()]


def weigh(
    request: Request, frame: Frame, plan: PlacementPlan, *, now_us: int, seed: int, skip_scoring: bool
) -> Weighing:
    """Assess, score and order the offers for a checked request."""
    rows = Rows.of(plan, frame, request, now_us)
    assessment = assess(rows, frozenset(request.candidates), now_us)
    scoring = _score(rows, assessment.eligible, now_us, skip_scoring=skip_scoring)
    beliefs = _beliefs(assessment) if plan.shapes and scoring.degradation is None else None
    scores = weigh_scores(assessment, _expected(scoring, beliefs))
    terms = _terms(plan, seed, beliefs, whole=scoring.degradation is None)
    ranking = arbitrate(assessment, scores, terms)
    return Weighing(
        plan=plan,
        rows=rows,
        assessment=assessment,
        scoring=scoring,
        by_row=scores if beliefs is None else _drawn(scores, beliefs, ranking),
        ranking=ranking,
        beliefs=beliefs,
        now_us=now_us,
    )


def _beliefs(assessment: Assessment) -> Beliefs:
    a, b = (_shape(assessment.rows, shape) for shape in assessment.rows.plan.shapes or ())
    return Beliefs(a, b, weigh_scores(assessment, _NOTHING))


def _shape(rows: Rows, shape: Shape) -> NDArray[np.float64]:
    block = rows.candidate_block if shape.per_candidate else rows.customer_block
    index = rows.index if shape.per_candidate else np.zeros(len(rows.names), np.int64)
    shapes = np.empty(len(rows.names))
    kernels.read_shapes(block.words, block.statuses, shape.column, shape.is_float, index, shape.prior, shapes)
    return shapes


def _expected(scoring: Scoring, beliefs: Beliefs | None) -> NDArray[np.float64]:
    """float64[n]: the model's predictions; without a model the means of what Thompson sampling draws from."""
    if beliefs is None or len(scoring.rows):
        return scoring.by_row
    return beliefs.a / (beliefs.a + beliefs.b)


def _drawn(scores: NDArray[np.float64], beliefs: Beliefs, ranking: Ranking) -> NDArray[np.float64]:
    return np.where(np.isnan(ranking.drawn_by_row), scores, ranking.drawn_by_row * beliefs.factors)


def weigh_scores(assessment: Assessment, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n]: prediction × value × weight × boosts in file order of the rules, kept finite; NaN where not eligible.

    Args:
        assessment: What the rules made of the rows.
        predictions: float64[n], or of length 0 to leave the prediction out.
    """
    rows, tables = assessment.rows, assessment.rows.plan.tables
    scores: NDArray[np.float64] = kernels.weigh_scores(
        assessment.eligible,
        rows.offers,
        predictions,
        tables.values,
        tables.weights,
        assessment.hits,
        tables.factors,
    )
    return scores


def _score(rows: Rows, eligible: NDArray[np.int64], now_us: int, *, skip_scoring: bool) -> Scoring:
    plan = rows.plan
    model = plan.placement.model
    if model is None or not len(eligible):
        return Scoring.none()
    if skip_scoring:
        return _unscored(DegradationKind.SCORING_SKIPPED, model, "no time was left to score")
    if plan.scoring is None:
        return _unscored(DegradationKind.MODEL_ABSENT, model, "the model is not loaded")
    inputs = plan.scoring.inputs(rows.customer_block, rows.candidate_block, rows.index[eligible], now_us)
    predictions = plan.scoring.predict(inputs.matrix)
    if predictions is None:
        return _unscored(
            DegradationKind.MODEL_ABSENT, model, "the model gave something that is not a finite number"
        )
    by_row = kernels.put_by_row(eligible, predictions, len(rows.names))
    return Scoring(rows=eligible, matrix=inputs.matrix, by_row=by_row, unseen=inputs.unseen)


def _unscored(kind: DegradationKind, model: str, detail: str) -> Scoring:
    return Scoring.none(Degradation(kind=kind, name=model, detail=detail))


def _terms(plan: PlacementPlan, seed: int, beliefs: Beliefs | None, *, whole: bool) -> Terms:
    """Without the model that the placement is tuned for, its minimum and its exploration make no sense."""
    placement = plan.placement
    return Terms(
        minimum_score=placement.minimum_score if whole else None,
        explore=placement.explore if whole else Explore(),
        seed=seed,
        beliefs=beliefs or NO_BELIEFS,
    )
