"""The services over a real store: answers, refusals, degradations, reloads, and decisions that replay."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import server.grpc_server
from online.store import connect
from server.bundles import kept_bundle
from server.calls import MAX_STREAMS
from server.decision_codec import models_of, record_bytes
from server.decision_files import find
from server.embedded import EmbeddedValkey
from server.errors import RequestError
from server.feast.protos import PushRequest, WriteToOnlineStoreRequest
from server.grpc_server import SERVICE_NAMES
from server.replay import replay
from streaming.keys import policy_key
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic, text, whole
from tests.support.frozen import freezable
from tests.support.valkey import run_valkey
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2
from waypost.events.v1 import events_pb2
from waypost.features.v1 import features_pb2

DAY_US = 86_400_000_000
NOW_US = 1_767_225_600_000_000
Call = Callable[[Clinic], Any]


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server of the clinic on a virtual clock, with one patient in the store."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url, clock="virtual") as running:
        running.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=stamp(NOW_US)), timeout=TIMEOUT_S)
        running.put("visits", {"patient_id": 7}, {"visit_count_30d": 3, "fees_90d": 12.5}, NOW_US - DAY_US)
        running.put("groups", {"patient_id": 7}, {"regular": True}, NOW_US - DAY_US)
        profile = {"age_years": 41, "insurer": None, "reminders_wanted": True}
        running.put("profile", {"patient_id": 7}, profile, NOW_US - 400 * DAY_US)
        yield running


def stamp(micros: int) -> Timestamp:
    """An instant."""
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def event(event_id: str = "e", **changes: Any) -> events_pb2.Event:
    """A valid visit, with changes."""
    properties = Struct()
    properties.update({"department": "general", "fee": 20.0} | changes.pop("properties", {}))
    fields: dict[str, Any] = {
        "event_type": "visit",
        "customer_id": "7",
        "event_time": stamp(NOW_US - 5_000_000),
    } | changes
    return events_pb2.Event(event_id=event_id, properties=properties, **fields)


def decide(clinic: Clinic, **fields: Any) -> decision_pb2.DecideResponse:
    """A decision at the portal for patient 7, with changes."""
    request = {"placement": "portal_banner", "customer_id": "7"} | fields
    return clinic.decisions.Decide(decision_pb2.DecideRequest(**request), timeout=TIMEOUT_S)


def read(clinic: Clinic, **fields: Any) -> features_pb2.GetOnlineFeaturesResponse:
    """Features of an entity."""
    return clinic.features.GetOnlineFeatures(
        features_pb2.GetOnlineFeaturesRequest(**fields), timeout=TIMEOUT_S
    )


def row(**keys: Any) -> features_pb2.EntityRow:
    """An entity row; numbers and texts become values."""
    return features_pb2.EntityRow(
        keys={name: whole(value) if isinstance(value, int) else text(value) for name, value in keys.items()}
    )


def publish(clinic: Clinic, *events: events_pb2.Event) -> events_pb2.PublishEventsResponse:
    """Publish events."""
    return clinic.events.PublishEvents(events_pb2.PublishEventsRequest(events=events), timeout=TIMEOUT_S)


def wait_for_record(clinic: Clinic, decision_id: str) -> decision_pb2.DecisionRecord:
    """The record of a decision, once the log has flushed it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        record = find(clinic.settings.decisions_dir, decision_id)
        if record is not None:
            return record
    raise AssertionError(f"{decision_id} was not logged")


def test_a_rule_fires_on_stored_features_and_context(clinic: Clinic) -> None:
    """Stored features and request context decide together, and the answer says why."""
    response = decide(clinic, context={"reason": text("pain")})
    assert response.offers[0].offer == "priority_slot"
    assert response.offers[0].content["title"] == "We kept a slot for you"
    assert any(reason.name == "slot_for_regulars" for reason in response.offers[0].reasons)
    assert (list(response.tags), list(response.segments)) == (["regulars"], ["regular"])
    ages = {age.view: age.age.ToMicroseconds() for age in response.feature_ages if age.HasField("age")}
    assert ages["visits"] == DAY_US
    assert response.decided_at == stamp(NOW_US)


