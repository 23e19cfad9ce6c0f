"""Whatever a Feast client sends, it gets an answer or a refusal in words; never UNKNOWN, never an incident."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from online.store import feast_connection_string
from server.config import FeastServing
from server.feast.protos import (
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
    PushRequest,
    PushResponse,
    Value,
)
from tests.support.feast_world import FEATURE_SERVER, KINDS, SERVING, Door, run_waypost
from tests.support.valkey import start_valkey

ANSWERED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
NAMES = [
    "pair:score",
    "pair:label",
    "world:mood",
    "kinds:map",
    "kinds:int64",
    "boosting:shout",
    "doubling:doubled",
]
NAMES += ["adding:rate", "odd_keys:label", "trip", "mixed", "kinds@v1:int64", "nothing:here", "pair", ":", ""]
COLUMNS = [
    "user_id",
    "item_id",
    "user",
    "boost",
    "word",
    "small_id",
    "moment_at",
    "blob_id",
    "__dummy_id",
    "origin_id",
]

cells = st.one_of(
    st.just(Value()),
    st.just(Value.FromString(b"\x98\x01\x00")),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: Value(int64_val=number)),
    st.integers(-(2**31), 2**31 - 1).map(lambda number: Value(int32_val=number)),
    st.floats().map(lambda number: Value(double_val=number)),
    st.text(max_size=20).map(lambda text: Value(string_val=text)),
    st.binary(max_size=20).map(lambda data: Value(bytes_val=data)),
    st.booleans().map(lambda flag: Value(bool_val=flag)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: Value(unix_timestamp_val=number)),
    st.binary(max_size=30).map(lambda data: _parsed(Value, data)),
)
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=20))
columns = st.dictionaries(
    st.one_of(st.sampled_from(COLUMNS), st.text(max_size=10)), st.lists(cells, max_size=4), max_size=4
)


def _parsed(kind: Any, data: bytes) -> Any:
    """A message out of random bytes; empty where they are none."""
    message = kind()
    try:
        message.ParseFromString(data)
    except Exception:  # noqa: BLE001 - whatever protobuf says of rubbish
        message.Clear()
    return message


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A server over an empty store."""
    repo = Path(shutil.copytree(KINDS, tmp_path_factory.mktemp("repo") / "kinds"))
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        os.environ["KINDS_STORE"] = feast_connection_string(url)
        with run_waypost(tmp_path_factory.mktemp("data"), repo, url, FeastServing(refresh_s=0)) as running:
            yield running


def outcome(door: Door, method: str, message: Any, response: Any) -> str:
    """The name of the status."""
    try:
        door.call(method, message, response)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


SETTINGS = settings(
    max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(st.lists(names, max_size=4), st.booleans(), columns, columns, st.booleans())
def test_any_question_is_answered_or_refused(
    door: Door, asked: list[str], service: bool, entities: Any, context: Any, full: bool
) -> None:
    """Random features, services and columns of random values."""
    message = GetOnlineFeaturesRequest(full_feature_names=full)
    if service and asked:
        message.feature_service = asked[0]
    else:
        message.features.val.extend(asked)
    for target, given_columns in ((message.entities, entities), (message.request_context, context)):
        for name, column in given_columns.items():
            target[name].val.extend(column)
    assert outcome(door, f"{SERVING}GetOnlineFeatures", message, GetOnlineFeaturesResponse) in {
        "OK",
        *ANSWERED,
    }


PUSHED = ["user_id", "clicks_1h", "ctr", "last_page", "last_at", "tags", "event_timestamp"]
BEFORE_YEAR_1 = {name: Value(unix_timestamp_val=-62135596801) for name in PUSHED} | {
    "user_id": Value(int64_val=0)
}


@SETTINGS
@given(
    st.sampled_from(["clicks_push", "", "other"]),
    st.sampled_from(["online", "offline", "online_and_offline", ""]),
    st.one_of(
        st.fixed_dictionaries(dict.fromkeys(PUSHED, cells)).map(lambda row: {"typed_features": row}),
        st.fixed_dictionaries(dict.fromkeys(PUSHED, st.text(max_size=12))).map(lambda row: {"features": row}),
    ),
)
@example("clicks_push", "online", {"typed_features": BEFORE_YEAR_1})
def test_any_push_is_taken_or_refused(door: Door, source: str, target: str, row: Any) -> None:
    """Random rows, typed and as text."""
    message = PushRequest(stream_feature_view=source, to=target, **row)
    assert outcome(door, f"{FEATURE_SERVER}Push", message, PushResponse) in {"OK", *ANSWERED}
