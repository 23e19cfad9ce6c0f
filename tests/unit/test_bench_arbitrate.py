"""The workload of `waypost bench arbitrate` decides what it says it decides."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from decision.bundle import Bundle
from decision.engine import Decision, decide
from decision.policy import Action
from decision.record import Request
from loadtest.bench import arbitrate


@pytest.fixture(scope="module")
def decision() -> Decision:
    """One decision of the workload, without its model."""
    catalog = arbitrate._catalog()
    bundle = Bundle.build(catalog, arbitrate._policy(catalog), {}, "customer_id")
    request = Request(placement="home", customer_id="1")
    return decide(
        request, arbitrate._frame(bundle.placement("home")), bundle, now_us=arbitrate.NOW_US, seed=1
    )


def test_workload_fills_the_answer_by_many_rules(decision: Decision) -> None:
    """Ten offers come back, weighed by rules of both levels."""
    assert len(decision.offers) == 10
    rules = {reason.name for ranked in decision.offers for reason in ranked.reasons if reason.name[0] == "r"}
    assert {int(name[1:]) % 2 for name in rules if name[1:].isdigit()} == {0, 1}


def test_workload_has_the_size_it_says() -> None:
    """As many rules and offers as its constants say."""
    policy = arbitrate._policy(arbitrate._catalog())
    assert len(policy.rules) == arbitrate.RULE_COUNT
    assert len(policy.offers) == arbitrate.CANDIDATE_COUNT


def test_workload_does_all_that_rules_can_do() -> None:
    """Every kind of action, more than once, and ELSE among the rules that weigh."""
    rules = arbitrate._policy(arbitrate._catalog()).rules
    counts = Counter(type(action) for rule in rules for action in rule.actions)
    assert set(counts) == set(get_args(Action))
    assert min(counts.values()) > 1
    assert sum(bool(rule.otherwise) for rule in rules) == arbitrate.RULE_COUNT // 5
