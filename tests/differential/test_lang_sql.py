"""The interpreter, the compiled program and DuckDB running the generated SQL: one meaning, no list of differences."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pytest

from decision.lang.interpreter import evaluate
from decision.lang.syntax import (
    And,
    Arithmetic,
    Case,
    Compare,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Now,
    Ref,
    walk,
)
from decision.lang.types import ELEMENTS
from decision.program import Program
from decision.schema import DType, Value
from decision.sql.errors import SqlError
from decision.sql.writer import to_sql
from tests.support.lang_cases import read_row, read_value, same, split_case
from tests.support.lang_counts import Counts
from tests.support.lang_exprs import PARTS, SCALAR_TYPES
from tests.support.lang_history import (
    COLUMNS,
    ROWS_PER_CONDITION,
    History,
    answers,
    disagreement,
    duck,
    first_difference,
    random_history,
)
from tests.support.lang_rows import explore
from tests.support.lang_world import expression
from tests.support.reported import REPORTED

CASES = max(100_000, int(os.environ.get("WAYPOST_LANG_CASES", "0")))
"""Rows under conditions in one run, more by the flag; a soak runs ten times as many."""
FOLDER = Path(__file__).parents[1] / "golden" / "lang" / "cases"
PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
EVERYTHING = {
    *("+ - * / % = <> < <= > >= And Or Not In IsNull Like Case Negate ToFloat Now Ref Literal").split(),
    *("coalesce least greatest abs round floor contains bucket").split(),
    *PARTS,
}
I = Ref(name="v.i", dtype=DType.INT64)  # noqa: E741 - the language's own name for it
X = Ref(name="v.x", dtype=DType.FLOAT64)
S = Ref(name="v.s", dtype=DType.STRING)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duck() as connection:
        yield connection


def agree(connection: duckdb.DuckDBPyConnection, cases: int) -> Counts:
    """Run that many cases, each one row under one condition; raises on the first difference, made small."""
    counts = Counts()

    def run(expr: Expr, seed: int, now_us: int) -> None:
        history = random_history(expr, seed)
        given_values = answers(connection, expr, history, now_us)
        difference = first_difference(expr, history, now_us, given_values)
        assert difference is None, (difference, to_sql(expr, history.sql, now_us))
        assert program_truths(expr, history, given_values, now_us), (expr, history.rows, now_us)
        counts.add(expr, given_values)

    explore(cases // ROWS_PER_CONDITION, run)
    return counts


def program_truths(expr: Expr, history: History, values: Sequence[Value], now_us: int) -> bool:
    """Whether the program has a condition's truths; of a value, that it is NULL or equal where it should be."""
    kept = [place for place, row in enumerate(history.rows) if storable(row)]
    rows, values = [history.rows[place] for place in kept], [values[place] for place in kept]
    if expr.dtype in ELEMENTS or not rows:
        return True
    if expr.dtype is DType.BOOL:
        found = Program.compile([expr]).run(rows, now_us).truth[:, 0].tolist()
        return bool(found == [-1 if value is None else int(value is True) for value in values])
    constants = [Literal(value=value, dtype=expr.dtype) for value in values]
    equal = [Compare(op="=", left=expr, right=constant) for constant in constants]
    truths = Program.compile([IsNull(operand=expr), *equal]).run(rows, now_us).truth
    return all(
        truths[row, 0] == (value is None) and truths[row, row + 1] == (-1 if value is None else 1)
        for row, value in enumerate(values)
    )


def storable(row: Mapping[str, Value]) -> bool:
    """Whether a row can come from a feature store: lists in history may hold NULL, Feast's never do."""
    return not any(isinstance(value, tuple) and None in value for value in row.values())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_interpreter_program_and_generated_sql_agree(
    connection: duckdb.DuckDBPyConnection, record_property: Callable[[str, object], None]
) -> None:
    """On random conditions over random rows, DuckDB and the program give the interpreter's value."""
    counts = agree(connection, CASES)
    record_property(REPORTED, counts.lines())
    assert counts.cases >= CASES
    assert {key.split()[0] for key in counts.within} == EVERYTHING
    assert all(counts.nulls[f"of type {kind}"] and counts.values[f"of type {kind}"] for kind in SCALAR_TYPES)