def test_an_unknown_customer_gets_a_decision(clinic: Clinic) -> None:
    """A customer never seen before is answered from defaults and rules, and marked as such."""
    response = decide(clinic, customer_id="999")
    assert [offer.offer for offer in response.offers] == ["flu_shot", "skin_check"]
    assert decision_pb2.DEGRADATION_KIND_UNKNOWN_CUSTOMER in {item.kind for item in response.degraded}


def test_decision_ids_sort_by_time_and_differ(clinic: Clinic) -> None:
    """Ids are unique though the clock stands still, and begin with the decision's time."""
    found = {decide(clinic).decision_id for _ in range(20)}
    assert len(found) == 20
    assert {int(item.replace("-", "")[:12], 16) for item in found} == {NOW_US // 1_000}


def test_a_logged_decision_replays_to_the_same_bytes(clinic: Clinic) -> None:
    """Record, kept bundle and engine give the same bytes again."""
    asked_at = features_pb2.Value(timestamp_value=stamp(NOW_US - 1))
    context = {"reason": text("pain"), "asked_at": asked_at, "party_size": whole(2)}
    response = decide(clinic, context=context, limit=2)
    record = wait_for_record(clinic, response.decision_id)
    assert record.response == response
    bundle = kept_bundle(
        clinic.settings.bundles_dir, clinic.settings.models_dir, record.bundle_version, models_of(record)
    )
    assert record_bytes(replay(record, bundle)) == record_bytes(record)


def test_a_given_seed_is_logged(clinic: Clinic) -> None:
    """The seed of a request is the seed of its record."""
    response = decide(clinic, seed=2**64 - 1)
    assert wait_for_record(clinic, response.decision_id).seed == 2**64 - 1


def test_features_come_in_the_order_asked_for(clinic: Clinic) -> None:
    """One column per feature in request order, with values, statuses and event times per entity."""
    response = read(
        clinic,
        features=["profile:age_years", "visits:visit_count_30d", "visits:last_visit_at", "profile:insurer"],
        entities=[row(patient_id=7), row(patient_id="8")],
    )
    age, count, last, insurer = response.columns
    assert [column.name for column in response.columns[:2]] == ["profile:age_years", "visits:visit_count_30d"]
    assert [value.int64_value for value in count.values] == [3, 0]
    assert list(count.statuses) == [features_pb2.FIELD_STATUS_PRESENT, features_pb2.FIELD_STATUS_NOT_FOUND]
    assert count.event_timestamps[0] == stamp(NOW_US - DAY_US)
    assert count.event_timestamps[1] == Timestamp()
    assert (age.statuses[0], age.values[0].int64_value) == (features_pb2.FIELD_STATUS_STALE, 41)
    assert insurer.statuses[0] == features_pb2.FIELD_STATUS_NULL
    assert last.statuses[0] == features_pb2.FIELD_STATUS_NOT_FOUND


def test_a_feature_service_gives_its_features(clinic: Clinic) -> None:
    """A feature service is a list of features in its own order."""
    response = read(clinic, feature_service="portal_v1", entities=[row(patient_id=7)])
    assert [column.name for column in response.columns][:2] == ["visits:visit_count_30d", "profile:age_years"]


def test_one_bad_event_does_not_hold_up_the_others(clinic: Clinic) -> None:
    """The refused event says why and stays out of the log; the others are in it."""
    before = clinic.log_length()
    response = publish(clinic, event("a"), event("b", properties={"fee": -1.0}), event("c"))
    assert [result.accepted for result in response.results] == [True, False, True]
    assert (response.accepted_count, clinic.log_length()) == (2, before + 2)
    refused = refusal(response.results[1].error)
    assert (refused.info.reason, refused.fields) == ("OUT_OF_RANGE", ["events[1].properties.fee"])


BAD_EVENTS = [
    ("INVALID_ID", "event_id", {"event_id": ""}),
    ("INVALID_ID", "customer_id", {"customer_id": "seven"}),
    ("UNKNOWN_EVENT_TYPE", "event_type", {"event_type": "visti"}),
    ("UNKNOWN_PROPERTY", "properties.colour", {"properties": {"colour": "red"}}),
    ("EVENT_TIME_MISSING", "event_time", {"event_time": None}),
    ("EVENT_TIME_INVALID", "event_time", {"event_time": Timestamp(seconds=-1)}),
    ("EVENT_TIME_IN_FUTURE", "event_time", {"event_time": stamp(NOW_US + DAY_US)}),
    ("EVENT_TIME_TOO_OLD", "event_time", {"event_time": stamp(NOW_US - DAY_US)}),
    ("REQUIRED_PROPERTY_MISSING", "properties.fee", {"properties": {"fee": None}}),
    ("WRONG_TYPE", "properties.fee", {"properties": {"fee": "much"}}),
    ("TOO_LONG", "properties.department", {"properties": {"department": "x" * 65}}),
    ("NOT_ALLOWED", "properties.urgency", {"properties": {"urgency": "whenever"}}),
    ("OUT_OF_RANGE", "properties.fee", {"properties": {"fee": -0.01}}),
]


@pytest.mark.parametrize(("reason", "field", "changes"), BAD_EVENTS)
def test_a_malformed_event_names_field_and_reason(
    clinic: Clinic, reason: str, field: str, changes: dict[str, Any]
) -> None:
    """Every way in which an event can be wrong has its reason and its field."""
    result = publish(clinic, event(**changes)).results[0]
    refused = refusal(result.error)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refused.fields == [f"events[0].{field}"]
    assert refused.message.count(field) == 1


def test_a_view_in_place_of_a_service_is_recognized(clinic: Clinic) -> None:
    """Who asks for a view as if it were a feature service learns the form of a feature."""
    with pytest.raises(grpc.RpcError) as caught:
        read(clinic, feature_service="visits", entities=[row(patient_id=7)])
    assert "'visits:visit_count_30d'" in refusal(caught.value).message


def _raw(method: str, data: bytes) -> Call:
    def call(clinic: Clinic) -> Any:
        stub: Any = clinic.channel.unary_unary(method)
        return stub(data, timeout=TIMEOUT_S)

    return call


ANY_FIELD = "any"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
BAD_CALLS: list[tuple[str, grpc.StatusCode, list[str], Call]] = [
    ("FIELD_OUT_OF_RANGE", INVALID, ["placement"], lambda c: decide(c, placement="p" * 5_000)),
    ("FIELD_OUT_OF_RANGE", INVALID, ["candidates[0]"], lambda c: decide(c, candidates=["o" * 5_000])),
    (
        "FIELD_OUT_OF_RANGE",
        INVALID,
        ["context." + "n" * 100],
        lambda c: decide(c, context={"n" * 1_000_000: text("x")}),
    ),
    ("UNKNOWN_CONTEXT_FIELD", INVALID, [ANY_FIELD], lambda c: decide(c, context={"ö" * 4_000: text("x")})),
    ("UNKNOWN_PLACEMENT", NOT_FOUND, [], lambda c: decide(c, placement="🦆" * 4_000)),
    ("FIELD_OUT_OF_RANGE", INVALID, ["features[0]"], lambda c: read(c, features=["f" * 5_000])),
    ("UNKNOWN_PLACEMENT", NOT_FOUND, [], lambda c: decide(c, placement="portal_baner")),
    ("REQUIRED_FIELD_MISSING", INVALID, ["placement"], lambda c: decide(c, placement="")),
    ("REQUIRED_FIELD_MISSING", INVALID, ["customer_id"], lambda c: decide(c, customer_id="")),
    ("FIELD_TYPE_MISMATCH", INVALID, ["customer_id"], lambda c: decide(c, customer_id="seven")),
    ("UNKNOWN_CONTEXT_FIELD", INVALID, ["context.reson"], lambda c: decide(c, context={"reson": text("x")})),
    ("FIELD_TYPE_MISMATCH", INVALID, ["context.urgent"], lambda c: decide(c, context={"urgent": text("x")})),
    (
        "FIELD_TYPE_MISMATCH",
        INVALID,
        ["context.asked_at"],
        lambda c: decide(c, context={"asked_at": whole(3)}),
    ),
    ("UNKNOWN_CANDIDATE", INVALID, ["candidates[1]"], lambda c: decide(c, candidates=["flu_shot", "flu"])),
    ("FIELD_OUT_OF_RANGE", INVALID, ["limit"], lambda c: decide(c, limit=-1)),
    ("FIELD_OUT_OF_RANGE", INVALID, ["candidates"], lambda c: decide(c, candidates=["flu_shot"] * 1_001)),
    (
        "FIELD_OUT_OF_RANGE",
        INVALID,
        ["context.reason"],
        lambda c: decide(c, context={"reason": text("x" * 5_000)}),
    ),
    (
        "UNKNOWN_FEATURE_SERVICE",
        NOT_FOUND,
        [],
        lambda c: read(c, feature_service="portal", entities=[row(patient_id=1)]),
    ),
    (
        "UNKNOWN_FEATURE",
        NOT_FOUND,
        [],
        lambda c: read(c, features=["visit:fees_90d"], entities=[row(patient_id=1)]),
    ),
    (
        "UNKNOWN_FEATURE",
        NOT_FOUND,
        [],
        lambda c: read(c, features=["visits:fees"], entities=[row(patient_id=1)]),
    ),
    ("FIELD_TYPE_MISMATCH", INVALID, ["features[0]"], lambda c: read(c, features=["fees_90d"])),
    ("REQUIRED_FIELD_MISSING", INVALID, ["feature_service"], lambda c: read(c, entities=[row(patient_id=1)])),
    (
        "FIELDS_EXCLUSIVE",
        INVALID,
        ["feature_service"],
        lambda c: read(c, feature_service="portal_v1", features=["visits:fees_90d"]),
    ),
    (
        "UNKNOWN_ENTITY_KEY",
        INVALID,
        ["entities[0].keys.patient"],
        lambda c: read(c, features=["visits:fees_90d"], entities=[row(patient=1)]),
    ),
    (
        "REQUIRED_FIELD_MISSING",
        INVALID,
        ["entities[1].keys.patient_id"],
        lambda c: read(c, features=["visits:fees_90d"], entities=[row(patient_id=1), row()]),
    ),
    (
        "FIELD_TYPE_MISMATCH",
        INVALID,
        ["entities[0].keys.patient_id"],
        lambda c: read(c, features=["visits:fees_90d"], entities=[row(patient_id="seven")]),
    ),
    (
        "FIELD_OUT_OF_RANGE",
        INVALID,
        ["entities"],
        lambda c: read(c, features=["visits:fees_90d"], entities=[row(patient_id=1)] * 1_001),
    ),
    (
        "FEATURE_NOT_READABLE",
        INVALID,
        ["features[0]"],
        lambda c: read(c, features=["waiting:minutes"], entities=[row(patient_id=1)]),
    ),
    ("BATCH_TOO_LARGE", INVALID, ["events"], lambda c: publish(c, *[events_pb2.Event()] * 1_001)),
    (
        "MESSAGE_TOO_LARGE",
        INVALID,
        ["request"],
        lambda c: publish(c, event(properties={"department": "x" * (5 << 20)})),
    ),
    (
        "MESSAGE_MALFORMED",
        INVALID,
        ["request"],
        _raw("/waypost.decision.v1.DecisionService/Decide", b"\xff\xff"),
    ),
]


@pytest.mark.parametrize(
    ("reason", "code", "fields", "call"),
    BAD_CALLS,
    ids=[f"{case[0]}-{i}" for i, case in enumerate(BAD_CALLS)],
)
def test_a_bad_request_names_field_and_reason(
    clinic: Clinic, reason: str, code: grpc.StatusCode, fields: list[str], call: Call
) -> None:
    """Every refusal has its code, one ErrorInfo with its reason, and the field or resource at fault."""
    with pytest.raises(grpc.RpcError) as caught:
        call(clinic)
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (code, reason)
    assert fields in ([ANY_FIELD], refused.fields)
    if code is NOT_FOUND:
        assert refused.details[error_details_pb2.ResourceInfo].resource_name


def test_every_reason_is_reached_by_a_test() -> None:
    """The cases of this module cover every reason that a request may be refused for."""
    elsewhere = {
        "LOG_FULL",
        "BUDGET_SPENT",
        "STORE_UNAVAILABLE",
        "CLOCK_NOT_VIRTUAL",
        "RELOAD_REFUSED",
        "UNKNOWN_SEGMENT",
        "POSITION_TRIMMED",
        "UNKNOWN_UNIT",
        "OUTLIER",
        "RATE_SPIKE",
        "FEATURE_NAMES_COLLIDE",
        "UNKNOWN_PUSH_SOURCE",
        "UNKNOWN_VIEW",
        "VIEW_NOT_SERVING",
        "VIEW_NOT_WRITABLE",
        "ON_DEMAND_FAILED",
        "UNKNOWN_DECISION",
        "BUNDLE_NOT_KEPT",
        "ENGINE_MISMATCH",
    }
    known = set().union(*(kind.reasons for kind in RequestError.__subclasses__()))
    assert {case[0] for case in BAD_CALLS} | {case[0] for case in BAD_EVENTS} | elsewhere == known


def test_computed_views_cannot_be_pushed_to(clinic: Clinic) -> None:
    """Windows and segments are computed from events; a push would be overwritten, or overwrite."""
    pushed = PushRequest(stream_feature_view="visits_push", to="online", features={"patient_id": "7"})
    written = WriteToOnlineStoreRequest(feature_view_name="groups", features={"patient_id": "7"})
    for method, message in (("Push", pushed), ("WriteToOnlineStore", written)):
        call: Any = clinic.channel.unary_unary(
            f"/GrpcFeatureServer/{method}", request_serializer=type(message).SerializeToString
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=TIMEOUT_S)
        found = refusal(caught.value)
        assert (found.code.name, found.info.reason) == ("FAILED_PRECONDITION", "VIEW_NOT_WRITABLE")
        assert "events" in found.message


def test_suggestions_name_the_nearest(clinic: Clinic) -> None:
    """A misspelt name is answered with the one that was probably meant."""
    with pytest.raises(grpc.RpcError) as caught:
        decide(clinic, placement="portal_baner")
    assert "'portal_banner'" in refusal(caught.value).message


def test_reload_swaps_a_new_policy_in(store: EmbeddedValkey, tmp_path: Path) -> None:
    """An edited policy decides after a reload; a broken one is refused with its findings and changes nothing."""
    with run_clinic(tmp_path, store.url) as clinic:
        before = decide(clinic).bundle_version
        policy = clinic.settings.repo / "policy" / "portal.policy"
        policy.write_text(policy.read_text().replace("Call us", "Ring us"))
        after = clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S).bundle_version
        assert before != after == decide(clinic).bundle_version
        policy.write_text(
            policy.read_text().replace("visits.visit_count_30d >= 2 AND", "visits.vist_count_30d >= 2 AND")
        )
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RELOAD_REFUSED")
        assert "policy/portal.policy:" in refused.message
        assert "^" in refused.message
        assert decide(clinic).bundle_version == after


