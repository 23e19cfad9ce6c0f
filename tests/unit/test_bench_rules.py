"""The measurement of rules compares like with like."""

from __future__ import annotations

from typing import Any

from decision.program import Program
from loadtest.bench import rules


def test_rivals_fire_the_same_rules() -> None:
    """Every rule of the workload is TRUE for the program exactly where Python's text of it is true."""
    workload = rules._rules(300)
    row = rules._row()
    program = Program.compile(rules._expressions([rule.ours for rule in workload]))
    fired = (
        program.run({f"v.{name}": value for name, value in row.items()}, rules.NOW_US).truth[0] == 1
    ).tolist()
    scope: dict[str, Any] = {**row, "now": rules.NOW_US}
    assert fired == [eval(rule.python, scope) for rule in workload]  # noqa: S307 - texts of this repository
    assert 0 < sum(fired) < len(fired)


def test_conditions_of_the_workload_differ() -> None:
    """No two rules are the same condition, so that sharing does not flatter."""
    expressions = rules._expressions([rule.ours for rule in rules._rules(rules.RULES)])
    assert len(set(expressions)) == rules.RULES
