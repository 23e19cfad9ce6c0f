"""The dead-letter log: refused events are kept with reason and bytes, shown, and published again; JSON too."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from online.store import connect
from server.cli import app
from streaming.events import EventRecord
from streaming.lease import Leases
from streaming.owner import DeadLetter, PartitionOwner
from tests.support.clinic import TIMEOUT_S, Clinic, run_clinic
from waypost.admin.v1 import admin_pb2
from waypost.events.v1 import events_pb2

NOW_US = 1_767_225_600_000_000


@pytest.fixture
def clinic(url: str, tmp_path: Path) -> Iterator[Clinic]:
    """A server on an empty store, at a time of its own."""
    with connect(url) as client:
        client.flushall()
    with run_clinic(tmp_path, url, clock="virtual", partitions=2, limits={"max_events": 50}) as running:
        now = Timestamp(seconds=NOW_US // 1_000_000)
        running.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=now), timeout=TIMEOUT_S)
        yield running


def _visit(number: int, fee: float) -> events_pb2.Event:
    event = events_pb2.Event(event_id=f"v{number}", event_type="visit", customer_id="7")
    event.event_time.CopyFrom(Timestamp(seconds=NOW_US // 1_000_000))
    event.properties.update({"department": "eyes", "fee": fee})
    return event


def _publish(clinic: Clinic, *events: events_pb2.Event) -> events_pb2.PublishEventsResponse:
    return clinic.events.PublishEvents(events_pb2.PublishEventsRequest(events=events), timeout=TIMEOUT_S)


def _letters(clinic: Clinic, **asked: Any) -> admin_pb2.ListDeadLettersResponse:
    return clinic.admin.ListDeadLetters(admin_pb2.ListDeadLettersRequest(**asked), timeout=TIMEOUT_S)


def test_refused_event_is_kept_with_reason_field_and_bytes(clinic: Clinic) -> None:
    """What a client sent is there byte by byte; what was accepted is not."""
    bad = _visit(1, -5.0)
    assert _publish(clinic, _visit(0, 5.0), bad).accepted_count == 1
    (letter,) = _letters(clinic).letters
    assert (letter.reason, letter.field) == ("OUT_OF_RANGE", "properties.fee")
    assert events_pb2.Event.FromString(letter.original) == letter.event == bad
    assert letter.detail == "properties.fee: is -5.0, minimum is 0.0"
    status = clinic.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    assert status.events_refused == {"OUT_OF_RANGE": 1}


def test_a_large_event_is_kept_in_part(clinic: Clinic) -> None:
    """Who sent it and why it was refused; but its bulk does not fill the store, and it is not published by halves."""
    large = _visit(1, 5.0)
    large.properties["x" * 100_000] = "y" * 1_000_000
    _publish(clinic, large)
    body = json.dumps({"events": [{"event_id": "j", "surplus": "y" * 1_000_000}]}).encode()
    assert _post(clinic, body)[0] == 200
    sent, text = _letters(clinic).letters
    assert (sent.reason, text.reason) == ("UNKNOWN_PROPERTY", "MESSAGE_MALFORMED")
    assert (sent.event.event_id, sent.event.customer_id, sent.event.event_time) == (
        "v1",
        "7",
        large.event_time,
    )
    assert f"too large to be kept whole, {large.ByteSize()} bytes" in sent.detail
    assert text.original.startswith(b'{"event_id": "j", "surplus": "yyy')
    assert sent.ByteSize() + text.ByteSize() < 10_000
    answer = clinic.admin.RedriveDeadLetters(
        admin_pb2.RedriveDeadLettersRequest(ids=[sent.id, text.id]), timeout=TIMEOUT_S
    )
    assert [result.accepted for result in answer.results] == [False, False]
    assert answer.results[0].error.message == "ids[0]: is kept in part: publish it whole"


def test_letters_are_paged_and_filtered(clinic: Clinic) -> None:
    """Pages join without gap or repeat, over every source, and a filter skips what it must."""
    _publish(clinic, *(_visit(number, -1.0) for number in range(7)))
    _publish(clinic, events_pb2.Event(event_id="x", event_type="visti", customer_id="7"))
    record = EventRecord("late", "visit", "7", NOW_US, {"department": "eyes", "fee": 1.0})
    with connect(clinic.url) as client:
        for partition in range(2):
            lease = Leases(client, "clinic", "t", 60_000).acquire(partition)
            assert lease is not None
            letter = DeadLetter(5 << 20, "LATE", "event_time", "late", 0, record.to_bytes())
            PartitionOwner(client, lease).bury([letter])
    seen, after = [], ""
    while True:
        page = _letters(clinic, limit=4, after=after)
        seen += [letter.id for letter in page.letters]
        after = page.next
        if not after:
            break
    assert len(seen) == len(set(seen)) == page.total == 10
    assert seen[-2:] == ["0:5-0", "1:5-0"]
    unknown = _letters(clinic, reason="UNKNOWN_EVENT_TYPE", limit=10).letters
    assert [letter.event.event_id for letter in unknown] == ["x"]
    assert _letters(clinic, ids=["0:5-0"]).letters[0].event.properties["fee"] == 1.0


def test_redrive_publishes_again_and_takes_out_what_is_accepted(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the command line: listed, shown, redriven; what is still wrong stays, and the exit code says so."""
    monkeypatch.setenv("COLUMNS", "200")
    record = EventRecord("again", "visit", "7", NOW_US, {"department": "eyes", "fee": 1.0})
    with connect(clinic.url) as client:
        lease = Leases(client, "clinic", "t", 60_000).acquire(0)
        assert lease is not None
        PartitionOwner(client, lease).bury(
            [DeadLetter(5 << 20, "NOT_APPLICABLE", "", "bug", 0, record.to_bytes())]
        )
    _publish(clinic, _visit(1, -5.0))
    target = ["--target", clinic.addresses.grpc]
    listed = _run("dlq", "ls", *target)
    assert "2 dead letters" in listed.stdout
    assert "0:5-0" in listed.stdout
    shown = json.loads(_run("dlq", "show", "0:5-0", "--json", *target).stdout)
    assert shown[0]["event"]["eventId"] == "again"
    assert '"eventId": "again"' in _run("dlq", "show", "0:5-0", *target).stdout
    assert _run("dlq", "show", "0:6-0", *target).exit_code == 1
    assert "none of reason 'LAET'" in _run("dlq", "ls", "--reason", "LAET", *target).stdout
    assert "no dead letter is of reason 'LAET'" in _run("dlq", "redrive", "--reason", "LAET", *target).stdout
    refused = _run("dlq", "redrive", "--reason", "OUT_OF_RANGE", *target)
    assert (refused.exit_code, "0 events accepted" in refused.stdout) == (1, True)
    before = clinic.log_length()
    redriven = _run("dlq", "redrive", "0:5-0", *target)
    assert (redriven.exit_code, "1 event accepted" in redriven.stdout) == (0, True)
    assert clinic.log_length() == before + 1
    left = json.loads(_run("dlq", "ls", "--json", *target).stdout)
    assert [letter["reason"] for letter in left["letters"]] == ["OUT_OF_RANGE"]
    assert _run("dlq", "redrive", *target).exit_code == 2