def test_an_emptied_policy_is_refused(store: EmbeddedValkey, tmp_path: Path) -> None:
    """A file caught between truncation and writing does not take every placement away."""
    with run_clinic(tmp_path, store.url) as clinic:
        before = decide(clinic).bundle_version
        (clinic.settings.repo / "policy" / "portal.policy").write_text("")
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        assert "no placements" in refusal(caught.value).message
        assert decide(clinic).bundle_version == before


def test_a_policy_that_cannot_be_kept_is_refused(store: EmbeddedValkey, tmp_path: Path) -> None:
    """Where its bundle cannot be written its decisions could not be replayed: the old one goes on."""
    with run_clinic(tmp_path, store.url) as clinic:
        before = decide(clinic).bundle_version
        policy = clinic.settings.repo / "policy" / "portal.policy"
        policy.write_text(policy.read_text().replace("Call us", "Ring us"))
        kept = clinic.settings.bundles_dir
        kept.rename(kept.with_name("elsewhere"))
        kept.touch()
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RELOAD_REFUSED")
        assert f"{kept}/" in refused.message
        assert "Not a directory" in refused.message
        assert decide(clinic).bundle_version == before


def test_a_reload_that_materializers_do_not_hear_of_says_so(tmp_path: Path) -> None:
    """The policy has taken over here; told again when the store is back, materializers follow."""
    with run_valkey(tmp_path / "valkey") as valkey, run_clinic(tmp_path, valkey.url) as clinic:
        before = decide(clinic).bundle_version
        policy = clinic.settings.repo / "policy" / "portal.policy"
        policy.write_text(policy.read_text().replace("Call us", "Ring us"))
        valkey.kill()
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "materializers go on with the old one" in refused.message
        valkey.start()
        after = clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S).bundle_version
        assert before != after == decide(clinic).bundle_version
        with connect(valkey.url) as client:
            assert client.get(policy_key("clinic")) == after.encode()


