"""Scoring: a model's rows out of fetched values, and its predictions.

A model reads the features of its feature service in the order of its columns, `view__feature`. A timestamp enters as
its age in days at the decision's clock, so that training and serving mean the same by it; everything else enters as
it is, and NULL is missing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from decision import kernels
from decision.errors import BundleError
from decision.frame import Block, Layout, clean
from decision.record import Degradation, DegradationKind
from decision.schema import Catalog, DType, FeatureRef, Value

if TYPE_CHECKING:  # a policy without models needs no forest
    from decision.forest import Forest

_DAY_US: Final = 86_400_000_000
_READS: Final[Mapping[DType, int]] = {
    DType.BOOL: kernels.READ_INT,
    DType.INT64: kernels.READ_INT,
    DType.FLOAT64: kernels.READ_FLOAT,
    DType.TIMESTAMP: kernels.READ_AGE,
}
_SAID_CHARS: Final = 80
"""How much of a category's text an answer repeats."""
_SCALARS: Final = frozenset({DType.BOOL, DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP})


class Reader(Protocol):
    """A model as its inputs see it, written name@version."""

    @property
    def features(self) -> tuple[FeatureRef, ...]:
        """The features behind the model's columns, in the model's order."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The model's own names of its inputs."""

    def codes(self, column: str) -> Mapping[Any, int] | None:
        """Codes of a column's values, or None where the model stores no categories of it."""


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

    @property
    def column_names(self) -> tuple[str, ...]:
        """The forest's own names of its inputs."""
        return tuple(self.forest.feature_names)

    def codes(self, column: str) -> Mapping[Any, int] | None:
        """Codes of a column's values, or None where the forest stores no categories of it."""
        return self.forest.codes(column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One input of a model: canonical name of its feature, its level, and how it enters."""

    name: str
    per_candidate: bool
    is_timestamp: bool

    def read(self, row: Mapping[str, Value], now_us: int) -> Value:
        """The value that enters, for words."""
        value = row.get(self.name)
        return (now_us - value) / _DAY_US if self.is_timestamp and isinstance(value, int) else value


@dataclass(frozen=True, slots=True)
class Coded:
    """A column whose values the model knows by category: its place in the block and in the matrix."""

    block_column: int
    matrix_column: int
    dtype: DType
    codes: Mapping[Any, int]

    def fill(self, block: Block, index: NDArray[np.int64], matrix: NDArray[np.float32]) -> Value:
        """Write the codes; a category that the model never saw is missing, as is a NULL.

        Returns:
            The first value, by row, that the model never saw; None where it knows all.
        """
        there = index >= 0
        there[there] = block.carries[self.block_column, index[there]]
        words, inverse = np.unique(block.words[self.block_column, index[there]], return_inverse=True)
        values = block.read(self.dtype, words.tolist())
        found = [self.codes.get(value, math.nan) for value in values]
        matrix[there, self.matrix_column] = np.array(found, np.float32)[inverse]
        unseen = [
            place
            for place, value in enumerate(values)
            if value not in self.codes and clean(value) is not None
        ]
        return values[inverse[np.isin(inverse, unseen)][0]] if unseen else None


@dataclass(frozen=True, slots=True)
class Feed:
    """What one block brings to a model's rows: `kernels.fill_matrix`'s table, and what is coded."""

    table: NDArray[np.int64]
    coded: tuple[Coded, ...]

    def fill(
        self, block: Block, index: NDArray[np.int64], now_us: int, matrix: NDArray[np.float32]
    ) -> dict[int, Value]:
        """Write the block's columns into the matrix, whose rows are the block's rows `index`, -1 for none.

        Returns:
            By column of the matrix the first value that the model never saw, where there is one.
        """
        kernels.fill_matrix(self.table, block.words, block.statuses, index, now_us, matrix)
        return self.fill_coded(block, index, matrix)

    def fill_coded(
        self, block: Block, index: NDArray[np.int64], matrix: NDArray[np.float32]
    ) -> dict[int, Value]:
        """As `fill`, of the columns that are coded alone."""
        found = {column.matrix_column: column.fill(block, index, matrix) for column in self.coded}
        return {place: value for place, value in found.items() if value is not None}


class Inputs(NamedTuple):
    """A model's rows, float32[m, columns], and the categories in them that it never saw."""

    matrix: NDArray[np.float32]
    unseen: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPlan:
    """A model with its inputs resolved."""

    handle: ModelHandle
    columns: tuple[Column, ...]
    customer_feed: Feed
    candidate_feed: Feed

    def inputs(self, customer: Block, candidates: Block, index: NDArray[np.int64], now_us: int) -> Inputs:
        """The forest's rows.

        A timestamp enters as its age in days, computed in float64; everything else is rounded once.

        Args:
            customer: Of the plan's layout.
            candidates: Of the plan's layout.
            index: int64[m], the row of `candidates` for each of the forest's, -1 where it was not fetched.
            now_us: The decision's clock.
        """
        matrix = kernels.model_rows(
            self.customer_feed.table,
            customer.words,
            customer.statuses,
            self.candidate_feed.table,
            candidates.words,
            candidates.statuses,
            index,
            now_us,
        )
        return Inputs(matrix, self._code(customer, candidates, index, matrix) if self._is_coded else ())

    @property
    def _is_coded(self) -> bool:
        return bool(self.customer_feed.coded or self.candidate_feed.coded)

    def _code(
        self, customer: Block, candidates: Block, index: NDArray[np.int64], matrix: NDArray[np.float32]
    ) -> tuple[Degradation, ...]:
        unseen = self.customer_feed.fill_coded(customer, np.zeros_like(index), matrix)
        unseen |= self.candidate_feed.fill_coded(candidates, index, matrix)
        return unseen_categories(self.handle, unseen)

    def predict(self, matrix: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """float32[m, 1], one prediction per row; None where the model gives something that is not a finite number."""
        predictions = self.handle.forest.predict(matrix)
        if not kernels.all_finite(predictions):
            return None
        return predictions

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


def unseen_categories(handle: Reader, unseen: Mapping[int, Value]) -> tuple[Degradation, ...]:
    """What a decision says of values that a model never saw, given by its column, in the order of its columns."""
    if not unseen:
        return ()
    return tuple(
        Degradation(
            kind=DegradationKind.UNSEEN_CATEGORY,
            name=str(handle.features[column]),
            detail=f"{str(unseen[column])[:_SAID_CHARS]!r} is no category of {handle}: it counts as missing",
        )
        for column in sorted(unseen)
    )


def column_name(ref: FeatureRef) -> str:
    """The model's name for a feature: XGBoost and DuckDB take no dots."""
    return f"{ref.view}__{ref.feature}"


def plan_columns(handle: Reader, catalog: Catalog, customer_views: Collection[str]) -> tuple[Column, ...]:
    """Resolve a model's inputs.

    Args:
        handle: The model.
        catalog: Types of the features.
        customer_views: Views that are read once per customer; all others are read per candidate.

    Raises:
        BundleError: If its features are not the model's columns, are not in the catalog, or are lists or bytes, or
            texts without categories in the model.
    """
    names = tuple(column_name(ref) for ref in handle.features)
    if names != handle.column_names:
        raise BundleError(f"model {handle}: its features {names} are not its columns {handle.column_names}")
    return tuple(_column(handle, ref, catalog, customer_views) for ref in handle.features)


def plan_scoring(
    handle: ModelHandle, columns: tuple[Column, ...], catalog: Catalog, customer: Layout, candidates: Layout
) -> ScoringPlan:
    """Resolve where the blocks of a plan hold a model's columns; they hold all of them.

    Raises:
        BundleError: If the model has several outputs.
    """
    if handle.forest.group_count != 1:
        raise BundleError(f"model {handle} gives {handle.forest.group_count} outputs; a placement needs one")
    return ScoringPlan(
        handle=handle,
        columns=columns,
        customer_feed=plan_feed(handle, columns, catalog, customer, per_candidate=False),
        candidate_feed=plan_feed(handle, columns, catalog, candidates, per_candidate=True),
    )


def plan_feed(
    handle: Reader, columns: Sequence[Column], catalog: Catalog, layout: Layout, *, per_candidate: bool
) -> Feed:
    """Resolve where a block of this layout holds the columns of its level; it holds all of them."""
    table: list[tuple[int, int, int]] = []
    coded: list[Coded] = []
    for place, (column, ref) in enumerate(zip(columns, handle.features, strict=True)):
        if column.per_candidate is not per_candidate:
            continue
        dtype = cast("DType", catalog.feature(ref).dtype)
        block_column = layout.place[column.name]
        codes = handle.codes(column_name(ref))
        table.append((block_column, place, kernels.READ_NOTHING if codes is not None else _READS[dtype]))
        if codes is not None:
            coded.append(Coded(block_column, place, dtype, codes))
    return Feed(np.array(table, np.int64).reshape(-1, 3), tuple(coded))


def _column(handle: Reader, ref: FeatureRef, catalog: Catalog, customer_views: Collection[str]) -> Column:
    try:
        dtype = catalog.feature(ref).dtype
    except KeyError:
        raise BundleError(f"model {handle} reads {ref}, which is no feature of the catalog") from None
    if dtype not in _SCALARS:
        raise BundleError(
            f"model {handle} reads {ref}, which is neither a number, bool, string nor timestamp"
        )
    if dtype is DType.STRING and handle.codes(column_name(ref)) is None:
        raise BundleError(f"model {handle} reads the text {ref}, but stores no categories of it")
    per_candidate = ref.view not in customer_views
    return Column(name=str(ref), per_candidate=per_candidate, is_timestamp=dtype is DType.TIMESTAMP)
