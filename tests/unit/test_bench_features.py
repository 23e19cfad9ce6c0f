"""What `waypost bench features` makes of a driver's words, of answers, and of its own results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.bench import features
from loadtest.bench.driver import Load, read_h2load
from loadtest.bench.features_world import COLUMNS, NAMES, json_of, json_values_of, values_of

SAID = """finished in 2.00s, 50.00 req/s, 1.00MB/s
requests: 100 total, 100 started, {done} done, {succeeded} succeeded, {failed} failed, {failed} errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.00MB (1050000) total, 2.00KB (2048) headers (space savings 90.00%), 1.00MB ({data}) data
"""


def said(done: int, succeeded: int, data: int) -> str:
    """The words of h2load."""
    return SAID.format(done=done, succeeded=succeeded, failed=100 - succeeded, data=data)


def test_the_drivers_words_are_read() -> None:
    """Calls without an answer, and answers of another status, are not in the rate."""
    assert read_h2load(said(100, 100, 100_500), 5) == Load(50.0, 0, 1_000.0)
    assert read_h2load(said(80, 60, 80_000), 0) == Load(37.5, 40, 1_000.0)
    assert read_h2load(said(0, 0, 0), 5) == Load(0.0, 100)
    with pytest.raises(RuntimeError, match="something else than expected:\nSegmentation fault"):
        read_h2load("Segmentation fault", 5)


def answer(value: float) -> bytes:
    """A response with the same number in every column."""
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

    message = GetOnlineFeaturesResponse()
    message.metadata.feature_names.val.extend(COLUMNS)
    for _ in COLUMNS:
        message.results.add().values.add().double_val = value
    return bytes(message.SerializeToString())


def answers(listen: float, serve: float, sdk: float) -> dict[str, bytes]:
    """Answers of all, Waypost's with 0.1 everywhere."""
    body = {
        "metadata": {"feature_names": list(reversed(COLUMNS))},
        "results": [{"values": [serve]} for _ in COLUMNS],
    }
    return {
        "waypost": answer(0.1),
        "listen": answer(listen),
        "serve": json.dumps(body).encode(),
        "sdk": answer(sdk),
    }


def test_values_are_compared_by_column() -> None:
    """A rival with another value is named, whatever the order of its columns."""
    assert features._differing(answers(0.1, 0.1, 0.1)) == []
    assert features._differing(answers(0.2, 0.1, 0.1)) == ["listen"]
    assert features._differing(answers(0.1, 0.2, 0.3)) == ["SDK", "serve"]
    assert json_of(answer(0.1)) == json_values_of(answers(0, 0.1, 0)["serve"])
    assert len(values_of(answer(0.1))) == len(NAMES) + 1


def results(**changes: Any) -> dict[str, Any]:
    """Results in which every bound holds."""
    row = {
        "waypost_rps": 5_000.0, "echo_rps": 9_000.0, "listen_rps": 400.0, "serve_rps": 200.0,
        "waypost_us_p50": 900.0, "waypost_us_p99": 1_500.0, "echo_us_p50": 300.0, "listen_us_p50": 9_000.0,
        "sdk_us_p50": 9_000.0, "differ": [], "unanswered": {"serve": 0}, "cut_short": [], "response_bytes": 1_000,
    }  # fmt: skip
    return {
        "rows": [row | {"n": n} | changes for n in features.ROW_COUNTS],
        "vector_us_p50": 200.0,
        "vector_us_p99": 400.0,
        "vector_near_us_p50": 100.0,
        "round_trips": 1.0,
        "round_trips_near": 1.0,
        "memory_mib": [400.0, 400.5],
        "memory_requests": 1_000,
        "driver": "h2load",
        "environment": {},
    }


def test_a_report_says_what_went_wrong_under_load() -> None:
    """Calls that were not answered are named, and so are answers that were not whole."""
    report = features.report(results())
    assert all(bound.holds for bound in report.bounds)
    assert report.notes == (
        "At 1 row the bare echo itself answers 22.5 × as often as feast listen and 45.0 × as often as feast serve.",
    )
    report = features.report(results(unanswered={"serve": 3}, cut_short=["listen"], differ=["serve"]))
    assert report.notes[1].startswith("1 rows: serve left 3 calls unanswered")
    assert report.notes[2].startswith("1 rows: listen gave other answers under load")
    assert report.tables[0].rows[0][-1] == "NO: serve"


def test_short_answers_are_seen() -> None:
    """An error is far shorter than an answer; a driver that does not count proves nothing."""
    assert features._all_whole([Load(1.0, 0, 1_000.0), Load(1.0)], 1_000)
    assert not features._all_whole([Load(1.0, 0, 1_000.0), Load(1.0, 0, 900.0)], 1_000)
