"""The whole of Waypost on a cluster of three masters: events in, features and decisions out, a customer erased."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from online.errors import KeyEncodingError
from online.keys import parse_key
from server.cli import app
from tests.support.stores import Cluster, run_cluster, wait_until
from tests.support.up import READY_S, Up, buf_curl

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
READERS = ["ann", "bob", "cyd", "dee", "eve", "fay", "gus", "hal"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three masters."""
    with run_cluster(tmp_path / "cluster") as made:
        yield made


@pytest.fixture
def up(tmp_path: Path, cluster: Cluster) -> Iterator[Up]:
    """A library's repo, being served on the cluster."""
    running = Up(tmp_path, "--redis-url", cluster.url, "--partitions", "4")
    try:
        yield running
    finally:
        running.end()


def waypost(*arguments: str) -> str:
    """Run a command in this process, which has imported everything once; returns what it printed."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def loans(reader: str) -> list[dict[str, object]]:
    """Two loans of a reader."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        {
            "eventId": f"{reader}-{number}",
            "eventType": "borrowed",
            "customerId": reader,
            "eventTime": now,
            "properties": {"isbn": f"978-{number}", "genre": "crime"},
        }
        for number in range(2)
    ]


def counts(target: str) -> dict[str, object]:
    """How many loans each reader has, in one request over all nodes."""
    request = {
        "features": ["borrowing:loan_count_7d"],
        "entities": [{"keys": {"reader_id": {"string_value": reader}}} for reader in READERS],
    }
    answer: Any = buf_curl(target, "waypost.features.v1.FeatureService/GetOnlineFeatures", request)
    values = answer["results"][0]["values"] if "results" in answer else answer["columns"][0]["values"]
    return dict(zip(READERS, [next(iter(value.values()), None) for value in values], strict=True))


def test_a_cluster_carries_the_whole_road(up: Up, cluster: Cluster, tmp_path: Path) -> None:
    """Log, windows, features, decisions and status work over all nodes; erasing takes one reader and nobody else."""
    target = up.target()
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(loan) + "\n" for reader in READERS for loan in loans(reader)))
    waypost("publish", str(events), "--target", target)
    wait_until(lambda: set(counts(target).values()) == {"2"}, f"all are counted: {counts(target)}", READY_S)
    assert all(any(_is_entity(key) for key in node.scan_iter()) for node in cluster.clients)
    decision = json.loads(
        waypost("decide", "app_home", READERS[0], "-c", "browsing_genre=crime", "--target", target, "--json")
    )
    assert decision["offers"][0]["offer"] == "crime_night"
    assert decision.get("degraded", []) == []
    assert len(json.loads(waypost("status", "--target", target, "--json"))["partitions"]) == 4
    store = ("--repo", str(up.repo), "--redis-url", cluster.url, "--json")
    erased = json.loads(waypost("erase", READERS[0], *store))
    assert [entity["join_keys"] for entity in erased["entities"]] == [["reader_id"]]
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in READERS[1])
    assert json.loads(waypost("erase", spelt, "--escaped", "--dry-run", *store))["customer"] == READERS[1]
    left = counts(target)
    assert left.pop(READERS[0]) is None
    assert set(left.values()) == {"2"}
    retired = json.loads(waypost("retire", "borrowing", *store))
    assert (retired["removed"], retired["entities"][0]["entities"]) == (False, len(READERS) - 1)
    assert set(left.values()) == {"2"}


def _is_entity(key: bytes) -> bool:
    try:
        return bool(parse_key(key).names)
    except KeyEncodingError:
        return False
