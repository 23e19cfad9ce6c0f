"""Which decisions are imagined, and what came of them.

A row is one (entity, decision time, candidate). Its label is whether an event of the label's type, with the row's keys,
lies in (t, t + horizon]. What happened at t itself is history, readable by features; what came after is outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb
import pandas as pd
import pyarrow as pa

from decision.schema import Value
from training.database import literal, quoted
from training.definition import SPLITS, SplitName, TrainingDefinition
from training.errors import DatasetError

LABEL = "label"
SPLIT = "split"
TIME = "label_time_us"
ROW = "row_number"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def create_labels(
    connection: duckdb.DuckDBPyConnection,
    definition: TrainingDefinition,
    events: pd.DataFrame,
    candidates: Sequence[Mapping[str, Value]],
) -> None:
    """Create the table `labels`: row_number, split, join keys, label_time_us, label.

    Which rows are drawn depends on the definition's seed, the entity and the period alone, not on the order of events.

    Args:
        connection: Where the table is made.
        definition: What to draw.
        events: Columns event_type, event_time (datetime64[us, UTC]) and the label's join keys.
        candidates: Join keys of each candidate; more than the definition names is allowed.

    Raises:
        DatasetError: If a candidate lacks a key, or no row comes out of some split.
    """
    connection.register("event_frame", events)
    connection.register("candidate_table", _candidate_table(definition, candidates))
    connection.execute(f"CREATE TABLE outcomes AS {_outcomes_sql(definition)}")
    connection.execute(f"CREATE TABLE decisions AS {_decisions_sql(definition)}")
    connection.execute(f"CREATE TABLE labels AS {_labels_sql(definition)}")
    connection.unregister("event_frame")
    _refuse_empty_splits(connection, definition)


def _candidate_table(definition: TrainingDefinition, candidates: Sequence[Mapping[str, Value]]) -> pa.Table:
    keys = definition.candidates.join_keys
    for candidate in candidates:
        if missing := [key for key in keys if candidate.get(key) is None]:
            raise DatasetError(
                f"candidate {dict(candidate)} declares no {missing[0]}: give its offer that join key"
            )
    if not candidates:
        raise DatasetError(
            f"no offer is tagged {definition.candidates.tag!r}: {definition.name} has no candidates"
        )
    distinct = dict.fromkeys(tuple(candidate[key] for key in keys) for candidate in candidates)
    return pa.table(
        {key: pa.array(column) for key, column in zip(keys, zip(*distinct, strict=True), strict=True)}
    )


def _outcomes_sql(definition: TrainingDefinition) -> str:
    keys = [quoted(key) for key in definition.label.join_keys]
    entity = quoted(definition.decision_times.entity)
    return f"""
        SELECT DISTINCT {", ".join(keys)}, epoch_us(event_time) AS time_us
        FROM event_frame
        WHERE event_type = {literal(definition.label.event_type)} AND {entity} IS NOT NULL
    """  # noqa: S608 - every identifier is quoted, every number typed


def _decisions_sql(definition: TrainingDefinition) -> str:
    """One row per sampled (entity, period): when it decides and in which split it falls.

    MD5 draws, because it gives the same numbers in every version of DuckDB.
    """
    times = definition.decision_times
    entity = quoted(times.entity)
    first = min(definition.splits.by_name(name).start for name in SPLITS)
    last = max(definition.splits.by_name(name).end for name in SPLITS)
    return f"""
        WITH periods AS (
          SELECT unnest(generate_series({_us(first)}, {_us(last)}, {times.every_s * 1_000_000})) AS period_us
        ), draws AS (
          SELECT {entity}, period_us, '{definition.seed}|' || period_us || '|' || {entity} AS draw
          FROM (SELECT DISTINCT {entity} FROM outcomes), periods
        ), points AS (
          SELECT {entity},
            period_us + (md5_number_lower(draw) % {times.jitter_s + 1})::BIGINT * 1000000 AS {TIME},
            (md5_number_upper(draw) % 1000000) / 1e6 AS chance
          FROM draws
        ), placed AS (
          SELECT *, CASE {" ".join(_split_case(definition, name) for name in SPLITS)} END AS {SPLIT} FROM points
        )
        SELECT placed.{SPLIT}, placed.{entity}, placed.{TIME}
        FROM placed ASOF JOIN (SELECT DISTINCT {entity}, time_us FROM outcomes) AS seen
          ON placed.{entity} = seen.{entity} AND placed.{TIME} >= seen.time_us
        WHERE placed.{SPLIT} IS NOT NULL AND seen.time_us >= placed.{TIME} - {times.active_within_s * 1_000_000}
    """  # noqa: S608 - every identifier is quoted, every number typed


def _split_case(definition: TrainingDefinition, name: SplitName) -> str:
    split = definition.splits.by_name(name)
    last_us = _us(split.end) - definition.label.horizon_us
    return f"WHEN {TIME} BETWEEN {_us(split.start)} AND {last_us} AND chance < {split.sample} THEN '{name}'"


def _labels_sql(definition: TrainingDefinition) -> str:
    entity = quoted(definition.decision_times.entity)
    others = [quoted(key) for key in definition.candidates.join_keys]
    keys = [f"decisions.{entity}", *(f"candidate_table.{key}" for key in others)]
    match = [f"point.{key} = outcomes.{key}" for key in (entity, *others)]
    order = ", ".join(f"point.{key}" for key in (quoted(TIME), entity, *others))
    return f"""
        WITH point AS (
          SELECT {SPLIT}, {", ".join(keys)}, {TIME}
          FROM decisions CROSS JOIN candidate_table
        )
        SELECT row_number() OVER (ORDER BY {order}) AS {ROW},
          point.*, coalesce(outcomes.time_us <= point.{TIME} + {definition.label.horizon_us}, false) AS {LABEL}
        FROM point ASOF LEFT JOIN outcomes ON {" AND ".join(match)} AND point.{TIME} < outcomes.time_us
    """  # noqa: S608 - every identifier is quoted, every number typed


def _refuse_empty_splits(connection: duckdb.DuckDBPyConnection, definition: TrainingDefinition) -> None:
    counts = dict(connection.execute("SELECT split, count(*) FROM labels GROUP BY split").fetchall())
    if empty := [name for name in SPLITS if not counts.get(name)]:
        raise DatasetError(
            f"{definition.name}: no rows for the split {empty[0]!r}; check its dates against the events', "
            f"and that it is longer than the horizon of {definition.label.horizon_s} s"
        )


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
