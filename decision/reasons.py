"""Why an offer is where it is: the reasons in an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision import kernels
from decision.kernels import FITS, INCLUDED, PINNED
from decision.plan import Act
from decision.policy import Include, Pin
from decision.record import Reason, ReasonKind
from decision.scoring import Column
from decision.weigh import Weighing

FEATURES_NAMED: Final = 3
"""How many features of a prediction are named as reasons."""
_MODEL: Final = ReasonKind.MODEL


def reasons(
    weighing: Weighing, rows: NDArray[np.int64], predictions: Sequence[float | None]
) -> Iterator[tuple[Reason, ...]]:
    """Why the offers of considered rows are where they are, but for the features of their predictions.

    Args:
        weighing: What came of the request.
        rows: int64[k].
        predictions: What the model says about each, or None.
    """
    plan, assessment, ranking = weighing.plan, weighing.assessment, weighing.ranking
    told, rows_told = kernels.told(
        rows, weighing.rows.offers, assessment.flags, ranking.notes, assessment.hits
    )
    known, acts = plan.act_reasons[told].tolist(), told.tolist()
    model, worth, draws, start = weighing.model_version, plan.worth_reasons, weighing.beliefs is not None, 0
    for row, (offer, flags, was, end), prediction in zip(
        rows.tolist(), rows_told.tolist(), predictions, strict=True
    ):
        words = known[start:end]
        if flags & PINNED or (flags & INCLUDED and flags & FITS):
            _say_what_was_idle(weighing, row, acts[start:end], words)
        if plan.reads_segments:
            words += _segments(weighing, acts[start:end])
        if prediction is not None:
            words.append(Reason(_MODEL, model, f"predicts {prediction:.4g}"))
        words.append(worth[offer])
        if was or draws:
            words += _exploration(weighing, row)
        yield tuple(words)
        start = end


def fallback_reasons(weighing: Weighing) -> tuple[Reason, ...]:
    """Why a fallback is shown."""
    name = weighing.plan.name
    return (Reason(kind=ReasonKind.FALLBACK, name=name, detail=f"nothing else was left at {name}"),)


def feature_reasons(weighing: Weighing, rows: Sequence[int]) -> dict[int, tuple[Reason, ...]]:
    """The features that counted most in the predictions of considered rows, by their contributions to the margin."""
    plan, scored = weighing.plan.scoring, weighing.scoring
    place = {row: at for at, row in enumerate(scored.rows.tolist())}
    wanted = [row for row in rows if row in place]
    if plan is None or not wanted:
        return {}
    top = plan.top_features(scored.matrix[[place[row] for row in wanted]], FEATURES_NAMED)
    return {
        row: tuple(_feature(weighing, row, column, contribution) for column, contribution in features)
        for row, features in zip(wanted, top, strict=True)
    }


def _feature(weighing: Weighing, row: int, column: Column, contribution: float) -> Reason:
    value = column.read(weighing.rows.candidate(weighing.rows.names[row]), weighing.now_us)
    words = "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    words += " days ago" if column.is_timestamp and value is not None else ""
    detail = f"{words}, moves the model's margin by {contribution:+.3g}"
    return Reason(kind=ReasonKind.FEATURE, name=column.name, detail=detail)


def _say_what_was_idle(weighing: Weighing, row: int, acts: Sequence[int], words: list[Reason]) -> None:
    """Word anew, of the acts upon a row, those that may have changed nothing."""
    idle = weighing.plan.may_be_idle
    for place, act in enumerate(acts):
        if act in idle:
            words[place] = _rule(weighing, row, weighing.plan.acts[act])


def _rule(weighing: Weighing, row: int, act: Act) -> Reason:
    """What an act did, saying so where it changed nothing."""
    idle = ""
    if isinstance(act.action, Include) and weighing.assessment.flags[row] & FITS:
        idle = ", as it is anyway"
    elif isinstance(act.action, Pin) and weighing.ranking.notes[kernels.PIN_AT, row] != act.action.position:
        idle = ", but another pin or too few offers moved it"
    if not idle:
        return act.reason
    return Reason(kind=ReasonKind.RULE, name=act.rule.name, detail=act.reason.detail + idle)


def _segments(weighing: Weighing, acts: Sequence[int]) -> Iterator[Reason]:
    """Segments the customer is in that rules upon the offer read."""
    readers: dict[str, list[str]] = {}
    for act in map(weighing.plan.acts.__getitem__, acts):
        for segment in act.segments:
            if weighing.rows.is_in(segment):
                readers.setdefault(segment, []).append(act.rule.name)
    for segment, rules in readers.items():
        detail = f"read by {', '.join(dict.fromkeys(rules))}"
        yield Reason(kind=ReasonKind.SEGMENT, name=segment, detail=detail)


def _exploration(weighing: Weighing, row: int) -> tuple[Reason, ...]:
    was, now = weighing.ranking.notes[[kernels.MOVED_FROM, kernels.MOVED_TO], row].tolist()
    drawn = _draw(weighing, row)
    parts = [drawn, f"moved it from {was} to {now} among scored offers" if was else ""]
    detail = ", ".join(filter(None, parts))
    kind = weighing.plan.placement.explore.kind
    return (Reason(kind=ReasonKind.EXPLORATION, name=kind, detail=detail),) if detail else ()


def _draw(weighing: Weighing, row: int) -> str:
    """What Thompson sampling drew for the row, or nothing."""
    theta, beliefs = float(weighing.ranking.drawn_by_row[row]), weighing.beliefs
    if beliefs is None or math.isnan(theta):
        return ""
    return f"drew {theta:.4g} from Beta({beliefs.a[row]:g}, {beliefs.b[row]:g}) in place of the prediction"
