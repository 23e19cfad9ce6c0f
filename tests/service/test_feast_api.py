"""Feast's API over a real store: what can be asked for and how, what is refused and in which words, and refreshes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from online.keys import EntityKeys, feature_field, timestamp_field
from online.store import connect, feast_connection_string
from online.values import encode_timestamp
from server.config import FeastServing
from server.feast.protos import (
    GetFeastServingInfoRequest,
    GetFeastServingInfoResponse,
    PushRequest,
    PushResponse,
    Value,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from server.repo import load_repo
from tests.support.clinic import refusal
from tests.support.feast_world import (
    FEATURE_SERVER,
    KINDS,
    SERVING,
    Door,
    by_name,
    request,
    run_waypost,
    value_message,
)
from tests.support.valkey import start_valkey

US = 1_000_000
PRESENT, NULL_VALUE, NOT_FOUND, STALE = 1, 2, 3, 4


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
    """A server with a few rows in its store."""
    now_us = time.time_ns() // 1_000
    put(url, repo, "pair", {"user_id": 1, "item_id": "a"}, {"score": 1.5, "label": "one"}, now_us)
    put(url, repo, "pair", {"user_id": 2, "item_id": "b"}, {"score": None, "label": "two"}, now_us)
    put(url, repo, "world", {}, {"mood": "calm", "level": 3}, now_us)
    put(url, repo, "weather", {"place_id": 10}, {"degrees": 21.5, "seen_at": 1_700_000_000}, now_us)
    put(url, repo, "weather", {"place_id": 20}, {"degrees": -3.5, "seen_at": None}, now_us - 2 * 86_400 * US)
    put(url, repo, "clicks", {"user_id": 1}, {"clicks_1h": 4, "ctr": 0.5}, now_us)
    key = {"small_id": -7, "moment_at": 1_700_000_000 * US, "blob_id": b"\x00\xff"}
    put(url, repo, "odd_keys", key, {"label": "odd"}, now_us)
    with run_waypost(tmp_path_factory.mktemp("data"), repo, url, FeastServing(refresh_s=0)) as running:
        yield running


def put(url: str, repo: Path, view: str, keys: dict[str, Any], values: dict[str, Any], event_us: int) -> None:
    """Store a row of a view, as Feast lays it out."""
    types = {"score": "double_val", "degrees": "double_val", "ctr": "double_val", "clicks_1h": "int64_val"}
    types |= {"level": "int64_val", "seen_at": "unix_timestamp_val"}
    catalog = load_repo(repo).catalog
    fields = {timestamp_field(view): encode_timestamp(event_us)}
    for name, value in values.items():
        message = Value() if value is None else Value(**{types.get(name, "string_val"): value})
        fields[feature_field(view, name)] = message.SerializeToString()
    with connect(url) as client:
        client.hset(EntityKeys("kinds", catalog.view_by_name[view].join_keys).encode(keys), mapping=fields)


def plain(response: Any) -> dict[str, list[tuple[Any, int]]]:
    """Plain value and status of every row, by column."""
    return {
        name: [
            (getattr(value, value.WhichOneof("val")) if value.WhichOneof("val") else None, status)
            for value, status, _ in column
        ]
        for name, column in by_name(response).items()
    }


def test_serving_info_says_a_version(door: Door) -> None:
    """Feast's clients ask for it first."""
    info = door.call(
        f"{SERVING}GetFeastServingInfo", GetFeastServingInfoRequest(), GetFeastServingInfoResponse
    )
    assert info.version


def test_columns_come_in_the_order_of_the_request(door: Door) -> None:
    """Entity columns first, then features as they were listed, whatever views they are of."""
    features = ["world:level", "pair:label", "clicks:ctr", "pair:score", "world:mood"]
    answer = door.read(request(features, entities={"user_id": [1, 2], "item_id": ["a", "b"]}), SERVING)
    assert list(answer.metadata.feature_names.val) == [
        "user_id", "item_id", "level", "label", "ctr", "score", "mood",
    ]  # fmt: skip
    assert plain(answer) == {
        "user_id": [(1, PRESENT), (2, PRESENT)],
        "item_id": [("a", PRESENT), ("b", PRESENT)],
        "level": [(3, PRESENT), (3, PRESENT)],
        "label": [("one", PRESENT), ("two", PRESENT)],
        "ctr": [(0.5, PRESENT), (None, NOT_FOUND)],
        "score": [(1.5, PRESENT), (None, NULL_VALUE)],
        "mood": [("calm", PRESENT), ("calm", PRESENT)],
    }


