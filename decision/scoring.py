"""Scoring: a model's rows out of fetched values, and its predictions.

A model reads the features of its feature service in the order of its columns, `view__feature`. A timestamp enters as
its age in days at the decision's clock, so that training and serving mean the same by it; everything else enters as
it is, and NULL is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from decision.errors import BundleError
from decision.schema import Catalog, DType, FeatureRef, Value

if TYPE_CHECKING:  # a policy without models needs no kernels
    from decision.forest import Forest

_DAY_US: Final = 86_400_000_000
_SCALARS: Final = frozenset({DType.BOOL, DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHandle:
    """A loaded model.

    Attributes:
        features: The features behind the forest's columns, in the forest's order.
        forest: Must have one output.
    """

    name: str
    version: str
    features: tuple[FeatureRef, ...]
    forest: Forest

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input of a model: canonical name of its feature, its level, and how it enters."""

    name: str
    per_candidate: bool
    is_timestamp: bool

    def read(self, row: Mapping[str, Value], now_us: int) -> Value:
        value = row.get(self.name)
        return (now_us - value) / _DAY_US if self.is_timestamp and isinstance(value, int) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPlan:
    """A model with its inputs resolved."""

    handle: ModelHandle
    columns: tuple[Column, ...]

    def matrix(
        self, customer: Mapping[str, Value], candidates: Sequence[Mapping[str, Value]], now_us: int
    ) -> NDArray[np.float32]:
        """The forest's rows, shape (len(candidates), columns), out of values by canonical name.

        What is the same for all candidates is encoded once.
        """
        encode = self.handle.forest.encode
        absent: list[Value] = [None] * len(candidates)
        rows = encode(
            [
                [column.read(row, now_us) for row in candidates] if column.per_candidate else absent
                for column in self.columns
            ]
        ).rows
        shared = encode([[column.read(customer, now_us)] for column in self.columns]).rows
        same = [index for index, column in enumerate(self.columns) if not column.per_candidate]
        rows[:, same] = shared[0, same]
        return rows

    def predict(self, matrix: NDArray[np.float32]) -> list[float] | None:
        """One prediction per row; None where the model gives something that is not a finite number."""
        predictions = self.handle.forest.predict(matrix)
        if not np.isfinite(predictions).all():
            return None
        return [float(prediction) for prediction in predictions.reshape(len(matrix))]

    def top_features(self, matrix: NDArray[np.float32], count: int) -> list[list[tuple[Column, float]]]:
        """Per row the features that counted most, with their contributions to the margin, largest first.

        Empty lists where the model has nothing to attribute by.
        """
        from decision.forest import ForestInputError

        try:
            contributions = self.handle.forest.contributions(matrix)[:, 0, :-1]
        except ForestInputError:
            return [[] for _ in matrix]
        order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :count]
        return [
            [(self.columns[index], float(row[index])) for index in best if row[index]]
            for row, best in zip(contributions, order, strict=True)
        ]


def column_name(ref: FeatureRef) -> str:
    """The model's name for a feature: XGBoost and DuckDB take no dots."""
    return f"{ref.view}__{ref.feature}"


def plan_scoring(handle: ModelHandle, catalog: Catalog, customer_views: Collection[str]) -> ScoringPlan:
    """Resolve a model's inputs.

    Args:
        handle: The model.
        catalog: Types of the features.
        customer_views: Views that are read once per customer; all others are read per candidate.

    Raises:
        BundleError: If the model has several outputs, or its features are not the forest's columns, are not in the
            catalog, or are lists or bytes.
    """
    names = tuple(column_name(ref) for ref in handle.features)
    if names != tuple(handle.forest.feature_names):
        raise BundleError(
            f"model {handle}: its features {names} are not its columns {handle.forest.feature_names}"
        )
    if handle.forest.group_count != 1:
        raise BundleError(f"model {handle} gives {handle.forest.group_count} outputs; a placement needs one")
    columns = tuple(_column(handle, ref, catalog, customer_views) for ref in handle.features)
    return ScoringPlan(handle=handle, columns=columns)


def _column(
    handle: ModelHandle, ref: FeatureRef, catalog: Catalog, customer_views: Collection[str]
) -> Column:
    try:
        dtype = catalog.feature(ref).dtype
    except KeyError:
        raise BundleError(f"model {handle} reads {ref}, which is no feature of the catalog") from None
    if dtype not in _SCALARS:
        raise BundleError(
            f"model {handle} reads {ref}, which is neither a number, bool, string nor timestamp"
        )
    per_candidate = ref.view not in customer_views
    return Column(name=str(ref), per_candidate=per_candidate, is_timestamp=dtype is DType.TIMESTAMP)
