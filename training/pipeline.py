"""From a definition to a stored model: build the set, grow, judge, keep."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
import xgboost as xgb

from decision.schema import Catalog, Value
from training import registry
from training.dataset import Dataset, build_dataset
from training.definition import SPLITS, TrainingDefinition
from training.evaluate import Evaluation, check_gate, evaluate
from training.matrix import Encoding, encode, learn_encoding
from training.metrics import Metrics
from training.registry import Manifest, SplitSummary
from training.train import Examples, grow

_KEPT_METRICS: Final = ("auc", "log_loss", "calibration_error")

Progress = Callable[[str], None]
"""Told which stage begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that passed its gate and is in use, with the set it came from.

    `seconds` is the wall time of each stage.
    """

    manifest: Manifest
    folder: Path
    dataset: Dataset
    evaluation: Evaluation
    seconds: dict[str, float]


def train_model(
    *,
    definition: TrainingDefinition,
    catalog: Catalog,
    events: pd.DataFrame,
    candidates: Sequence[Mapping[str, Value]],
    models_dir: Path,
    now_us: int,
    thread_count: int = 2,
    progress: Progress = lambda _stage: None,
) -> TrainedModel:
    """Train, judge against the gate, store and put into use.

    Args:
        definition: What to train.
        catalog: Views with their offline paths, and the feature service.
        events: Columns event_type, event_time (datetime64[us, UTC]) and the label's join keys; labels come from here.
        candidates: Join keys of each candidate offer.
        models_dir: The registry.
        now_us: Recorded as the time of training.
        thread_count: Of DuckDB and XGBoost.
        progress: Told which stage begins: set, grow, judge.

    Raises:
        TrainingError: If the set cannot be built, XGBoost refuses, or the gate does.
    """
    clock = _Stages(progress)
    clock.begin("set")
    dataset = build_dataset(
        definition=definition,
        catalog=catalog,
        events=events,
        candidates=candidates,
        thread_count=thread_count,
    )
    clock.begin("grow")
    train, test = dataset.split("train"), dataset.split("test")
    encoding = learn_encoding(catalog, train)
    booster = grow(
        definition, _examples(encoding, train), _examples(encoding, dataset.split("validation")), thread_count
    )
    clock.begin("judge")
    evaluation = evaluate(definition, booster, encoding, train, test)
    check_gate(definition.gate, evaluation, definition.name)
    data = bytes(booster.save_raw("ubj"))
    manifest = _manifest(definition, catalog, dataset, evaluation, booster, data, now_us, thread_count)
    folder = registry.save(models_dir, manifest, data)
    registry.promote(models_dir, manifest.name, manifest.version)
    clock.end()
    return TrainedModel(
        manifest=manifest, folder=folder, dataset=dataset, evaluation=evaluation, seconds=clock.seconds
    )


class _Stages:
    """Wall time per stage."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._running: tuple[str, float] | None = None

    def begin(self, stage: str) -> None:
        self.end()
        self._progress(stage)
        self._running = (stage, time.monotonic())

    def end(self) -> None:
        if self._running:
            stage, started = self._running
            self.seconds[stage] = time.monotonic() - started


def _examples(encoding: Encoding, dataset: Dataset) -> Examples:
    return Examples(rows=encode(encoding, dataset), labels=dataset.labels)


def _manifest(
    definition: TrainingDefinition,
    catalog: Catalog,
    dataset: Dataset,
    evaluation: Evaluation,
    booster: xgb.Booster,
    data: bytes,
    now_us: int,
    thread_count: int,
) -> Manifest:
    measured = {"model": evaluation.model, **evaluation.baselines}
    bins = evaluation.model.calibration
    return Manifest(
        name=definition.name,
        version=registry.version_of(data),
        content_hash=hashlib.sha256(data).hexdigest(),
        description=definition.description,
        feature_service=definition.feature_service,
        features=tuple(map(str, dataset.features)),
        label=definition.label.event_type,
        horizon_s=definition.label.horizon_s,
        round_count=booster.num_boosted_rounds(),
        splits={name: _summary(dataset.split(name)) for name in SPLITS},
        metrics={name: _kept(metrics) for name, metrics in measured.items()},
        calibration=tuple(
            (part.row_count, round(part.predicted, 6), round(part.observed, 6)) for part in bins
        ),
        catalog_hash=catalog.content_hash,
        definition_hash=definition.content_hash,
        parameters={**definition.boosting.parameters, "seed": definition.seed, "nthread": thread_count},
        libraries={"xgboost": xgb.__version__},
        created_us=now_us,
    )


def _kept(metrics: Metrics) -> dict[str, float]:
    return {name: round(getattr(metrics, name), 6) for name in _KEPT_METRICS}


def _summary(dataset: Dataset) -> SplitSummary:
    times_us = dataset.times_us
    return SplitSummary(
        row_count=len(times_us),
        positive_count=int(dataset.labels.sum()),
        first_us=int(times_us.min()),
        last_us=int(times_us.max()),
    )