@pytest.mark.soak
def test_interpreter_and_generated_sql_agree_for_long(
    connection: duckdb.DuckDBPyConnection, record_property: Callable[[str, object], None]
) -> None:
    """As above, ten times as many cases."""
    record_property(REPORTED, agree(connection, 10 * CASES).lines())


def written_cases() -> list[tuple[str, str, str]]:
    """Every `expression ; row ; value` of the golden files and of the page on rules."""
    texts = [path.read_text("utf-8") for path in sorted(FOLDER.glob("*.cases"))]
    texts += re.findall(r"```cases\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    lines = (line for text in texts for line in text.splitlines())
    return [split_case(line) for line in lines if line and not line.startswith("#")]


def stored(expr: Expr, *rows: dict[str, Value]) -> History:
    """Rows in columns as wide as the language's types."""
    dtypes = {node.name: node.dtype for node in walk(expr) if isinstance(node, Ref)}
    return History({name: COLUMNS[dtype][0] for name, dtype in dtypes.items()}, rows)


def test_written_cases_have_their_values_in_sql(connection: duckdb.DuckDBPyConnection) -> None:
    """Each golden line, and each example of the page on rules, has its value in DuckDB too."""
    cases = written_cases()
    assert len(cases) > 300
    for text, row, value in cases:
        expr = expression(text)
        values, now_us = read_row(row)
        (answer,) = answers(connection, expr, stored(expr, values), now_us)
        assert same(answer, read_value(value, expr)), (text, row, value, answer)


def test_session_settings_change_no_value(connection: duckdb.DuckDBPyConnection) -> None:
    """Division, remainder and instants do not depend on what the session says about them."""
    changed = (
        "integer_division = true",
        "ieee_floating_point_ops = false",
        "error_on_division_by_zero = false",
    )
    texts = ["x / y", "x % y", "i / j", "i % j", "i / 2", 'hour(t, "Europe/Berlin")']
    for setting in changed:
        connection.execute(f"SET {setting}")
    try:
        for seed, text in enumerate(texts):
            expr = expression(text)
            assert disagreement(connection, expr, random_history(expr, seed, 500), 0) is None, text
    finally:
        for setting in changed:
            connection.execute(f"RESET {setting.split()[0]}")


def test_now_is_a_parameter_or_a_column(connection: duckdb.DuckDBPyConnection) -> None:
    """A backtest evaluates `now()` at each event's own time."""
    expr = Compare(op=">", left=Now(), right=Literal(value=5, dtype=DType.TIMESTAMP))
    table = "FROM (VALUES (4), (6)) AS events(at_us)"
    by_parameter = connection.execute(f"SELECT {to_sql(expr, {})} {table}", {"now_us": 9}).fetchall()
    by_column = connection.execute(f"SELECT {to_sql(expr, {}, 'at_us')} {table} ORDER BY at_us").fetchall()
    assert by_parameter == [(True,), (True,)]
    assert by_column == [(False,), (True,)]


@pytest.mark.parametrize("name", ["v", "items", "value"])
@pytest.mark.parametrize("text", ["x + y - x > y", "contains(ss, CASE WHEN i > j THEN s WHEN b THEN z END)"])
def test_columns_and_tables_of_any_name_are_read(
    connection: duckdb.DuckDBPyConnection, name: str, text: str
) -> None:
    """The names within generated text hide no column, whatever column or table is called the same."""
    expr = expression(text)
    history = random_history(expr, 7)
    sql = to_sql(expr, history.sql, 0)
    connection.register("history", history.table)
    structs = "{'items': ['a'], 'value': 'a'}"
    queries = [
        f"SELECT {sql} FROM history AS {name} ORDER BY nth",  # noqa: S608
        f"SELECT {sql} FROM (SELECT *, {structs} AS {name} FROM history) ORDER BY nth",  # noqa: S608
    ]
    for query in queries:
        given_values = [value for (value,) in connection.execute(query).fetchall()]
        assert first_difference(expr, history, 0, given_values) is None


@pytest.mark.parametrize(
    "text", ["s = 'a'", "s IN ('a', 'b')", "s LIKE 'a%'", "s = z", "coalesce(z, s) = 'a'", "contains(ss, s)"]
)
def test_collation_of_a_column_changes_no_value(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Text that a column compares without case still compares by content."""
    columns = {"v.s": "s", "v.z": "z", "v.ss": "['a']"}
    table = "(SELECT CAST('A' AS VARCHAR) COLLATE NOCASE AS s, CAST(NULL AS VARCHAR) AS z) AS history"
    sql = to_sql(expression(text), columns)
    row: dict[str, Value] = {"v.s": "A", "v.ss": ("a",)}
    answer = connection.execute(f"SELECT {sql} FROM {table}").fetchall()  # noqa: S608
    assert answer == [(evaluate(expression(text), row, 0),)]


def nested(levels: int) -> Expr:
    """A condition that uses a float of a choice by a condition, level within level."""
    expr: Expr = X
    for _ in range(levels // 3):
        sum_ = Arithmetic(op="+", left=expr, right=X, dtype=DType.FLOAT64)
        holds = Compare(op="<", left=sum_, right=Literal(value=1e18, dtype=DType.FLOAT64))
        expr = Case(branches=((holds, sum_),), default=X, dtype=DType.FLOAT64)
    return expr


def test_deep_conditions_stay_small(connection: duckdb.DuckDBPyConnection) -> None:
    """At the depth that the language allows, text grows with the tree and DuckDB takes it."""
    divided: Expr = X
    for _ in range(60):
        divided = Arithmetic(op="/", left=X, right=divided, dtype=DType.FLOAT64)
    inverted: Expr = Compare(op=">", left=I, right=Literal(value=3, dtype=DType.INT64))
    for _ in range(60):
        inverted = Not(operand=inverted)
    for expr in (divided, inverted, nested(12)):
        history = random_history(expr, 3)
        assert len(to_sql(expr, history.sql)) < 40_000
        assert disagreement(connection, expr, history, 0) is None


def test_wide_conditions_are_taken(connection: duckdb.DuckDBPyConnection) -> None:
    """Long IN lists, also with NULL and with columns, and thousands of operands."""
    many = tuple(Literal(value=number, dtype=DType.INT64) for number in range(-5_000, 5_000))
    null = Literal(value=None, dtype=DType.INT64)
    compared = tuple(Compare(op="<>", left=I, right=number) for number in many[:2_000])
    for expr in (In(operand=I, items=many), In(operand=I, items=(*many, null, I)), And(operands=compared)):
        assert disagreement(connection, expr, random_history(expr, 5), 0) is None


def test_hostile_text_stays_text(connection: duckdb.DuckDBPyConnection) -> None:
    """Quotes, NUL, backslashes and comments in strings are only characters."""
    for text in (
        "'; DROP TABLE history; --",
        "\0",
        "a\0b",
        "\\",
        "\\%",
        "a\\_b",
        "/*",
        "$now_us",
        "{}",
        "\u200b",
    ):
        literal = Literal(value=text, dtype=DType.STRING)
        for expr in (Compare(op="=", left=S, right=literal), Like(operand=S, pattern=text), literal):
            history = stored(expr, {"v.s": text}, {"v.s": text + "x"}, {"v.s": text.replace("\\", "")}, {})
            assert disagreement(connection, expr, history, 0) is None


def test_what_cannot_be_said_is_refused() -> None:
    """A name without a column and half a surrogate pair are errors that say what to do."""
    with pytest.raises(SqlError, match=r"no column is given for v\.i"):
        to_sql(I, {})
    with pytest.raises(SqlError, match="half a surrogate pair"):
        to_sql(Like(operand=S, pattern="\ud800"), {"v.s": "s"})


def test_answers_are_never_nan(connection: duckdb.DuckDBPyConnection) -> None:
    """A NaN that arises on top of an expression leaves as NULL."""
    expr = expression("x - x")
    history = stored(expr, {"v.x": math.inf}, {"v.x": math.nan})
    assert answers(connection, expr, history, 0) == [None, None]
    assert evaluate(expr, {"v.x": math.inf}, 0) is None
