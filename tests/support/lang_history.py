"""Random history in DuckDB: columns of many physical types, the rows in them, and what generated SQL answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import assume
from hypothesis import strategies as st

from decision.lang.calendar import HOUR_US
from decision.lang.fold import simplify
from decision.lang.interpreter import evaluate
from decision.lang.syntax import DatePart, Expr, Ref, references, walk
from decision.lang.types import ELEMENTS
from decision.schema import DType, Value
from decision.sql.writer import SETTINGS, to_sql
from tests.support.lang_cases import same
from tests.support.lang_exprs import DAYLIGHT_US, FLOAT_EDGES, INT_EDGES, PARTS, TEXTS, ZONES, Maker

Row = dict[str, Value]
ROWS_PER_CONDITION = 20
TRANSITIONS_US = [at_us for zone in ZONES for at_us in zone.transitions_us]


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
    return Column(pa.list_(column.arrow), lambda items: tuple(map(column.fit, items)), reading)


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


ROOTS = [
    (dtype, branch)
    for dtype, branches in Maker.branches.items()
    for branch in [*branches, Maker.coalesce, Maker.case]
    if branch is not Maker.date_part
]


@st.composite
def rooted(draw: st.DrawFn, depth: int = 2) -> Expr:
    """Trees that read the row, each operator and date part as often on top as any other."""
    maker = Maker(draw)
    root = maker.pick([*ROOTS, *PARTS])
    if root in PARTS:
        operand = maker.make(DType.TIMESTAMP, depth)
        expr: Expr = DatePart(part=root, operand=operand, zone=maker.pick(ZONES))
    else:
        dtype, branch = root
        expr = branch(maker, dtype, depth)
    simple = simplify(expr)
    assume(references(simple))
    return simple


def random_value(draw: random.Random, dtype: DType) -> Value:
    """A value that is not NULL, at an edge more often than not."""
    match dtype:
        case DType.BOOL:
            return draw.random() < 0.5
        case DType.INT64:
            return draw.choice(
                [draw.randint(-5, 5), draw.choice(INT_EDGES), draw.randint(-(2**63), 2**63 - 1)]
            )
        case DType.FLOAT64:
            special = draw.choice([*FLOAT_EDGES, math.nan, math.inf, -math.inf])
            return draw.choice(
                [special, draw.randint(-8, 8) / 2, draw.gauss(0, 1) * 10.0 ** draw.randint(-9, 9)]
            )
        case DType.STRING:
            return draw.choice([draw.choice(TEXTS), "".join(draw.choices("ab%_é🥛", k=draw.randint(0, 4)))])
        case DType.TIMESTAMP:
            near = draw.choice([-1, 0, 1, draw.randint(-HOUR_US, HOUR_US)])
            edge = draw.choice([*DAYLIGHT_US, draw.choice(TRANSITIONS_US), 0])
            return draw.choice([edge + near, draw.randint(0, 4 * 10**15), draw.randint(-(2**63), 2**63 - 1)])
        case _:
            return cast("Value", tuple(_items(draw, ELEMENTS[dtype])))


def _items(draw: random.Random, dtype: DType) -> Iterator[Value]:
    for _ in range(draw.randint(0, 3)):
        yield random_value(draw, dtype)


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
    dtypes = {node.name: node.dtype for node in walk(expr) if isinstance(node, Ref)}
    columns = {name: draw.choice(COLUMNS[dtype]) for name, dtype in sorted(dtypes.items())}
    nulls = draw.choice([0.0, 0.1, 0.5])
    rows = [
        {
            name: column.fit(random_value(draw, dtypes[name]))
            for name, column in columns.items()
            if draw.random() >= nulls
        }
        for _ in range(count)
    ]
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
    query = f"SELECT {to_sql(expr, history.sql, now_us)} FROM history ORDER BY nth"  # noqa: S608
    connection.register("history", history.table)
    found = connection.execute(query).fetchall()
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
