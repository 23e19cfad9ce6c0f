"""The training set: labels with the features that were readable when each decision was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from decision.schema import Catalog, FeatureRef, Service, Value
from decision.scoring import column_name
from training.database import database
from training.definition import SplitName, TrainingDefinition
from training.errors import DatasetError
from training.join import create_feature_rows
from training.labels import LABEL, ROW, SPLIT, TIME, create_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A point-in-time correct set.

    Attributes:
        table: In order of decision time: `row_number`, `split`, join keys, `label_time_us` (int64), `label` (bool),
            then the features as `view__feature` with their stored types (timestamps as int64 µs); NULL is missing.
        features: The features, in the feature service's order.
        join_keys: The label's join keys.
    """

    table: pa.Table
    features: tuple[FeatureRef, ...]
    join_keys: tuple[str, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(column_name(ref) for ref in self.features)

    def split(self, name: SplitName) -> Dataset:
        """The rows of one split."""
        rows = self.table.filter(pc.equal(self.table[SPLIT], name))
        return Dataset(table=rows, features=self.features, join_keys=self.join_keys)

    @property
    def labels(self) -> npt.NDArray[np.float32]:
        """1 where the outcome happened, shape (rows,)."""
        return self.table[LABEL].cast(pa.float32()).to_numpy()  # type: ignore[no-any-return]

    @property
    def times_us(self) -> npt.NDArray[np.int64]:
        """Decision times, shape (rows,)."""
        return self.table[TIME].to_numpy()  # type: ignore[no-any-return]


def build_dataset(
    *,
    definition: TrainingDefinition,
    catalog: Catalog,
    events: pd.DataFrame,
    candidates: Sequence[Mapping[str, Value]],
    thread_count: int = 2,
) -> Dataset:
    """Draw decisions, label them from the events and join the features of the definition's service.

    Args:
        definition: What to draw and to join.
        catalog: Where views and their offline paths come from.
        events: Columns event_type, event_time (datetime64[us, UTC]) and the label's join keys.
        candidates: Join keys of each candidate offer.
        thread_count: Of DuckDB.

    Raises:
        DatasetError: If the service is unknown, a view has no history, or a split comes out empty.
    """
    service = find_service(catalog, definition.feature_service)
    with database(thread_count) as connection:
        create_labels(connection, definition, events, candidates)
        create_feature_rows(connection, catalog, service, "labels")
        table = connection.table("feature_rows").to_arrow_table()
    return Dataset(table=table, features=service.features, join_keys=definition.label.join_keys)


def features_at(*, catalog: Catalog, service: Service, rows: pa.Table, thread_count: int = 2) -> pa.Table:
    """The features of a service as they were readable at given instants.

    Args:
        catalog: Where views and their offline paths come from.
        service: Which features.
        rows: The views' join keys and `label_time_us` (int64); order is kept.
        thread_count: Of DuckDB.

    Returns:
        `rows` with one column `view__feature` for each feature.
    """
    numbered = rows.append_column(ROW, pa.array(np.arange(rows.num_rows)))
    with database(thread_count) as connection:
        connection.register("given", numbered)
        connection.execute("CREATE TABLE wanted AS FROM given")
        create_feature_rows(connection, catalog, service, "wanted")
        table: pa.Table = connection.table("feature_rows").to_arrow_table()
    return table.drop_columns([ROW])


def find_service(catalog: Catalog, name: str) -> Service:
    """The feature service of that name; DatasetError names those there are."""
    service = catalog.service_by_name.get(name)
    if service is None:
        known = ", ".join(sorted(catalog.service_by_name)) or "none"
        raise DatasetError(f"feature service {name!r} is not defined; there are: {known}")
    return service
