"""The differential suite sees every wrong meaning: seeded mutants of the interpreter and of the generated SQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pytest
from hypothesis import Phase

from decision.lang.syntax import Expr
from decision.schema import Value
from decision.sql.writer import to_sql
from tests.support.lang_history import (
    History,
    answered,
    answers,
    duck,
    first_difference,
    random_history,
)
from tests.support.lang_mutants import GENERATOR, INTERPRETER
from tests.support.lang_rows import explore

CONDITIONS = 1_000
"""As many as the differential test runs at least."""


@dataclass(frozen=True)
class Trial:
    """One condition of the differential test with the right answers."""

    expr: Expr
    history: History
    now_us: int
    sql: str
    answers: list[Value]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duck() as connection:
        yield connection


@pytest.fixture(scope="module")
def trials(connection: duckdb.DuckDBPyConnection) -> list[Trial]:
    """Conditions drawn as the differential test draws them, the same in every run."""
    drawn: list[Trial] = []

    def draw(expr: Expr, seed: int, now_us: int) -> None:
        history = random_history(expr, seed)
        sql = to_sql(expr, history.sql, now_us)
        drawn.append(Trial(expr, history, now_us, sql, answers(connection, expr, history, now_us)))

    explore(CONDITIONS, draw, derandomize=True, database=None, phases=[Phase.generate])
    return drawn


def differs(trial: Trial) -> bool:
    """Whether the interpreter, as it is now, disagrees or fails."""
    try:
        return first_difference(trial.expr, trial.history, trial.now_us, trial.answers) is not None
    except ArithmeticError:
        return True


def test_nothing_differs_without_a_mutant(trials: list[Trial]) -> None:
    """The mutants' deaths are their own."""
    assert len(trials) >= CONDITIONS
    assert not any(map(differs, trials))


@pytest.mark.parametrize("name", INTERPRETER)
def test_mutant_of_the_interpreter_is_killed(
    name: str, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some case tells the mutant from the meaning."""
    module, leaf, mutant = INTERPRETER[name]
    assert hasattr(module, leaf)
    monkeypatch.setattr(module, leaf, mutant)
    assert any(map(differs, trials))


@pytest.mark.parametrize("name", GENERATOR)
def test_mutant_of_the_generator_is_killed(
    name: str, trials: list[Trial], connection: duckdb.DuckDBPyConnection
) -> None:
    """Some case tells the rewritten text from the meaning, if only by an error."""
    for trial in trials:
        mutated = GENERATOR[name](trial.sql)
        if mutated == trial.sql:
            continue
        try:
            given_values = answered(connection, mutated, trial.history)
        except duckdb.Error:
            return
        if first_difference(trial.expr, trial.history, trial.now_us, given_values) is not None:
            return
    pytest.fail("the mutant lives")
