"""Growing the forest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xgboost as xgb

from training.definition import TrainingDefinition
from training.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Encoded rows and their labels (float32, 0 or 1)."""

    rows: pd.DataFrame
    labels: np.ndarray


def grow(
    definition: TrainingDefinition, train: Examples, validation: Examples, thread_count: int
) -> xgb.Booster:
    """Train on `train`, stop when `validation` no longer improves, and keep the rounds up to the best one.

    Same data, definition and thread count give the same model.

    Raises:
        TrainingError: If XGBoost refuses a parameter.
    """
    try:
        return _grow(definition, train, validation, thread_count)
    except xgb.core.XGBoostError as error:
        reason = str(error).partition("\nStack trace")[0]
        raise TrainingError(f"{definition.name}: XGBoost refused the training: {reason}") from error


def _grow(
    definition: TrainingDefinition, train: Examples, validation: Examples, thread_count: int
) -> xgb.Booster:
    boosting = definition.boosting
    shared = {
        "enable_categorical": True,
        "nthread": thread_count,
        "max_bin": boosting.parameters.get("max_bin", 256),
    }
    binned = xgb.QuantileDMatrix(train.rows, train.labels, **shared)
    checked = xgb.QuantileDMatrix(validation.rows, validation.labels, ref=binned, **shared)
    parameters = {**boosting.parameters, "seed": definition.seed, "nthread": thread_count}
    searched = xgb.train(
        parameters,
        binned,
        num_boost_round=boosting.max_rounds,
        evals=[(checked, "validation")],
        early_stopping_rounds=boosting.early_stopping_rounds,
        verbose_eval=False,
    )
    # Grown again instead of sliced: a slice of an XGBoost 3.2 model loses the names of its categories, and text that
    # is encoded by another list would silently mean something else.
    return xgb.train(parameters, binned, num_boost_round=searched.best_iteration + 1)


def predict(booster: xgb.Booster, rows: pd.DataFrame) -> np.ndarray:
    """Predictions for encoded rows, float32, shape (rows,)."""
    predictions: np.ndarray = booster.inplace_predict(rows)
    return predictions
