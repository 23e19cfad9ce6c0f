"""The point-in-time join: for each label, the newest value of each view that was readable at that instant.

A value is readable at t if its event timestamp is at or before t; where two rows share it, the later created one
counts, where the rows say when. A value older than the view's TTL is missing. These are the rules of Feast's
`get_historical_features`, at the price of one ASOF join per view instead of a ranked inner join.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from decision.schema import Catalog, DType, FeatureRef, Service, View
from decision.scoring import column_name
from training.database import literal, quoted
from training.errors import DatasetError
from training.labels import ROW, TIME


def service_views(catalog: Catalog, service: Service, join_keys: Sequence[str]) -> tuple[View, ...]:
    """The views behind a service, in its order, checked to be joinable to labels with these keys.

    Raises:
        DatasetError: If a view has a key that labels lack, no offline source, or is computed on demand.
    """
    views = [catalog.view_by_name[name] for name in dict.fromkeys(ref.view for ref in service.features)]
    for view in views:
        if missing := [key for key in view.key_names if key not in join_keys]:
            raise DatasetError(
                f"view {view.name} is keyed by {missing[0]}, which is no join key of the label"
            )
        if view.on_demand or view.offline_path is None:
            raise DatasetError(f"view {view.name} has no history: a model cannot be trained on it")
    return tuple(views)


def create_feature_rows(
    connection: duckdb.DuckDBPyConnection, catalog: Catalog, service: Service, table: str
) -> None:
    """Create the table `feature_rows`: `table` (label_time_us and join keys) with one column per feature.

    Columns are named `view__feature`; timestamp features are int64 microseconds. Rows come in the order of row_number.

    Raises:
        DatasetError: If a view's offline rows are missing.
    """
    join_keys = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
    views = service_views(catalog, service, join_keys)
    for view in views:
        _create_history(connection, view, _refs(service, view), table)
    connection.execute(_join_sql(catalog, service, views, table))


def _refs(service: Service, view: View) -> list[FeatureRef]:
    return [ref for ref in service.features if ref.view == view.name]


def _create_history(
    connection: duckdb.DuckDBPyConnection, view: View, refs: list[FeatureRef], table: str
) -> None:
    """Read a view's log up to the newest label, with one row for each (entity, event timestamp)."""
    try:
        log = _log(connection, view, refs)
        connection.execute(_history_sql(view, refs, table, log))
    except duckdb.IOException as error:
        raise DatasetError(
            f"view {view.name} has no offline rows at {view.offline_path}: backfill the events first"
        ) from error
    except duckdb.BinderException as error:
        raise DatasetError(
            f"view {view.name}: {view.offline_path} does not fit its schema: {error}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Log:
    """A view's files as a table of SQL under the view's own names.

    Attributes:
        created: The column that says when a row was created, where one of the files has it.
    """

    sql: str
    created: str | None


def _log(connection: duckdb.DuckDBPyConnection, view: View, refs: list[FeatureRef]) -> _Log:
    path = literal(str(view.offline_path))
    rows = connection.execute(
        f"SELECT file_name, list(name) FROM parquet_schema({path}) GROUP BY 1 ORDER BY 1"  # noqa: S608 - quoted
    ).fetchall()
    needed = [*view.key_names, view.timestamp_column, *(ref.feature for ref in refs)]
    for file, columns in rows:
        missing = [name for name in needed if not {name, view.source_column(name)} & set(columns)]
        if missing:
            column = view.source_column(missing[0])
            raise DatasetError(
                f"view {view.name}: {file} does not fit its schema: it has no column {column!r}"
            )
    files = [columns for _, columns in rows]
    found = {name: _column(view, name, files) for name in dict.fromkeys((*needed, view.created_column))}
    columns = ", ".join(f"{column} AS {quoted(name)}" for name, column in found.items() if column)
    table = f"(SELECT {columns} FROM read_parquet({path}, union_by_name = true))"  # noqa: S608 - quoted
    return _Log(table, view.created_column if found[view.created_column] else None)


def _column(view: View, name: str, files: Sequence[Sequence[str]]) -> str | None:
    """A column of the files by the name that its source gives it; as with Feast, files may have the view's already."""
    source = view.source_column(name)
    sourced = [source in columns for columns in files]
    if all(sourced):
        return quoted(source)
    if not any(name in columns for columns in files):
        return quoted(source) if any(sourced) else None
    return f"coalesce({quoted(source)}, {quoted(name)})" if any(sourced) and source != name else quoted(name)


def _history_sql(view: View, refs: list[FeatureRef], table: str, log: _Log) -> str:
    stamp = quoted(view.timestamp_column)
    keys = [quoted(key) for key in view.key_names]
    columns = ", ".join([*keys, f"epoch_us({stamp}) AS time_us", *(_read(view, ref) for ref in refs)])
    identity = ", ".join([*keys, stamp])
    newest_first = f"ORDER BY {quoted(log.created)} DESC NULLS LAST" if log.created else ""
    return f"""
        CREATE TABLE {_history(view)} AS
        SELECT {columns} FROM {log.sql}
        WHERE epoch_us({stamp}) <= (SELECT max({TIME}) FROM {table})
        QUALIFY row_number() OVER (PARTITION BY {identity} {newest_first}) = 1
    """  # noqa: S608 - every identifier is quoted, every number typed


def _history(view: View) -> str:
    return quoted(f"history_{view.name}")


def _read(view: View, ref: FeatureRef) -> str:
    column = quoted(ref.feature)
    is_timestamp = view.feature_by_name[ref.feature].dtype is DType.TIMESTAMP
    return f"epoch_us({column}) AS {column}" if is_timestamp else column


def _join_sql(catalog: Catalog, service: Service, views: Sequence[View], table: str) -> str:
    features = [_select(catalog.view_by_name[ref.view], ref) for ref in service.features]
    joins = [_asof(view, table) for view in views]
    return f"""
        CREATE TABLE feature_rows AS
        SELECT {table}.*, {", ".join(features)} FROM {table} {" ".join(joins)} ORDER BY {ROW}
    """  # noqa: S608 - every identifier is quoted, every number typed


def _select(view: View, ref: FeatureRef) -> str:
    value = f"{_history(view)}.{quoted(ref.feature)}"
    ttl_us = round(view.ttl_s * 1_000_000)
    if ttl_us:
        value = f"CASE WHEN {_history(view)}.time_us >= {TIME} - {ttl_us} THEN {value} END"
    return f"{value} AS {quoted(column_name(ref))}"


def _asof(view: View, table: str) -> str:
    history = _history(view)
    match = [f"{table}.{quoted(key)} = {history}.{quoted(key)}" for key in view.key_names]
    return f"ASOF LEFT JOIN {history} ON {' AND '.join([*match, f'{table}.{TIME} >= {history}.time_us'])}"
