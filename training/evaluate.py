"""The model and its rivals on the test split."""

from __future__ import annotations

from dataclasses import dataclass

import xgboost as xgb

from decision.schema import FeatureRef
from decision.scoring import column_name
from training.baselines import fit_binned_rate
from training.dataset import Dataset
from training.definition import Baseline, Gate, TrainingDefinition
from training.errors import DefinitionError, GateRefusedError
from training.matrix import Encoding, encode, numbers
from training.metrics import Metrics, measure
from training.train import predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics on the test split: the model's and, by name, each baseline's."""

    model: Metrics
    baselines: dict[str, Metrics]


def evaluate(
    definition: TrainingDefinition, booster: xgb.Booster, encoding: Encoding, train: Dataset, test: Dataset
) -> Evaluation:
    """Measure the model and every baseline on the same test rows; baselines learn from the training rows."""
    model = measure(test.labels, predict(booster, encode(encoding, test)))
    baselines = {item.name: _measure_baseline(item, encoding, train, test) for item in definition.baselines}
    return Evaluation(model=model, baselines=baselines)


def _measure_baseline(baseline: Baseline, encoding: Encoding, train: Dataset, test: Dataset) -> Metrics:
    view, _, feature = baseline.feature.partition(".")
    name = column_name(FeatureRef(view=view, feature=feature))
    if name not in encoding.dtypes or name in encoding.categories:
        raise DefinitionError(
            f"baseline {baseline.name}: {baseline.feature} is no number or timestamp of the feature service"
        )
    rate = fit_binned_rate(numbers(encoding, train, name), train.labels)
    return measure(test.labels, rate.predict(numbers(encoding, test, name)))


def check_gate(gate: Gate, evaluation: Evaluation, name: str) -> None:
    """Refuse a model that does not beat its rivals.

    Raises:
        GateRefusedError: With every bound that is not met.
    """
    model, rivals = evaluation.model, evaluation.baselines.values()
    problems = []
    if rivals and not model.auc >= max(rival.auc for rival in rivals) + gate.min_auc_gain:
        problems.append(f"AUC {model.auc:.4f} is not {gate.min_auc_gain} above the best baseline's")
    if rivals and not model.log_loss <= min(rival.log_loss for rival in rivals) * gate.max_log_loss_ratio:
        problems.append(
            f"log-loss {model.log_loss:.4f} is over {gate.max_log_loss_ratio} of the best baseline's"
        )
    if not model.calibration_error <= gate.max_calibration_error:
        problems.append(
            f"calibration error {model.calibration_error:.4f} is over {gate.max_calibration_error}"
        )
    if problems:
        raise GateRefusedError(f"model {name} is not kept: {'; '.join(problems)}")
