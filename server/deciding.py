"""The engine's call, the same for a live request and for a replay: what was left out is read from the degradations."""

from __future__ import annotations

from decision.bundle import Bundle, PlacementPlan
from decision.engine import decide
from decision.frame import Frame
from decision.record import Decision, Degradation, DegradationKind, Request

ATTRIBUTIONS_NEED_S = 0.003
"""Budget below which the features that counted are not worked out."""
SCORING_NEEDS_S = 0.001
"""Budget below which the model is left out."""
ATTRIBUTIONS = "feature attributions"


def left_out(plan: PlacementPlan, left_s: float) -> tuple[Degradation, ...]:
    """What a decision at this placement goes without when `left_s` seconds of its budget are left."""
    found = []
    if plan.scoring is not None and left_s < ATTRIBUTIONS_NEED_S:
        found.append(_skipped(ATTRIBUTIONS, "no time was left to name the features that counted"))
    if plan.scoring is not None and left_s < SCORING_NEEDS_S:
        found.append(_skipped(plan.scoring.handle.name, "no time was left to score"))
    return tuple(found)


def run_engine(
    request: Request, frame: Frame, bundle: Bundle, now_us: int, seed: int, degraded: tuple[Degradation, ...]
) -> Decision:
    """Decide, going without what `degraded` says."""
    return decide(
        request,
        frame,
        bundle,
        now_us=now_us,
        seed=seed,
        degraded=degraded,
        skip_scoring=skips_scoring(bundle.placement(request.placement), degraded),
        attributions=ATTRIBUTIONS not in _names_skipped(degraded),
    )


def skips_scoring(plan: PlacementPlan, degraded: tuple[Degradation, ...]) -> bool:
    """Whether the model was left out for want of time."""
    return plan.placement.model in _names_skipped(degraded)


def _names_skipped(degraded: tuple[Degradation, ...]) -> set[str]:
    return {item.name for item in degraded if item.kind is DegradationKind.SCORING_SKIPPED}


def loaded_model(plan: PlacementPlan) -> str:
    """The placement's loaded model as name@version, or empty."""
    return str(plan.scoring.handle) if plan.scoring is not None else ""


def loaded_labellers(plan: PlacementPlan) -> tuple[str, ...]:
    """The placement's loaded segmentation models as name@version, by name."""
    return tuple(str(label.handle) for label in plan.labels if label.handle is not None)


def _skipped(name: str, detail: str) -> Degradation:
    return Degradation(kind=DegradationKind.SCORING_SKIPPED, name=name, detail=detail)
