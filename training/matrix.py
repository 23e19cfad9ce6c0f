"""From a set's stored values to what XGBoost learns from.

The same rules as `decision.scoring` applies when it serves: a timestamp enters as its age in days at the decision, a
string as a category, everything else as a number, and NULL is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from decision.schema import Catalog, DType, FeatureRef
from decision.scoring import column_name
from training.dataset import Dataset
from training.errors import DatasetError

DAY_US: Final = 86_400_000_000
MAX_CATEGORIES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How each column enters.

    Attributes:
        dtypes: The rule language's type of each feature, by column name, in order.
        categories: Values seen in training, sorted, by name of a string column; others are missing.
    """

    dtypes: Mapping[str, DType]
    categories: Mapping[str, tuple[str, ...]]


def learn_encoding(catalog: Catalog, dataset: Dataset) -> Encoding:
    """The encoding that rows of `dataset`, the training split, call for.

    Raises:
        DatasetError: If a feature is a list or bytes, or a string has more than `MAX_CATEGORIES` values.
    """
    dtypes = {column_name(ref): _scalar_dtype(catalog, ref) for ref in dataset.features}
    strings = [name for name, dtype in dtypes.items() if dtype is DType.STRING]
    return Encoding(
        dtypes=dtypes, categories={name: _categories(name, dataset.table[name]) for name in strings}
    )


def encode(encoding: Encoding, dataset: Dataset) -> pd.DataFrame:
    """One column per feature in order: float32 with NaN for missing, or pandas categories for strings."""
    times_us = dataset.times_us
    columns: dict[str, object] = {}
    for name, dtype in encoding.dtypes.items():
        column = dataset.table[name]
        if dtype is DType.STRING:
            columns[name] = pd.Categorical(column.to_pandas(), categories=list(encoding.categories[name]))
        elif dtype is DType.TIMESTAMP:
            columns[name] = ages_days(column, times_us)
        else:
            columns[name] = _float64(column).astype(np.float32)
    return pd.DataFrame(columns)


def ages_days(column: pa.ChunkedArray, times_us: np.ndarray) -> np.ndarray:
    """Age in days of int64 microseconds at each row's decision, float32; NaN for NULL."""
    known = pc.fill_null(column, 0).to_numpy()
    ages = (times_us - known) / DAY_US
    return np.where(column.is_valid().to_numpy(), ages, np.nan).astype(np.float32)


def numbers(encoding: Encoding, dataset: Dataset, name: str) -> np.ndarray:
    """One numeric or timestamp column as float64, timestamps as age in days."""
    if encoding.dtypes[name] is DType.TIMESTAMP:
        return ages_days(dataset.table[name], dataset.times_us).astype(np.float64)
    return _float64(dataset.table[name])


def _float64(column: pa.ChunkedArray) -> np.ndarray:
    numbers: np.ndarray = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    return numbers


def _scalar_dtype(catalog: Catalog, ref: FeatureRef) -> DType:
    dtype = catalog.feature(ref).dtype
    if dtype is None or dtype.value.endswith("_list"):
        raise DatasetError(
            f"feature {ref} is a list or bytes: a model reads numbers, bools, strings and timestamps"
        )
    return dtype


def _categories(name: str, column: pa.ChunkedArray) -> tuple[str, ...]:
    values = tuple(sorted(value for value in pc.unique(column).to_pylist() if value is not None))
    if len(values) > MAX_CATEGORIES:
        raise DatasetError(f"{name} has {len(values)} values: at most {MAX_CATEGORIES} can be categories")
    return values
