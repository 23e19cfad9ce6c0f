"""Models that tell segments: K-Means, and forests of several classes. From a definition to a stored model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray

from decision.schema import Catalog, DType, Service
from training import registry
from training.clusters import find_clusters
from training.dataset import Dataset, features_at, find_service
from training.definition import ClassesDefinition, KMeansDefinition
from training.errors import DatasetError, DefinitionError, GateRefusedError, TrainingError
from training.labels import EPOCH, TIME
from training.matrix import encode, learn_encoding
from training.registry import Manifest, SplitSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grown:
    """A model file and what is said of it."""

    kind: Literal["classes", "kmeans"]
    data: bytes
    splits: dict[str, SplitSummary]
    metrics: dict[str, dict[str, float]]
    round_count: int = 0
    parameters: dict[str, str | int | float] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """Where rows come from."""

    catalog: Catalog
    service: Service
    events: pd.DataFrame
    entity: str
    thread_count: int

    def rows(self, instants: Sequence[datetime]) -> Dataset:
        """A row for each instant and each entity that an event came from up to it, in that order."""
        first_us = _times_us(self.events).groupby(self.events[self.entity], sort=True).min()
        parts = [(us, first_us.index[first_us <= us]) for us in map(_us, instants)]
        keys = [key for _, part in parts for key in part]
        if not keys:
            raise DatasetError(
                f"no event lies at or before {max(instants)}: give later instants or older events"
            )
        times_us = np.concatenate([np.full(len(part), us, np.int64) for us, part in parts])
        wanted = pa.table({self.entity: pa.array(keys), TIME: pa.array(times_us)})
        table = features_at(
            catalog=self.catalog, service=self.service, rows=wanted, thread_count=self.thread_count
        )
        return Dataset(table=table, features=self.service.features, join_keys=(self.entity,))


def train_segmentation(
    *,
    definition: KMeansDefinition | ClassesDefinition,
    catalog: Catalog,
    events: pd.DataFrame,
    models_dir: Path,
    now_us: int,
    thread_count: int = 2,
    progress: Callable[[str], None] = lambda _stage: None,
) -> Manifest:
    """Train, judge, store and put into use.

    Args:
        definition: What to train.
        catalog: Views with their offline paths, and the feature service.
        events: Columns event_type, event_time (datetime64[us, UTC]) and the entity's join key.
        models_dir: The registry.
        now_us: Recorded as the time of training.
        thread_count: Of DuckDB and XGBoost.
        progress: Told which stage begins: set, grow.

    Raises:
        TrainingError: If the set cannot be built, XGBoost refuses, or the model is not good enough.
    """
    service = find_service(catalog, definition.feature_service)
    known = events[events[definition.entity].notna()]
    world = _World(
        catalog=catalog, service=service, events=known, entity=definition.entity, thread_count=thread_count
    )
    progress("set")
    train = world.rows(definition.instants)
    progress("grow")
    if isinstance(definition, KMeansDefinition):
        grown = _clusters(definition, catalog, train)
    else:
        grown = _classes(definition, world, train)
    manifest = Manifest(
        kind=grown.kind,
        labels=definition.labels,
        name=definition.name,
        version=registry.version_of(grown.data, definition.labels),
        content_hash=hashlib.sha256(grown.data).hexdigest(),
        description=definition.description,
        feature_service=definition.feature_service,
        features=tuple(map(str, service.features)),
        horizon_s=definition.horizon_s if isinstance(definition, ClassesDefinition) else 0,
        round_count=grown.round_count,
        splits=grown.splits,
        metrics=grown.metrics,
        catalog_hash=catalog.content_hash,
        definition_hash=definition.content_hash,
        parameters={**grown.parameters, "seed": definition.seed},
        libraries=grown.libraries,
        created_us=now_us,
    )
    registry.save(models_dir, manifest, grown.data)
    registry.promote(models_dir, manifest.name, manifest.version)
    return manifest


def _clusters(definition: KMeansDefinition, catalog: Catalog, train: Dataset) -> _Grown:
    names = train.column_names
    order_by = definition.order_by.replace(".", "__")
    texts = [str(ref) for ref in train.features if catalog.feature(ref).dtype is DType.STRING]
    if texts:
        raise DefinitionError(f"{definition.name}: {texts[0]} is text, which has no distance: leave it out")
    if order_by not in names:
        raise DefinitionError(
            f"{definition.name}: order_by {definition.order_by} is no feature of {definition.feature_service}"
        )
    rows = encode(learn_encoding(catalog, train), train).to_numpy(np.float32)
    found = find_clusters(
        names,
        rows,
        len(definition.labels),
        seed=definition.seed,
        restarts=definition.restarts,
        max_rounds=definition.max_rounds,
    ).sorted_by(names.index(order_by))
    shares = dict(zip(definition.labels, found.shares.tolist(), strict=True))
    for label, share in shares.items():
        if share <= 0 or share < definition.least_share:
            raise GateRefusedError(
                f"model {definition.name} is not kept: {label!r} holds {share:.2%} of the rows; ask for fewer clusters"
            )
    return _Grown(
        kind="kmeans",
        data=found.centroids.to_bytes(),
        splits={"train": _summary(train)},
        metrics={"model": {"explained": round(found.explained, 6)}, "share": _rounded(shares)},
        libraries={"numpy": np.__version__},
    )


def _classes(definition: ClassesDefinition, world: _World, train: Dataset) -> _Grown:
    test = world.rows(definition.test_instants)
    encoding = learn_encoding(world.catalog, train)
    labels, wanted = _outcomes(definition, world, train), _outcomes(definition, world, test)
    parameters: dict[str, str | int | float] = {
        **definition.boosting.parameters,
        "objective": "multi:softprob",
        "num_class": len(definition.labels),
    }
    threads = {"seed": definition.seed, "nthread": world.thread_count}
    data = xgb.DMatrix(encode(encoding, train), labels, enable_categorical=True, nthread=world.thread_count)
    try:
        booster = xgb.train({**parameters, **threads}, data, definition.boosting.max_rounds)
    except xgb.core.XGBoostError as error:
        reason = str(error).partition("\nStack trace")[0]
        raise TrainingError(f"{definition.name}: XGBoost refused the training: {reason}") from error
    told = booster.inplace_predict(encode(encoding, test)).argmax(axis=1)
    frequent = np.bincount(labels, minlength=len(definition.labels)).argmax()
    accuracy, baseline = float((told == wanted).mean()), float((frequent == wanted).mean())
    if accuracy < baseline + definition.min_accuracy_gain:
        raise GateRefusedError(
            f"model {definition.name} is not kept: {accuracy:.4f} of its classes are right, those of the most "
            f"frequent class are {baseline:.4f}"
        )
    shares = np.bincount(told, minlength=len(definition.labels)) / len(told)
    return _Grown(
        kind="classes",
        data=bytes(booster.save_raw("ubj")),
        splits={"train": _summary(train), "test": _summary(test)},
        metrics={
            "model": {"accuracy": round(accuracy, 6)},
            "most_frequent": {"accuracy": round(baseline, 6)},
            "share": _rounded(dict(zip(definition.labels, shares.tolist(), strict=True))),
        },
        round_count=booster.num_boosted_rounds(),
        parameters={**parameters, "nthread": world.thread_count},
        libraries={"xgboost": xgb.__version__},
    )


def _outcomes(definition: ClassesDefinition, world: _World, rows: Dataset) -> NDArray[np.int64]:
    """int64[n]: the first class of which enough events lie in (t, t + horizon], else the last."""
    keys, starts = rows.table[world.entity].to_pylist(), rows.times_us
    found = np.full(len(keys), len(definition.classes), np.int64)
    for place, item in reversed(list(enumerate(definition.classes))):
        events = world.events[world.events["event_type"] == item.event_type]
        times = {key: np.sort(part) for key, part in _times_us(events).groupby(events[world.entity])}
        empty = np.zeros(0, np.int64)
        for row, (key, start) in enumerate(zip(keys, starts.tolist(), strict=True)):
            bounds = np.searchsorted(
                times.get(key, empty), [start, start + definition.horizon_s * 1_000_000], side="right"
            )
            if bounds[1] - bounds[0] >= item.at_least:
                found[row] = place
    return found


def _times_us(events: pd.DataFrame) -> pd.Series[int]:
    index = pd.DatetimeIndex(events["event_time"]).as_unit("us")
    return pd.Series(index.asi8, index=events.index)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _summary(rows: Dataset) -> SplitSummary:
    times_us = rows.times_us
    return SplitSummary(row_count=len(times_us), first_us=int(times_us.min()), last_us=int(times_us.max()))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}
