"""The road of docs/your-own-repo.md: init, up, publish with buf curl, decide, explain, replay, Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.up import READY_S, Up, buf_curl, waypost

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A library's repo, being served."""
    running = Up(tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end()


def loan(number: int) -> dict[str, object]:
    """An event as the page has it."""
    return {
        "event_id": f"loan-{number}",
        "event_type": "borrowed",
        "customer_id": "ann",
        "event_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "properties": {"isbn": f"978-{number}", "genre": "crime"},
    }


def test_a_fresh_repo_serves_events_and_decisions(up: Up) -> None:
    """Two loans published over gRPC make the rule fire; the decision explains itself and replays; Ctrl-C ends all."""
    target = up.target()
    events = {"events": [loan(1), loan(2), {"event_id": "x", "event_type": "borowed"}]}
    published = buf_curl(target, "waypost.events.v1.EventService/PublishEvents", events)
    assert published["acceptedCount"] == 2
    wait_for_loans(target, 2)
    request = {
        "placement": "app_home",
        "customer_id": "ann",
        "context": {"browsing_genre": {"string_value": "crime"}},
    }
    decision = buf_curl(target, "waypost.decision.v1.DecisionService/Decide", request)
    offers = decision["offers"]
    assert isinstance(offers, list)
    assert offers[0]["offer"] == "crime_night"
    assert offers[0]["reasons"][0]["name"] == "crime_for_regulars"
    assert "degraded" not in decision
    decision_id = str(decision["decisionId"])
    assert up.end() == 0, up.said()
    assert left_behind(up.data_dir) == []
    logs = [path.read_text() for path in (up.data_dir / "logs").glob("*.log")]
    assert len(logs) >= 2
    assert not any("leaked" in text for text in logs)
    assert decision_id in waypost("explain", decision_id, "--data-dir", str(up.data_dir))
    assert "the same" in waypost("replay", decision_id, "--data-dir", str(up.data_dir))


def wait_for_loans(target: str, count: int) -> None:
    """Wait until the materializer has counted the loans."""
    request = {
        "features": ["borrowing:loan_count_7d"],
        "entities": [{"keys": {"reader_id": {"string_value": "ann"}}}],
    }
    deadline = time.monotonic() + READY_S
    answer = {}
    while time.monotonic() < deadline:
        answer = buf_curl(target, "waypost.features.v1.FeatureService/GetOnlineFeatures", request)
        if f"'{count}'" in str(answer):
            return
    raise AssertionError(answer)


def left_behind(data_dir: Path) -> list[str]:
    """Processes that still name a data folder, in their command line or environment."""
    return [entry.name for entry in Path("/proc").glob("[0-9]*") if str(data_dir).encode() in _words(entry)]


def _words(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
    except OSError:
        return b""