def test_a_time_beyond_protobufs_is_refused(clinic: Clinic) -> None:
    """Such a tick would stand in the log for good."""
    request = admin_pb2.AdvanceClockRequest()
    request.now.seconds = 2**63 - 1
    with pytest.raises(grpc.RpcError) as caught:
        clinic.admin.AdvanceClock(request, timeout=TIMEOUT_S)
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_OUT_OF_RANGE")


def test_more_cells_than_the_bound_are_refused(clinic: Clinic) -> None:
    """Features times entities are what an answer costs, so their product is bounded as well."""
    request = features_pb2.GetOnlineFeaturesRequest(features=["visits:fees_90d"] * 1_000)
    for number in range(1_000):
        request.entities.add().keys["patient_id"].int64_value = number
    with pytest.raises(grpc.RpcError) as caught:
        clinic.features.GetOnlineFeatures(request, timeout=TIMEOUT_S)
    assert "send at most 50000" in refusal(caught.value).message


def test_idle_streams_leave_room_for_decisions(clinic: Clinic) -> None:
    """Watches beyond the bound are refused one by one, and Decide goes on."""
    with grpc.insecure_channel(clinic.addresses.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [
            stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S) for _ in range(MAX_STREAMS + 5)
        ]
        refused = 0
        for watch in watches:
            try:
                next(watch)
            except grpc.RpcError as error:
                refused += error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused == 5
        assert decide(clinic).bundle_version
        for watch in watches:
            watch.cancel()


