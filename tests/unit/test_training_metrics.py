"""Metrics and baselines against what can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.baselines import fit_binned_rate
from training.definition import Gate
from training.errors import GateRefusedError
from training.evaluate import Evaluation, check_gate
from training.metrics import Metrics, auc, calibration, calibration_error, log_loss, measure


def test_auc_counts_pairs_with_ties_as_half() -> None:
    """AUC is the share of (positive, negative) pairs in the right order, ties half."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 200).astype(np.float32)
    scores = rng.integers(0, 7, 200) / 7
    positives, negatives = scores[labels > 0], scores[labels == 0]
    pairs = np.sign(positives[:, None] - negatives[None, :])
    assert auc(labels, scores) == pytest.approx(((pairs + 1) / 2).mean())


def test_auc_without_both_classes_is_unknown() -> None:
    """Where nothing or everything happened there is no order to judge."""
    assert math.isnan(auc(np.ones(3), np.arange(3.0)))


def test_log_loss_equals_definition_and_survives_certainty() -> None:
    """The mean negative log-likelihood, finite even for a certain and wrong prediction."""
    assert log_loss(np.array([1.0, 0.0]), np.array([0.8, 0.4])) == pytest.approx(
        -(math.log(0.8) + math.log(0.6)) / 2
    )
    assert math.isfinite(log_loss(np.array([1.0]), np.array([0.0])))


def test_calibration_error_of_a_constant_is_its_offset() -> None:
    """Predicting 0.3 for everything that happens half of the time is off by 0.2."""
    labels = np.tile([0.0, 1.0], 50)
    assert calibration_error(calibration(labels, np.full(100, 0.3))) == pytest.approx(0.2)


def test_binned_rate_predicts_training_rates() -> None:
    """Each bin predicts its own rate, missing values theirs, and unseen values the nearest bin's."""
    values = np.array([1.0, 1.0, 2.0, 2.0, np.nan, np.nan])
    rate = fit_binned_rate(values, np.array([0.0, 1.0, 1.0, 1.0, 0.0, 0.0]))
    predicted = rate.predict(np.array([1.0, 2.0, np.nan, 99.0, -99.0]))
    assert predicted[[0, 1, 2, 3]].tolist() == [0.5, 1.0, 0.0, 1.0]
    assert 0 <= predicted[4] <= 1


def test_binned_rate_of_missing_values_only() -> None:
    """A feature that never had a value predicts the overall rate."""
    rate = fit_binned_rate(np.full(4, np.nan), np.array([1.0, 0.0, 0.0, 0.0]))
    assert rate.predict(np.array([np.nan, 3.0])).tolist() == [0.25, 0.25]


def evaluation(scores: np.ndarray, rival: np.ndarray, labels: np.ndarray) -> Evaluation:
    return Evaluation(model=measure(labels, scores), baselines={"rival": measure(labels, rival)})


def test_gate_keeps_the_better_and_refuses_the_worse() -> None:
    """A model passes where it beats its rival by what the gate asks, and the error names each bound it misses."""
    labels = np.tile([0.0, 0.0, 1.0, 1.0], 25)
    good, bad = np.tile([0.0, 0.0, 1.0, 1.0], 25), np.tile([0.5], 100)
    gate = Gate(min_auc_gain=0.1, max_log_loss_ratio=0.9, max_calibration_error=0.05)
    check_gate(gate, evaluation(good, bad, labels), "m")
    with pytest.raises(GateRefusedError, match=r"AUC .* log-loss .* of the best baseline"):
        check_gate(gate, evaluation(bad, good, labels), "m")


def test_gate_refuses_unknown_auc() -> None:
    """A test split without positives cannot approve a model."""
    unknown = Metrics(
        row_count=3, positive_count=0, auc=math.nan, log_loss=0.1, calibration_error=0.0, calibration=()
    )
    with pytest.raises(GateRefusedError, match="AUC nan"):
        check_gate(Gate(), Evaluation(model=unknown, baselines={"rival": unknown}), "m")
