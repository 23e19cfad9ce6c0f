"""Random history in DuckDB: columns of many physical types, the rows in them, and what generated SQL answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from decision.lang.interpreter import evaluate
from decision.lang.syntax import Expr
from decision.lang.types import ELEMENTS
from decision.schema import DType, Value
from decision.sql.writer import SETTINGS, to_sql
from tests.support.lang_cases import same
from tests.support.lang_rows import Row, RowMaker

ROWS_PER_CONDITION = 20


@dataclass(frozen=True)
class Column:
    """A way to store a type: Arrow's type, what fits it, and how SQL reads our value from it."""

    arrow: pa.DataType
    fit: Callable[[Any], Any] = lambda value: value
    sql: str = "{}"


def _wrapped(bits: int) -> Callable[[int], int]:
    """An integer by its lowest bits."""
    return lambda value: (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _narrow(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _listed(column: Column) -> Column:
    reading = "{}" if column.sql == "{}" else f"list_transform({{}}, lambda e: {column.sql.format('e')})"
    return Column(pa.list_(column.arrow), partial(_each, column.fit), reading)


def _each(fit: Callable[[Any], Any], items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(None if item is None else fit(item) for item in items)


_WRAP62 = _wrapped(62)  # DuckDB's timestamps do not reach the ends of int64, where two of them are infinities
SCALAR_COLUMNS: dict[DType, tuple[Column, ...]] = {
    DType.BOOL: (Column(pa.bool_()),),
    DType.INT64: (Column(pa.int64()), Column(pa.int32(), _wrapped(32)), Column(pa.int8(), _wrapped(8))),
    DType.FLOAT64: (Column(pa.float64()), Column(pa.float32(), _narrow)),
    DType.STRING: (Column(pa.string()), Column(pa.dictionary(pa.int32(), pa.string()))),
    DType.TIMESTAMP: (
        Column(pa.int64()),
        Column(pa.timestamp("us"), _WRAP62, "epoch_us({})"),
        Column(pa.timestamp("us", "UTC"), _WRAP62, "epoch_us({})"),
    ),
}
COLUMNS = SCALAR_COLUMNS | {
    listed: tuple(
        _listed(column) for column in SCALAR_COLUMNS[element] if not pa.types.is_dictionary(column.arrow)
    )
    for listed, element in ELEMENTS.items()
}


@dataclass(frozen=True)
class History:
    """Rows for one condition, with the storage of each column that it reads."""

    columns: Mapping[str, Column]
    rows: Sequence[Row]

    @property
    def table(self) -> pa.Table:
        """The rows as DuckDB scans them, the last column saying how many there are."""
        names = dict(zip(self.identifiers, self.columns, strict=True))
        arrays = {
            identifier: pa.array([row.get(name) for row in self.rows], self.columns[name].arrow)
            for identifier, name in names.items()
        }
        return pa.table(arrays | {"nth": pa.array(range(len(self.rows)))})

    @property
    def identifiers(self) -> list[str]:
        """Column names that need quotes."""
        return [f'{name} "größe"' for name in self.columns]

    @property
    def sql(self) -> dict[str, str]:
        """What the generator is told about the columns."""
        quoted = ('"' + name.replace('"', '""') + '"' for name in self.identifiers)
        return {
            name: column.sql.format(text)
            for (name, column), text in zip(self.columns.items(), quoted, strict=True)
        }


def random_history(expr: Expr, seed: int, count: int = ROWS_PER_CONDITION) -> History:
    """Storage and rows for the names that an expression reads."""
    draw = random.Random(seed)
    maker = RowMaker(expr, draw)
    columns = {name: draw.choice(COLUMNS[dtype]) for name, dtype in sorted(maker.dtypes.items())}
    rows = [{name: columns[name].fit(value) for name, value in maker.row().items()} for _ in range(count)]
    return History(columns, rows)


@contextmanager
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection as generated SQL needs it."""
    with duckdb.connect(config={"threads": 1}) as connection:
        for statement in SETTINGS:
            connection.execute(statement)
        yield connection


def answers(connection: duckdb.DuckDBPyConnection, expr: Expr, history: History, now_us: int) -> list[Value]:
    """What the generated SQL gives for each row."""
    return answered(connection, to_sql(expr, history.sql, now_us), history)


def answered(connection: duckdb.DuckDBPyConnection, sql: str, history: History) -> list[Value]:
    """What an SQL expression gives for each row."""
    connection.register("history", history.table)
    found = connection.execute(f"SELECT {sql} FROM history ORDER BY nth").fetchall()  # noqa: S608
    return [tuple(answer) if isinstance(answer, list) else answer for (answer,) in found]


def disagreement(
    connection: duckdb.DuckDBPyConnection, expr: Expr, history: History, now_us: int
) -> tuple[Row, Value, Value] | None:
    """The first row on which interpreter and DuckDB differ, with both values, or None."""
    return first_difference(expr, history, now_us, answers(connection, expr, history, now_us))


def first_difference(
    expr: Expr, history: History, now_us: int, given: list[Value]
) -> tuple[Row, Value, Value] | None:
    """The first row whose value by the interpreter is not the one given, with both values, or None."""
    for row, answer in zip(history.rows, given, strict=True):
        value = evaluate(expr, row, now_us)
        if not same(value, answer):
            return row, value, answer
    return None
