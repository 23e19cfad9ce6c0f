"""The measurement of rules compares like with like."""

from __future__ import annotations

import pytest

from decision.program import Program
from loadtest.bench import rivals, rules, workload

FEW = workload.make_rules(300)
ROW = workload.make_row()


@pytest.mark.parametrize("name", rivals.MAKERS)
def test_rivals_fire_the_same_rules(name: str) -> None:
    """Every rule of the workload is TRUE for the program exactly where the rival's text of it is true."""
    program = Program.compile(rules.expressions(workload.texts(FEW, workload.WAYPOST)))
    named = {f"v.{feature}": value for feature, value in ROW.items()}
    fired = (program.run(named, workload.NOW_US).truth[0] == 1).tolist()
    _, make = rivals.MAKERS[name]
    assert make(FEW, {**ROW, "now": workload.NOW_US}).fired() == fired
    assert 0 < sum(fired) < len(fired)


def test_conditions_of_the_workload_differ() -> None:
    """No two rules are the same condition, so that sharing does not flatter."""
    conditions = rules.expressions(workload.texts(workload.make_rules(rules.MANY_RULES), workload.WAYPOST))
    assert len(set(conditions)) == rules.MANY_RULES
