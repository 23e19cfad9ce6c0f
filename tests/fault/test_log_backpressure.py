"""Backpressure from end to end: without a materializer the log fills up, refuses, and loses nothing it acknowledged."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from server.supervisor import free_port
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic, whole
from tests.support.materializers import START_US, Site
from tests.support.valkey import run_valkey
from waypost.admin.v1 import admin_pb2
from waypost.events.v1 import events_pb2
from waypost.features.v1 import features_pb2

BOUND = 600
BATCH = 50

pytestmark = pytest.mark.timeout(400)


def test_full_log_refuses_and_keeps_every_acknowledged_event(tmp_path: Path) -> None:
    """Accepted up to the bound, then refused with a retry time; after kill -9 of the store all is applied, once."""
    folder = tmp_path / "site"
    port = free_port("127.0.0.1")
    with run_valkey(tmp_path / "valkey") as store:
        site = Site(folder, store.url, partition_count=1, http_port=port, checkpoint_interval_s=0.2)
        try:
            with run_clinic(
                folder, store.url, clock="virtual", partitions=1, log_max_records=BOUND
            ) as clinic:
                now = Timestamp(seconds=START_US // 1_000_000)
                clinic.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=now), timeout=TIMEOUT_S)
                acknowledged = _publish_until_refused(clinic)
                store.kill()
                store.start()
                site.start()
                site.wait(lambda: site.applied() == site.appended(), "everything applied")
                assert _visits(clinic) == acknowledged
                site.wait(lambda: _is_accepted(clinic, acknowledged), "room in the log again")
                site.wait(lambda: _visits(clinic) == acknowledged + 1, "and applied")
                events = _counted(acknowledged + 1)
                site.wait(lambda: events in _metrics(port), "and counted, which comes after")
                _watched(clinic, port, acknowledged + 1)
        finally:
            site.stop()


def _publish(clinic: Clinic, first: int, count: int) -> int:
    events = []
    for number in range(first, first + count):
        event = events_pb2.Event(event_id=f"v{number}", event_type="visit", customer_id="7")
        event.event_time.CopyFrom(Timestamp(seconds=START_US // 1_000_000))
        event.properties.update({"department": "eyes", "fee": 1.0})
        events.append(event)
    answer = clinic.events.PublishEvents(events_pb2.PublishEventsRequest(events=events), timeout=TIMEOUT_S)
    return answer.accepted_count


def _publish_until_refused(clinic: Clinic) -> int:
    acknowledged = 0
    error: grpc.RpcError | None = None
    while error is None and acknowledged < 10 * BOUND:
        try:
            acknowledged += _publish(clinic, acknowledged, BATCH)
        except grpc.RpcError as raised:
            error = raised
    refused = refusal(error)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOG_FULL")
    assert refused.details[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0
    assert BOUND - 1 <= acknowledged <= BOUND + BATCH
    return acknowledged


def _is_accepted(clinic: Clinic, number: int) -> bool:
    try:
        return _publish(clinic, number, 1) == 1
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - tried again
        return False


def _visits(clinic: Clinic) -> int:
    request = features_pb2.GetOnlineFeaturesRequest(
        features=["visits:visit_count_30d"],
        entities=[features_pb2.EntityRow(keys={"patient_id": whole(7)})],
    )
    answer: Any = clinic.features.GetOnlineFeatures(request, timeout=TIMEOUT_S)
    return int(answer.columns[0].values[0].int64_value)


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
        metrics: str = answer.read().decode()
    return metrics


def _counted(events: int) -> str:
    return f'waypost_stream_events_total{{partition="0"}} {float(events)}'


def _watched(clinic: Clinic, port: int, events: int) -> None:
    """What the process, the store and the server say of it agrees."""
    metrics = _metrics(port)
    assert _counted(events) in metrics
    assert f'waypost_stream_freshness_arrival_seconds_count{{partition="0"}} {float(events)}' in metrics
    assert 'waypost_stream_flips_total{partition="0",segment="regular"} 1.0' in metrics
    (part,) = clinic.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S).partitions
    assert part.lag == 0
    assert part.owner
    assert part.figures["flips:regular"] == 1
    assert part.figures["freshness_samples"] >= events - 1