STREAMS = {
    "/waypost.segments.v1.SegmentService/WatchSegments": False,
    "/grpc.health.v1.Health/Watch": False,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": True,
}


@pytest.mark.parametrize("method", STREAMS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff", "MESSAGE_MALFORMED"),
        (b"\x0a\x01\xff", "MESSAGE_MALFORMED"),
        (None, "MESSAGE_TOO_LARGE"),
    ],
    ids=["noise", "no UTF-8", "too large"],
)
def test_a_stream_refuses_what_is_no_request(
    clinic: Clinic, method: str, data: bytes | None, reason: str
) -> None:
    """As a single call does: with a reason, and without an incident."""
    data = bytes(clinic.settings.limits.max_message_bytes + 1) if data is None else data
    channel: Any = clinic.channel
    if STREAMS[method]:
        answers = channel.stream_stream(method)(iter([data]), timeout=TIMEOUT_S)
    else:
        answers = channel.unary_stream(method)(data, timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


def test_streams_of_a_client_that_vanished_make_room(
    store: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that lost its power or network closes nothing; its streams end all the same."""
    monkeypatch.setattr(server.grpc_server, "PING_AFTER_MS", 300)
    monkeypatch.setattr(server.grpc_server, "PING_TIMEOUT_MS", 3_000)  # more than a busy machine takes
    request = health_pb2.HealthCheckRequest()
    with (
        run_clinic(tmp_path, store.url) as clinic,
        freezable(clinic.addresses.grpc) as way,
        grpc.insecure_channel(way.address) as channel,
    ):
        watches = [health_pb2_grpc.HealthStub(channel).Watch(request) for _ in range(MAX_STREAMS)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError, match="close some"):
            next(health_pb2_grpc.HealthStub(clinic.channel).Watch(request, timeout=TIMEOUT_S))
        way.freeze()
        deadline = time.monotonic() + TIMEOUT_S
        while not _watches(clinic):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _watches(clinic: Clinic) -> bool:
    """Whether there is a place for one more stream."""
    watch = health_pb2_grpc.HealthStub(clinic.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S
    )
    try:
        next(watch)
    except grpc.RpcError:
        return False
    watch.cancel()
    return True


def test_a_policy_full_of_mistakes_is_refused_within_what_trailers_hold(
    store: EmbeddedValkey, tmp_path: Path
) -> None:
    """However many findings there are, the status arrives with its details."""
    with run_clinic(tmp_path, store.url) as clinic:
        rules = (
            f'rule r{n} on portal_banner:\n  IF visits.ünknown_{n} > 1\n  THEN tag("t")\n' for n in range(300)
        )
        (clinic.settings.repo / "policy" / "wrong.policy").write_text("\n".join(rules))
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        assert refusal(caught.value).info.reason == "RELOAD_REFUSED"


def test_the_systems_clock_cannot_be_advanced(store: EmbeddedValkey, tmp_path: Path) -> None:
    """Only a virtual clock moves on request."""
    with run_clinic(tmp_path, store.url) as clinic:
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=stamp(NOW_US)), timeout=TIMEOUT_S)
        assert refusal(caught.value).info.reason == "CLOCK_NOT_VIRTUAL"


def test_the_virtual_clock_never_runs_backwards(clinic: Clinic) -> None:
    """An earlier time has no effect; a later one also ticks the log."""
    early = clinic.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=stamp(1)), timeout=TIMEOUT_S)
    assert early.now == stamp(NOW_US)


def test_a_log_ahead_of_the_clock_is_told_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's clock on what a virtual one left: until it is there every event would be late."""
    ahead = time.time_ns() // 1_000 + 86_400_000_000
    with run_valkey(tmp_path / "valkey") as valkey:
        with run_clinic(tmp_path, valkey.url) as clinic:
            decide(clinic)
        assert "clock.behind_log" not in capsys.readouterr().out
        with run_clinic(tmp_path, valkey.url, clock="virtual") as clinic:
            clinic.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=stamp(ahead)), timeout=TIMEOUT_S)
        with run_clinic(tmp_path, valkey.url) as clinic:
            decide(clinic)
        assert "clock.behind_log" in capsys.readouterr().out