def test_one_round_trip_reads_views_of_several_entities(door: Door) -> None:
    """Full names carry the view; the response is the same from both services."""
    ask = request(
        ["pair:label", "world:mood"], entities={"user_id": [1], "item_id": ["a"]}, full_feature_names=True
    )
    answers = [door.read(ask, service) for service in (SERVING, FEATURE_SERVER)]
    assert answers[0] == answers[1]
    assert list(answers[0].metadata.feature_names.val) == ["user_id", "item_id", "pair__label", "world__mood"]


def test_aliases_read_one_view_under_two_keys(door: Door) -> None:
    """A service may take a view twice, under other names and other join keys."""
    ask = request(
        service="trip",
        entities={"origin_id": [10, 20], "target_id": [20, 99], "user_id": [1, 1]},
        full_feature_names=True,
    )
    assert plain(door.read(ask)) == {
        "origin_id": [(10, PRESENT), (20, PRESENT)],
        "target_id": [(20, PRESENT), (99, PRESENT)],
        "user_id": [(1, PRESENT), (1, PRESENT)],
        "origin__degrees": [(21.5, PRESENT), (-3.5, STALE)],
        "origin__seen_at": [(1_700_000_000, PRESENT), (None, NULL_VALUE)],
        "target__degrees": [(-3.5, STALE), (None, NOT_FOUND)],
        "clicks__clicks_1h": [(4, PRESENT), (4, PRESENT)],
    }


def test_entityless_views_need_no_entities(door: Door) -> None:
    """Without entities there is one row; Feast's dummy key says how many there are."""
    assert plain(door.read(request(["world:mood"]))) == {"mood": [("calm", PRESENT)]}
    answer = door.read(request(["world:mood"], entities={"__dummy_id": ["", ""]}))
    assert plain(answer) == {"mood": [("calm", PRESENT)] * 2}


@pytest.mark.parametrize(
    "sent",
    [Value(int32_val=1), Value(int64_val=1), Value(string_val="1"), Value(double_val=1.0)],
    ids=["int32", "int64", "text", "float"],
)
def test_keys_are_cast_to_the_registrys_type(door: Door, sent: Any) -> None:
    """An int32, decimal text or a whole float finds what lies under the int64, and the answer says so."""
    answer = plain(door.read(request(["clicks:clicks_1h"], entities={"user_id": [sent]})))
    assert answer == {"user_id": [(1, PRESENT)], "clicks_1h": [(4, PRESENT)]}


def test_keys_of_all_types_are_found(door: Door) -> None:
    """INT32, UNIX_TIMESTAMP and BYTES keys, as messages and as JSON."""
    moment = Value(unix_timestamp_val=1_700_000_000)
    ask = request(
        ["odd_keys:label"], entities={"small_id": [-7], "moment_at": [moment], "blob_id": [b"\x00\xff"]}
    )
    assert plain(door.read(ask))["label"] == [("odd", PRESENT)]
    entities = {"small_id": [-7.0], "moment_at": ["2023-11-14T22:13:20Z"], "blob_id": ["AP8="]}
    code, answer = door.post("/get-online-features", {"features": ["odd_keys:label"], "entities": entities})
    assert (code, answer["results"][-1]["values"]) == (200, ["odd"])


def test_an_entitys_name_stands_for_its_join_key(door: Door) -> None:
    """Feast's old way of asking; the column is called by the join key."""
    assert list(plain(door.read(request(["clicks:ctr"], entities={"user": [1]})))) == ["user_id", "ctr"]


