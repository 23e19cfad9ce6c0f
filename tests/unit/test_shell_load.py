"""The load test's own parts: who comes, what they send, when a run has failed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from loadtest.customers import ZipfCustomers
from loadtest.shop import Shopper

ROOT = Path(__file__).resolve().parents[2]


def test_customers_repeat_with_their_seed() -> None:
    """The same seed draws the same customers, another seed draws others."""
    draws = [[ZipfCustomers(1_000, seed=seed).draw() for _ in range(1)] for seed in range(50)]
    again = [[ZipfCustomers(1_000, seed=seed).draw() for _ in range(1)] for seed in range(50)]
    assert draws == again
    assert len({tuple(each) for each in draws}) > 10


def test_customers_follow_zipf() -> None:
    """Customer r comes about 1/r times as often as customer 1, and nobody is out of range."""
    customers = ZipfCustomers(100, exponent=1.0, seed=7)
    counts = Counter(customers.draw() for _ in range(200_000))
    assert set(counts) <= set(range(1, 101))
    for rank in (2, 5, 10):
        assert counts[rank] * rank / counts[1] == pytest.approx(1.0, rel=0.1)


def test_customers_refuse_an_empty_shop() -> None:
    """Nobody to draw is an error that names the number."""
    with pytest.raises(ValueError, match="count is 0"):
        ZipfCustomers(0)


def test_shopper_sends_what_the_repo_declares() -> None:
    """Every event has a declared type, all required properties and no undeclared one."""
    types = yaml.safe_load((ROOT / "feature_repo" / "events.yaml").read_text())["types"]
    shopper = Shopper(customer_id="7", choices=random.Random(1))
    for request in [shopper.looks(), shopper.adds_to_cart(), *(shopper.buys() for _ in range(20))]:
        for event in request.events:
            declared = types[event.event_type]["properties"]
            required = {name for name, rules in declared.items() if rules.get("required")}
            assert required <= set(event.properties) <= set(declared)


def test_shopper_opens_each_basket_once() -> None:
    """Exactly one line of a basket is its first, and that one carries the total."""
    shopper = Shopper(customer_id="7", choices=random.Random(1))
    for request in (shopper.buys() for _ in range(50)):
        firsts = [event for event in request.events if event.properties["basket_first"] is True]
        total = sum(float(str(event.properties["sales_value"])) for event in request.events)
        assert [event.properties["basket_total"] for event in firsts] == [pytest.approx(total)]


GATE = """
import json, sys
from locust.stats import RequestStats
from loadtest.gate import verdict

stats = RequestStats()
for name, elapsed_ms, failed in json.loads(sys.argv[1]):
    stats.log_request("grpc", name, elapsed_ms, 0)
    if failed:
        stats.log_error("grpc", name, failed)
print(json.dumps(verdict(stats, max_p99_ms=50.0)))
"""


@pytest.mark.parametrize(
    ("calls", "problems"),
    [
        ([["Decide", 3.0, None]] * 10, []),
        ([["Decide", 3.0, None], ["PublishEvents", 2.0, "refused"]], ["1 of 2 calls failed"]),
        ([["PublishEvents", 2.0, None]], ["no call of Decide was made"]),
        ([["Decide", 90.0, None]] * 10, ["p99 of Decide is 90 ms, the bound is 50 ms"]),
    ],
)
def test_gate_names_what_failed(calls: list[list[object]], problems: list[str]) -> None:
    """A run fails on failed calls, on no decision at all and on a slow p99, and passes otherwise."""
    # In a process of its own: importing Locust patches the whole interpreter for gevent.
    answer = subprocess.run(
        [sys.executable, "-c", GATE, json.dumps(calls)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(answer.stdout) == problems