def test_status_says_what_serves(clinic: Clinic) -> None:
    """Project, bundle, time, partitions and counts."""
    decide(clinic)
    status = clinic.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    assert (status.project, status.now) == ("clinic", stamp(NOW_US))
    assert status.bundle_version == decide(clinic).bundle_version
    assert (len(status.partitions), status.decision_records_lost) == (clinic.settings.partitions, 0)
    assert status.decision_count > 0


def test_health_reflection_and_metrics_answer(clinic: Clinic) -> None:
    """Every service is SERVING, is listed by reflection, and is measured."""
    for name in ("", *SERVICE_NAMES):
        answer = health_pb2_grpc.HealthStub(clinic.channel).Check(
            health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(clinic.channel)
    (listed,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
    assert set(SERVICE_NAMES) <= {service.name for service in listed.list_services_response.service}
    decide(clinic)
    with urllib.request.urlopen(f"http://{clinic.addresses.http}/metrics", timeout=TIMEOUT_S) as page:
        labels = 'code="OK",le="5e-05",method="Decide",service="waypost.decision.v1.DecisionService"'
        assert f"waypost_rpc_seconds_bucket{{{labels}}}" in page.read().decode()
    with urllib.request.urlopen(f"http://{clinic.addresses.http}/health", timeout=TIMEOUT_S) as page:
        assert page.read() == b"SERVING\n"


def test_a_full_log_refuses_with_a_time_to_retry(store: EmbeddedValkey, tmp_path: Path) -> None:
    """Beyond the bound nothing is accepted, and the client learns when to come back."""
    with run_clinic(tmp_path, store.url, partitions=1, log_max_records=1, clock="virtual") as clinic:
        clinic.admin.AdvanceClock(admin_pb2.AdvanceClockRequest(now=stamp(NOW_US)), timeout=TIMEOUT_S)
        publish(clinic, event("first"))
        with pytest.raises(grpc.RpcError) as caught:
            publish(clinic, event("second"))
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOG_FULL")
        assert refused.details[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0


def test_a_silent_store_leaves_a_degraded_answer_in_time(tmp_path: Path) -> None:
    """With the store frozen, decisions and features still come, marked; publishing fails with the budget spent."""
    deadlines = {"store_ms": 50, "cap_ms": 300}
    with (
        run_valkey(tmp_path / "valkey") as store,
        run_clinic(tmp_path, store.url, deadlines=deadlines) as clinic,
    ):
        decide(clinic)
        store.pause()
        response = decide(clinic)
        assert [item.kind for item in response.degraded] == [decision_pb2.DEGRADATION_KIND_STORE_TIMEOUT]
        assert response.offers
        columns = read(clinic, features=["visits:fees_90d"], entities=[row(patient_id=7)]).columns
        assert list(columns[0].statuses) == [features_pb2.FIELD_STATUS_TIMEOUT]
        with pytest.raises(grpc.RpcError) as caught:
            publish(clinic, event(event_time=stamp(time.time_ns() // 1_000)))
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "BUDGET_SPENT")
        store.resume()
        kinds = {item.kind for item in decide(clinic).degraded}
        assert kinds == {decision_pb2.DEGRADATION_KIND_UNKNOWN_CUSTOMER}


def test_a_dead_store_is_named(tmp_path: Path) -> None:
    """With the store gone, decisions say so, and publishing asks to send the events again."""
    with run_valkey(tmp_path / "valkey") as store, run_clinic(tmp_path, store.url) as clinic:
        store.kill()
        kinds = {item.kind for item in decide(clinic).degraded}
        assert decision_pb2.DEGRADATION_KIND_STORE_UNAVAILABLE in kinds
        with pytest.raises(grpc.RpcError) as caught:
            publish(clinic, event(event_time=stamp(time.time_ns() // 1_000)))
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
        assert refusal(caught.value).info.reason == "STORE_UNAVAILABLE"


def test_a_full_store_is_named(tmp_path: Path) -> None:
    """It answers, and has no memory: decisions read on, and publishing says what is wanting."""
    with run_valkey(tmp_path / "valkey") as store, run_clinic(tmp_path, store.url) as clinic:
        with connect(store.url) as client:
            client.config_set("maxmemory", 1)
        kinds = {item.kind for item in decide(clinic).degraded}
        assert decision_pb2.DEGRADATION_KIND_STORE_UNAVAILABLE not in kinds
        with pytest.raises(grpc.RpcError) as caught:
            publish(clinic, event(event_time=stamp(time.time_ns() // 1_000)))
        refused = refusal(caught.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "memory" in refused.message


def test_stopping_flushes_the_decision_log(store: EmbeddedValkey, tmp_path: Path) -> None:
    """What was decided just before the end is in the log afterwards."""
    with run_clinic(tmp_path, store.url) as clinic:
        decision_id = decide(clinic).decision_id
    assert find(clinic.settings.decisions_dir, decision_id) is not None