def test_on_demand_views_take_stored_and_request_data(door: Door) -> None:
    """Python functions of lists, of rows, and pandas functions; request data from context, or among the entities."""
    keys: dict[str, list[Any]] = {"user_id": [1, 2], "item_id": ["a", "b"]}
    data: dict[str, list[Any]] = {"boost": [2.0, 3.0], "word": ["hi", "ho"]}
    features = ["boosting:boosted", "pair:label", "boosting:shout", "doubling:doubled"]
    expected = {
        "user_id": [(1, PRESENT), (2, PRESENT)],
        "item_id": [("a", PRESENT), ("b", PRESENT)],
        "boosted": [(3.0, PRESENT), (None, NULL_VALUE)],
        "label": [("one", PRESENT), ("two", PRESENT)],
        "shout": [("hi!", PRESENT), ("ho!", PRESENT)],
        "doubled": [(3.0, PRESENT), (None, NULL_VALUE)],
    }
    ask = request(features, entities=keys)
    for name, column in data.items():
        ask.request_context[name].val.extend(value_message(value) for value in column)
    assert plain(door.read(ask)) == expected
    assert list(expected) == list(plain(door.read(ask)))
    assert plain(door.read(request(features, entities=keys | data))) == expected
    frames = plain(door.read(request(["adding:clicks_plus", "adding:rate"], entities={"user_id": [1, 3]})))
    assert frames["clicks_plus"] == [(5, PRESENT), (None, NULL_VALUE)]
    assert frames["rate"] == [(50.0, PRESENT), (None, NULL_VALUE)]


def test_services_mix_stored_and_computed_features(door: Door) -> None:
    """In the service's order, with full names."""
    ask = request(
        service="mixed",
        entities={"user_id": [1], "item_id": ["a"], "boost": [2.0], "word": ["x"]},
        full_feature_names=True,
    )
    assert plain(door.read(ask)) == {
        "user_id": [(1, PRESENT)],
        "item_id": [("a", PRESENT)],
        "boosting__boosted": [(3.0, PRESENT)],
        "boosting__shout": [("x!", PRESENT)],
        "pair__label": [("one", PRESENT)],
        "world__mood": [("calm", PRESENT)],
    }


