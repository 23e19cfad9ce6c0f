"""How good predicted probabilities are. Labels are 0 or 1, predictions in [0, 1], both of shape (rows,)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows with similar predictions: how many, what was predicted on average, and how often it happened."""

    row_count: int
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One predictor on one set.

    Attributes:
        auc: Probability that a random positive is ranked above a random negative; ties count half.
        log_loss: Mean negative log-likelihood, in nats.
        calibration_error: Mean |predicted − observed| over bins of equal size, weighted by rows (ECE).
        calibration: The bins, from the lowest predictions to the highest.
    """

    row_count: int
    positive_count: int
    auc: float
    log_loss: float
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]


def measure(labels: np.ndarray, predictions: np.ndarray, bin_count: int = 10) -> Metrics:
    """All metrics of one predictor."""
    bins = calibration(labels, predictions, bin_count)
    return Metrics(
        row_count=len(labels),
        positive_count=int(labels.sum()),
        auc=auc(labels, predictions),
        log_loss=log_loss(labels, predictions),
        calibration_error=calibration_error(bins),
        calibration=bins,
    )


def auc(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Area under the ROC curve from average ranks; NaN where all labels are equal."""
    positive = labels > 0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(predictions, return_inverse=True, return_counts=True)
    average_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(average_ranks[inverse][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean negative log-likelihood; predictions are kept `SMALLEST_PROBABILITY` away from 0 and 1."""
    clipped = np.clip(predictions.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return float(-np.mean(np.where(labels > 0, np.log(clipped), np.log1p(-clipped))))


def calibration(
    labels: np.ndarray, predictions: np.ndarray, bin_count: int = 10
) -> tuple[CalibrationBin, ...]:
    """Rows sorted by prediction and cut into `bin_count` parts of equal size (fewer where there are fewer rows)."""
    order = np.argsort(predictions, kind="stable")
    parts = [part for part in np.array_split(order, bin_count) if len(part)]
    return tuple(
        CalibrationBin(
            row_count=len(part),
            predicted=float(predictions[part].mean(dtype=np.float64)),
            observed=float(labels[part].mean(dtype=np.float64)),
        )
        for part in parts
    )


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean |predicted − observed|, weighted by rows."""
    total = sum(part.row_count for part in bins)
    return sum(part.row_count * abs(part.predicted - part.observed) for part in bins) / total
