"""Values that are no values, rows without rows and names without end: refused in words, by whichever door."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from decision.schema import JoinKey, ValueType
from online.columns import MOST_ROW_BYTES
from online.keys import EntityKeys, feature_field, timestamp_field
from online.store import connect, feast_connection_string
from online.values import encode_timestamp
from server.config import FeastServing
from server.feast.protos import PushRequest, PushResponse, Value
from server.values import LATEST_US
from tests.support.clinic import refusal
from tests.support.feast_world import (
    FEATURE_SERVER,
    KINDS,
    Door,
    by_name,
    request,
    run_waypost,
)
from tests.support.valkey import start_valkey
from waypost.features.v1 import features_pb2, features_pb2_grpc

BEFORE_YEAR_1, AFTER_YEAR_9999 = -62_135_596_801, 253_402_300_800
CLICKS: dict[str, Any] = {"clicks_1h": 1, "ctr": 0.5, "last_page": "p", "last_at": 0, "tags": []}
LONG = "a" * 4_097


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        os.environ["KINDS_STORE"] = feast_connection_string(found)
        yield found


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repo."""
    return Path(shutil.copytree(KINDS, tmp_path_factory.mktemp("repo") / "kinds"))


@pytest.fixture(scope="module")
def door(url: str, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server."""
    with run_waypost(tmp_path_factory.mktemp("data"), repo, url, FeastServing(refresh_s=0)) as running:
        yield running


def pushed(**cells: Any) -> dict[str, list[Any]]:
    """The columns of one row of clicks."""
    return {name: [value] for name, value in ({"user_id": 1, "event_timestamp": 1} | CLICKS | cells).items()}


def typed(**cells: Value) -> PushRequest:
    """A push of one row of clicks."""
    row = {
        "user_id": Value(int64_val=1),
        "event_timestamp": Value(unix_timestamp_val=1),
        **dict.fromkeys(CLICKS, Value()),
    }
    return PushRequest(stream_feature_view="clicks_push", to="online_and_offline", typed_features=row | cells)


@pytest.mark.parametrize(("name", "sent"), [("bytes", "é"), ("bytes_list", ["é"]), ("bytes_list", "é")])
def test_text_beyond_ascii_is_no_base64(door: Door, repo: Path, name: str, sent: Any) -> None:
    """It is told from text that is not base64 by another error."""
    from server.repo import load_repo

    view = load_repo(repo).catalog.view_by_name["kinds"]
    row = dict.fromkeys([feature.name for feature in view.features], None)
    row |= {"user_id": 1, "event_timestamp": 1, name: sent}
    columns = {column: [value] for column, value in row.items()}
    code, answer = door.post("/write-to-online-store", {"feature_view_name": "kinds", "df": columns})
    assert (code, answer["error"]["details"][0]["reason"]) == (400, "FIELD_TYPE_MISMATCH"), answer
    assert "is not base64" in answer["error"]["message"]


@pytest.mark.parametrize("seconds", [BEFORE_YEAR_1, AFTER_YEAR_9999, 2**62])
@pytest.mark.parametrize("name", ["last_at", "event_timestamp"])
def test_instants_outside_of_the_years_1_to_9999_are_refused(door: Door, name: str, seconds: int) -> None:
    """Stored, they would be in the way of whoever reads them."""
    code, answer = door.post(
        "/push", {"push_source_name": "clicks_push", "df": pushed(**{name: seconds}), "to": "online"}
    )
    assert (code, answer["error"]["details"][0]["reason"]) == (400, "FIELD_TYPE_MISMATCH"), answer
    message = typed(**{name: Value(unix_timestamp_val=seconds)})
    with pytest.raises(grpc.RpcError) as caught:
        door.call(f"{FEATURE_SERVER}Push", message, PushResponse)
    assert refusal(caught.value).info.reason == "FIELD_TYPE_MISMATCH", caught.value


def test_the_last_microsecond_of_the_year_9999_is_an_instant(door: Door) -> None:
    """The bound is where protobuf has it."""
    row = pushed(user_id=77, last_at="9999-12-31T23:59:59.999999Z")
    code, answer = door.post("/push", {"push_source_name": "clicks_push", "df": row, "to": "online"})
    assert code == 200, answer
    answered = door.read(request(["clicks:last_at"], entities={"user_id": [77]}))
    assert by_name(answered)["last_at"][0][0].unix_timestamp_val == LATEST_US // 1_000_000


@pytest.mark.parametrize(
    "sent",
    [Value(uuid_val="none"), Value(decimal_val="none"), Value(json_val="[" * 9_999)],
    ids=["uuid", "decimal", "json"],
)
def test_messages_that_are_not_what_they_say_are_refused(door: Door, sent: Value) -> None:
    """A text that is called a UUID, a decimal or JSON, and is none."""
    with pytest.raises(grpc.RpcError) as caught:
        door.call(f"{FEATURE_SERVER}Push", typed(clicks_1h=sent), PushResponse)
    assert refusal(caught.value).info.reason == "FIELD_TYPE_MISMATCH", caught.value


def test_a_push_of_no_rows_is_taken(door: Door) -> None:
    """Offline too, where it makes no file."""
    for to in ("online", "offline", "online_and_offline"):
        columns: dict[str, list[Any]] = {name: [] for name in pushed()}
        code, answer = door.post("/push", {"push_source_name": "clicks_push", "df": columns, "to": to})
        assert code == 200, answer


@pytest.mark.parametrize(
    ("path", "field"),
    [("/push", "push_source_name"), ("/write-to-online-store", "feature_view_name")],
)
def test_names_without_end_are_refused_before_like_ones_are_looked_for(
    door: Door, path: str, field: str
) -> None:
    """Comparing one of megabytes takes half a second, in which nobody else is served."""
    code, answer = door.post(path, {field: LONG, "df": {}})
    assert (code, answer["error"]["details"][0]["reason"]) == (400, "FIELD_OUT_OF_RANGE"), answer
    assert answer["error"]["message"].startswith(f"{field}: is 4097 long")


def test_an_answer_that_repeats_a_long_value_without_end_is_refused(door: Door) -> None:
    """One entity in all rows, or one feature again and again, is read once and would be written a thousand times."""
    size = 4_000_000
    row = pushed(user_id=5, last_page="x" * size)
    code, answer = door.post("/push", {"push_source_name": "clicks_push", "df": row, "to": "online"})
    assert code == 200, answer
    most = MOST_ROW_BYTES // size
    for count, expected in ((most - 1, 200), (most + 1, 400)):
        code, answer = door.post(
            "/get-online-features", {"features": ["clicks:last_page"], "entities": {"user_id": [5] * count}}
        )
        assert code == expected
    assert answer["error"]["details"][0]["reason"] == "FIELD_OUT_OF_RANGE"
    assert "ask for fewer rows" in answer["error"]["message"]
    own = features_pb2_grpc.FeatureServiceStub(door.channel)
    entity = features_pb2.EntityRow(keys={"user_id": features_pb2.Value(int64_value=5)})
    for features, rows in ((1, most + 1), (most + 1, 1)):
        asked = features_pb2.GetOnlineFeaturesRequest(
            features=["clicks:last_page"] * features, entities=[entity] * rows
        )
        with pytest.raises(grpc.RpcError) as caught:
            own.GetOnlineFeatures(asked, timeout=30)
        assert refusal(caught.value).info.reason == "FIELD_OUT_OF_RANGE", caught.value


def test_what_others_have_stored_and_is_no_instant_is_no_incident(door: Door, url: str) -> None:
    """Event times are moved to the edge of what JSON can say; an on-demand view is said not to be computable."""
    key = EntityKeys("kinds", (JoinKey(name="user_id", value_type=ValueType.INT64),)).encode({"user_id": 9})
    fields = {
        timestamp_field("clicks"): encode_timestamp((BEFORE_YEAR_1 - 1) * 1_000_000),
        feature_field("clicks", "last_at"): Value(unix_timestamp_val=2**62).SerializeToString(),
    }
    with connect(url) as client:
        client.hset(key, mapping=fields)
    code, answer = door.post(
        "/get-online-features", {"features": ["clicks:last_at"], "entities": {"user_id": [9]}}
    )
    assert code == 200, answer
    assert answer["results"][1]["event_timestamps"] == ["0001-01-01T00:00:00Z"]
    with pytest.raises(grpc.RpcError) as caught:
        door.read(request(["adding:rate"], entities={"user_id": [9]}))
    found = refusal(caught.value)
    assert found.info.reason == "ON_DEMAND_FAILED", found.message
    assert "last_at" in found.message


def test_a_push_that_finds_no_room_offline_may_be_sent_again(door: Door, repo: Path) -> None:
    """A full disk is nobody's incident: it is said, and the same rows are taken once there is room."""
    folder = repo / "data" / "clicks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    body = {"push_source_name": "clicks_push", "df": pushed(user_id=6), "to": "offline"}
    code, answer = door.post("/push", body)
    assert (code, answer["error"]["details"][0]["reason"]) == (503, "STORE_UNAVAILABLE"), answer
    assert "logged offline" in answer["error"]["message"]
    folder.unlink()
    assert door.post("/push", body)[0] == 200
    assert len(list(folder.glob("push-*.parquet"))) == 1
