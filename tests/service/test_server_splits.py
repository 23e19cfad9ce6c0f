"""An arm of a split, from the policy's text into answers, records and the log that experiments are read from."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator

import pyarrow.dataset as ds
import pytest

from server.embedded import EmbeddedValkey
from tests.support.clinic import TIMEOUT_S, Clinic, run_clinic
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2

SPLIT = """
rule holdout on portal_banner priority 100:
  IF bucket(customer, "banner 2026-11", 10) < 2 THEN exclude("flu_shot"), tag("holdout")
rule skin_first on portal_banner:
  IF bucket(customer, "skin first", 2) = 0 THEN pin("skin_check", 1), tag("skin_b") ELSE tag("skin_a")
"""
CUSTOMERS = tuple(map(str, range(1, 61)))


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A running server that is told the split by a reload."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url) as running:
        (running.settings.repo / "policy" / "splits.policy").write_text(SPLIT)
        running.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        yield running


def bucket(customer: str, salt: str, count: int) -> int:
    """As docs/rules.md defines it."""
    digest = hashlib.sha256(salt.encode() + b"\0" + customer.encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def arms(customer: str) -> list[str]:
    """The tags of a customer's decisions, in the order of the rules."""
    held_out = bucket(customer, "banner 2026-11", 10) < 2
    skin = "skin_b" if bucket(customer, "skin first", 2) == 0 else "skin_a"
    return [*(["holdout"] if held_out else []), skin]


def decide(clinic: Clinic, customer: str) -> decision_pb2.DecideResponse:
    """What that customer is shown."""
    request = decision_pb2.DecideRequest(placement="portal_banner", customer_id=customer)
    return clinic.decisions.Decide(request, timeout=TIMEOUT_S)


def logged(clinic: Clinic, wanted: set[str]) -> dict[str, decision_pb2.DecisionRecord]:
    """The records of these decisions, read from the log's files as anyone may read them."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        files = [str(path) for path in clinic.settings.decisions_dir.glob("L*.parquet")]
        rows = ds.dataset(files, format="parquet").to_table().to_pylist() if files else []
        found = {row["decision_id"]: row["record"] for row in rows if row["decision_id"] in wanted}
        if found.keys() == wanted:
            return {key: decision_pb2.DecisionRecord.FromString(record) for key, record in found.items()}
        assert time.monotonic() < deadline, f"{len(wanted - found.keys())} decisions were not logged"


def test_an_arm_is_in_answers_records_and_the_log(clinic: Clinic) -> None:
    """Every customer's arm is what the hash says, tags the answer and stands in the log beside what was shown."""
    answers = {customer: decide(clinic, customer) for customer in CUSTOMERS}
    records = logged(clinic, {answer.decision_id for answer in answers.values()})
    for customer, answer in answers.items():
        shown = [ranked.offer for ranked in answer.offers]
        assert list(answer.tags) == arms(customer)
        assert ("flu_shot" in shown) is ("holdout" not in answer.tags)
        assert (shown[0] == "skin_check") is ("skin_b" in answer.tags or "holdout" in answer.tags)
        record = records[answer.decision_id]
        assert record.request.customer_id == customer
        assert record.response == answer
        assert list(record.response.tags) == arms(customer)


def test_an_experiment_is_read_from_the_log(clinic: Clinic) -> None:
    """Counted by tag, the log tells how many decisions each arm had and how often each showed what it changes."""
    answers = [decide(clinic, customer) for customer in CUSTOMERS]
    records = logged(clinic, {answer.decision_id for answer in answers}).values()
    decisions = Counter(tag for record in records for tag in record.response.tags)
    first = Counter(
        tag
        for record in records
        for tag in record.response.tags
        if record.response.offers[0].offer == "flu_shot"
    )
    assert decisions == Counter(tag for customer in CUSTOMERS for tag in arms(customer))
    assert 0 < decisions["holdout"] < decisions["skin_a"]
    assert first["skin_b"] == first["holdout"] == 0
    assert first["skin_a"] == sum(arms(customer) == ["skin_a"] for customer in CUSTOMERS)


def test_an_arm_stays_a_customers_own(clinic: Clinic) -> None:
    """Another request, another instant and another seed leave the arm as it is, and it is explained."""
    for customer in CUSTOMERS[:10]:
        first, second = decide(clinic, customer), decide(clinic, customer)
        assert first.decision_id != second.decision_id
        assert list(first.tags) == list(second.tags)
        logged(clinic, {first.decision_id})
        request = decision_pb2.ExplainRequest(decision_id=first.decision_id)
        told = clinic.decisions.Explain(request, timeout=TIMEOUT_S)
        (verdict,) = [verdict for verdict in told.conditions if verdict.rule == "holdout"]
        assert (verdict.truth == decision_pb2.TRUTH_TRUE) is ("holdout" in first.tags)
        assert list(told.decision.tags) == arms(customer)
