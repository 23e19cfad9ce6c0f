"""Proof that the ASOF join gives what Feast's own `get_historical_features` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from training.dataset import Dataset
from training.errors import DatasetError
from training.labels import TIME

if TYPE_CHECKING:
    from feast import FeatureStore

EVENT_TIMESTAMP = "event_timestamp"
MAX_DIFFERENCES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One cell that is not equal."""

    row: str
    column: str
    ours: object
    feasts: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was compared.

    Attributes:
        missing_count: Cells that are NULL on both sides.
        differences: The first of them.
    """

    row_count: int
    column_count: int
    missing_count: int
    difference_count: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        return self.difference_count == 0


def verify_against_feast(
    store: FeatureStore, service: str, dataset: Dataset, row_count: int = 2_000, seed: int = 0
) -> Verification:
    """Ask Feast for the features of sampled rows and compare every cell, exactly.

    Args:
        store: A Feast store to whose registry the repo has been applied.
        service: The feature service that `dataset` was built from.
        dataset: Rows to sample from.
        row_count: How many; all rows where there are fewer.
        seed: Of the sample.

    Raises:
        DatasetError: If Feast does not give back exactly the rows it was asked for.
    """
    sample = _sample(dataset, row_count, seed)
    ours = _indexed(_comparable(sample, dataset), dataset)
    feasts = _indexed(_historical(store, service, sample, dataset), dataset)
    if not ours.index.equals(feasts.index):
        raise DatasetError(f"Feast gave back {len(feasts)} rows for {len(ours)}: they cannot be compared")
    return _compare(ours, feasts)


def _sample(dataset: Dataset, row_count: int, seed: int) -> pa.Table:
    total = dataset.table.num_rows
    chosen = np.random.default_rng(seed).choice(total, size=min(row_count, total), replace=False)
    return dataset.table.take(pa.array(np.sort(chosen)))


def _comparable(table: pa.Table, dataset: Dataset) -> pd.DataFrame:
    names = [*dataset.join_keys, TIME, *dataset.column_names]
    frame: pd.DataFrame = table.select(names).to_pandas()
    return frame


def _historical(store: FeatureStore, service: str, sample: pa.Table, dataset: Dataset) -> pd.DataFrame:
    entities = sample.select([*dataset.join_keys, TIME]).to_pandas()
    entities[EVENT_TIMESTAMP] = pd.to_datetime(entities.pop(TIME), unit="us", utc=True).astype(
        "datetime64[us, UTC]"
    )
    job = store.get_historical_features(
        entity_df=entities, features=store.get_feature_service(service), full_feature_names=True
    )
    frame: pd.DataFrame = job.to_df()
    frame[TIME] = _micros(frame.pop(EVENT_TIMESTAMP))
    return frame[[*dataset.join_keys, TIME, *dataset.column_names]]


def _indexed(frame: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Rows by keys and time, sorted, so that both sides line up."""
    return frame.set_index([*dataset.join_keys, TIME]).sort_index()


def _compare(ours: pd.DataFrame, feasts: pd.DataFrame) -> Verification:
    found: list[Difference] = []
    total = missing = 0
    for name in ours.columns:
        left, right = _cells(ours[name]), _cells(feasts[name])
        both_missing = pd.isna(left) & pd.isna(right)
        unequal = ~both_missing & ~np.equal(left, right).astype(bool)
        missing += int(both_missing.sum())
        total += int(unequal.sum())
        for position in np.flatnonzero(unequal)[: MAX_DIFFERENCES - len(found)]:
            row = str(ours.index[position])
            found.append(Difference(row=row, column=name, ours=left[position], feasts=right[position]))
    return Verification(
        row_count=len(ours),
        column_count=len(ours.columns),
        missing_count=missing,
        difference_count=total,
        differences=tuple(found),
    )


def _cells(column: pd.Series) -> np.ndarray:
    """Numbers as float64, timestamps as µs in float64 (exact up to 2^53), the rest as objects."""
    if pd.api.types.is_datetime64_any_dtype(column):
        column = _micros(column).where(column.notna())
    kind: type = float if pd.api.types.is_numeric_dtype(column) else object
    cells: np.ndarray = column.to_numpy(kind, na_value=np.nan) if kind is float else column.to_numpy(kind)
    return cells


def _micros(times: pd.Series) -> pd.Series:
    naive = times.dt.tz_convert("UTC").dt.tz_localize(None) if times.dt.tz is not None else times
    return naive.astype("datetime64[us]").astype("int64")