def test_malformed_bytes_of_an_opaque_type_leave_the_rest_readable(door: Door, url: str, repo: Path) -> None:
    """One broken map is not found; the response around it parses."""
    put(url, repo, "kinds", {"user_id": 77}, {"string": "fine"}, time.time_ns() // 1_000)
    key = EntityKeys("kinds", load_repo(repo).catalog.view_by_name["kinds"].join_keys).encode({"user_id": 77})
    with connect(url) as client:
        client.hset(key, feature_field("kinds", "map"), b"\xa2\x01\x7f")
    answer = plain(door.read(request(["kinds:map", "kinds:string"], entities={"user_id": [77]})))
    assert answer["map"] == [(None, NOT_FOUND)]
    assert answer["string"] == [("fine", PRESENT)]


BAD = [
    ({}, {}, "INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING", "features"),
    ({"features": ["pair"]}, {}, "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "view:feature"),
    ({"features": ["pairs:score"]}, {}, "NOT_FOUND", "UNKNOWN_FEATURE", "did you mean 'pair'"),
    ({"features": ["pair:scores"]}, {}, "NOT_FOUND", "UNKNOWN_FEATURE", "did you mean 'score'"),
    ({"service": "trips"}, {}, "NOT_FOUND", "UNKNOWN_FEATURE_SERVICE", "did you mean 'trip'"),
    ({"features": ["pair@v2:score"]}, {}, "INVALID_ARGUMENT", "FEATURE_NOT_READABLE", "enable_online"),
    ({"features": ["pair:label", "odd_keys:label"]}, {}, "INVALID_ARGUMENT", "FEATURE_NAMES_COLLIDE", "full_feature"),
    ({"features": ["clicks:ctr"]}, {}, "INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING", "entities.user_id"),
    ({"features": ["clicks:ctr"]}, {"user_id": [Value()]}, "INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING", "val[0]"),
    ({"features": ["clicks:ctr"]}, {"user_id": ["x"]}, "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "int64"),
    ({"features": ["clicks:ctr"]}, {"user_id": ["007"]}, "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "'007'"),
    ({"features": ["clicks:ctr"]}, {"user_id": [True]}, "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "int64"),
    (
        {"features": ["odd_keys:label"]},
        {"small_id": [2**31], "moment_at": [0], "blob_id": [b""]},
        "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "int32",
    ),
    (
        {"features": ["pair:score"]}, {"user_id": [1, 2], "item_id": ["a"]},
        "INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE", "one per row",
    ),
    (
        {"features": ["boosting:shout"]}, {"user_id": [1], "item_id": ["a"], "boost": [1.0]},
        "INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING", "request_context.word",
    ),
    (
        {"features": ["breaking:broken"]}, {"user_id": [2], "item_id": ["b"]},
        "FAILED_PRECONDITION", "ON_DEMAND_FAILED", "TypeError",
    ),
    ({"features": ["clicks:ctr"]}, {"user_id": range(1_001)}, "INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE", "1000"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "entities", "code", "reason", "words"), BAD, ids=map(str, range(len(BAD))))
def test_what_cannot_be_answered_is_refused_with_details(
    door: Door, asked: Any, entities: Any, code: str, reason: str, words: str
) -> None:
    """Never UNKNOWN: a code, a reason and what to do; the same over HTTP."""
    with pytest.raises(grpc.RpcError) as caught:
        door.read(request(**asked, entities=entities))
    found = refusal(caught.value)
    assert (found.code.name, found.info.reason) == (code, reason), found.message
    assert words in found.message
    if entities.get("user_id") == [Value()] or "moment_at" in entities:
        return
    body = {"features": asked.get("features", []), "entities": {k: list(v) for k, v in entities.items()}}
    status, answer = door.post(
        "/get-online-features", body | ({"feature_service": asked["service"]} if "service" in asked else {})
    )
    assert status == {"NOT_FOUND": 404}.get(code, 400)
    assert answer["error"]["status"] == code
    assert answer["error"]["details"][0]["reason"] == reason


def test_a_null_key_over_http_is_refused(door: Door) -> None:
    """JSON null is no key."""
    status, answer = door.post(
        "/get-online-features", {"features": ["clicks:ctr"], "entities": {"user_id": [None]}}
    )
    assert (status, answer["error"]["details"][0]["reason"]) == (400, "REQUIRED_FIELD_MISSING")


CLICK = {
    "clicks_1h": "1",
    "ctr": "0.5",
    "last_page": "p",
    "last_at": "0",
    "tags": "[]",
    "event_timestamp": "1",
}


@pytest.mark.parametrize(
    ("fields", "code", "reason", "words"),
    [
        (
            {"stream_feature_view": "click_push", "to": "online"},
            "INVALID_ARGUMENT",
            "UNKNOWN_PUSH_SOURCE",
            "clicks_push",
        ),
        ({"to": "both"}, "INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE", "online_and_offline"),
        ({"features": {"user_id": "1"}}, "INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING", "clicks_1h"),
        ({"features": CLICK | {"user_id": "x"}}, "INVALID_ARGUMENT", "FIELD_TYPE_MISMATCH", "user_id"),
        (
            {"features": CLICK | {"user_id": "1", "ctr": "high"}},
            "INVALID_ARGUMENT",
            "FIELD_TYPE_MISMATCH",
            "'high'",
        ),
        (
            {"features": CLICK | {"user_id": "1", "event_timestamp": "soon"}},
            "INVALID_ARGUMENT",
            "FIELD_TYPE_MISMATCH",
            "ISO 8601",
        ),
        (
            {"features": CLICK, "typed_features": {"user_id": Value()}},
            "INVALID_ARGUMENT",
            "FIELDS_EXCLUSIVE",
            "either",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    door: Door, fields: Any, code: str, reason: str, words: str
) -> None:
    """A push says which column is wrong, and why; nothing of it is written."""
    message = PushRequest(
        **{"stream_feature_view": "clicks_push", "to": "online", "features": CLICK | {"user_id": "1"}}
        | fields
    )
    with pytest.raises(grpc.RpcError) as caught:
        door.call(f"{FEATURE_SERVER}Push", message, PushResponse)
    found = refusal(caught.value)
    assert (found.code.name, found.info.reason) == (code, reason), found.message
    assert words in found.message
    assert plain(door.read(request(["clicks:ctr"], entities={"user_id": [1]})))["ctr"] == [(0.5, PRESENT)]


def test_writes_to_an_unknown_view_are_not_found(door: Door) -> None:
    """With the nearest name."""
    message = WriteToOnlineStoreRequest(feature_view_name="click", features=CLICK)
    with pytest.raises(grpc.RpcError) as caught:
        door.call(f"{FEATURE_SERVER}WriteToOnlineStore", message, WriteToOnlineStoreResponse)
    found = refusal(caught.value)
    assert found.code is grpc.StatusCode.NOT_FOUND
    assert found.details[error_details_pb2.ResourceInfo].resource_type == "feature_view"
    assert "'clicks'" in found.message


def test_http_routes_say_what_there_is(door: Door) -> None:
    """A wrong method, a wrong path and a body that is no JSON are refused in words."""
    assert door.post("/get-online-features", [1])[0] == 400