def test_large_letters_fill_pages_that_clients_take(url: str, tmp_path: Path) -> None:
    """A thousand are more than the 4 MiB that gRPC's clients take: pages are shorter, and redrive turns them."""
    with connect(url) as client:
        client.flushall()
    with run_clinic(tmp_path, url) as clinic:
        events = [_visit(number, -1.0) for number in range(1_000)]
        for event in events:
            event.event_time.GetCurrentTime()
            event.properties["department"] = "é" * 1_900
        for first in range(0, 1_000, 250):
            assert not _publish(clinic, *events[first : first + 250]).accepted_count
        seen: list[admin_pb2.DeadLetter] = []
        after = ""
        while not seen or after:
            page = _letters(clinic, limit=1_000, after=after)
            seen += list(page.letters)
            after = page.next
            assert 0 < len(page.letters) < 1_000
        assert [letter.event.event_id for letter in seen] == [event.event_id for event in events]
        with pytest.raises(grpc.RpcError, match="names more than an answer holds: the first"):
            _letters(clinic, ids=[letter.id for letter in seen])
        told = _run("dlq", "redrive", "--reason", "TOO_LONG", "--target", clinic.addresses.grpc)
        assert "1000 events refused again" in told.stderr


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def _post(clinic: Clinic, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{clinic.addresses.http}/v1/events", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - an address of our own
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_events_come_in_as_json_over_http(clinic: Clinic) -> None:
    """Each event of a JSON body is judged by itself; what is no event at all is kept as it came."""
    good = {
        "event_id": "j1",
        "event_type": "visit",
        "customer_id": "7",
        "event_time": "2026-01-01T00:00:00Z",
        "properties": {"department": "eyes", "fee": 3},
    }
    body = {
        "events": [good, good | {"event_id": "j2", "fee": 3}, good | {"event_id": "j3", "event_type": "?"}]
    }
    code, answer = _post(clinic, json.dumps(body).encode())
    assert code == 200
    assert [result["accepted"] for result in answer["results"]] == [True, False, False]
    kept = _letters(clinic).letters
    assert [letter.reason for letter in kept] == ["MESSAGE_MALFORMED", "UNKNOWN_EVENT_TYPE"]
    assert json.loads(kept[0].original)["event_id"] == "j2"
    for broken in (b"{", b"[]", b'{"events": 1}', json.dumps({"events": [good] * 51}).encode()):
        assert _post(clinic, broken)[0] == 400


HALF_A_PAIR = "\ud83d"
HOSTILE: dict[str, Any] = {
    "a text": {"event_type": HALF_A_PAIR},
    "a name": {HALF_A_PAIR: 1},
    "a property": {"event_id": "p", "properties": {HALF_A_PAIR: HALF_A_PAIR}},
    "an instant": {"event_time": HALF_A_PAIR},
    "nothing": None,
    "a number": 10**400,
    "a property's number": {"event_id": "n", "properties": {"fee": 10**400}},
    "lists": {"event_id": "l", "properties": {"a": [[[[[[]]]]]]}},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("ensure_ascii", [True, False], ids=["escaped", "raw"])
def test_a_hostile_event_spoils_no_other(clinic: Clinic, name: str, ensure_ascii: bool) -> None:
    """It is refused by itself and kept; the one beside it is accepted."""
    good = {"event_id": "g", "event_type": "visit", "customer_id": "7", "event_time": "2026-01-01T00:00:00Z"}
    events = [good | {"properties": {"department": "eyes", "fee": 3}}, HOSTILE[name]]
    body = json.dumps({"events": events}, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")
    code, answer = _post(clinic, body)
    assert code == 200
    assert [result["accepted"] for result in answer["results"]] == [True, False]
    assert len(_letters(clinic).letters) == 1


def test_a_body_nested_too_deep_is_refused(clinic: Clinic) -> None:
    """Nesting beyond what can be read is the caller's mistake, whether it ends or not."""
    for nested in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000):
        code, answer = _post(clinic, f'{{"events": {nested}}}'.encode())
        assert (code, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    deep = '{"event_id": "d", "properties": ' + '{"a":' * 300 + "1" + "}" * 301
    code, answer = _post(clinic, f'{{"events": [{deep}]}}'.encode())
    assert (code, [result["accepted"] for result in answer["results"]]) == (200, [False])
