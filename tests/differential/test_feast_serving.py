"""Feast's own servers and Waypost's side by side, over one store: every value type, missing, null and expired."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast.protos.feast.types.Value_pb2 import StringList

from server.feast.protos import (
    PushRequest,
    PushResponse,
    Value,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from tests.support.feast_world import (
    FEATURE_SERVER,
    SERVING,
    Door,
    World,
    by_name,
    request,
    run_world,
    some_kind,
)
from tests.support.valkey import start_valkey

ENTITIES = 1_000
DAY_US = 86_400_000_000
US = 1_000_000
PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = 1, 2, 3, 4


@dataclass(frozen=True)
class Stored:
    """What is in the store about the view of every type.

    Attributes:
        features: The view's features.
        rows: Values as messages, and the event time in microseconds, by entity; the others are missing.
    """

    features: tuple[str, ...]
    rows: dict[int, tuple[dict[str, Any], int]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All servers over one store."""
    with (
        start_valkey(tmp_path_factory.mktemp("valkey")) as url,
        run_world(tmp_path_factory.mktemp("world"), url) as all_,
    ):
        yield all_


@pytest.fixture(scope="module")
def stored(world: World) -> Stored:
    """Four of five entities, written by Feast; one of four of those long ago."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    rng = random.Random(20_260)
    view = world.store.get_feature_view("kinds")
    types = {field.name: field.dtype.to_value_type() for field in view.features}
    now_us = time.time_ns() // 1_000
    rows = {}
    for user in range(ENTITIES):
        if user % 5 == 0:
            continue
        cells = {
            name: python_values_to_proto_values([some_kind(kind.name, rng)], kind)[0]
            for name, kind in types.items()
        }
        age_us = 40 * DAY_US if user % 4 == 1 else rng.randrange(DAY_US // 2)
        rows[user] = cells, now_us - age_us
    batch = [
        (
            EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user)]),
            cells,
            datetime.fromtimestamp(event_us / US, UTC),
            None,
        )
        for user, (cells, event_us) in rows.items()
    ]
    world.store._get_provider().online_write_batch(world.store.config, view, batch, None)
    return Stored(features=tuple(types), rows=rows)


def refs(stored: Stored) -> list[str]:
    """References of the view of every type."""
    return [f"kinds:{name}" for name in stored.features]


USERS = list(range(ENTITIES))


@pytest.fixture(scope="module")
def by_listen(world: World, stored: Stored) -> dict[str, list[tuple[Any, int, int]]]:
    """What Feast's gRPC server answers for all entities."""
    return by_name(world.listen.read(request(refs(stored), entities={"user_id": USERS})))


def test_all_of_feasts_value_types_are_in_the_view(stored: Stored) -> None:
    """The view has a feature of each of the 45 types that a value can have, and each has values and nulls."""
    assert len(stored.features) == 43
    for name in stored.features:
        found = {cells[name].WhichOneof("val") for cells, _ in stored.rows.values()}
        assert len(found) == 2, name


@pytest.mark.parametrize("service", [SERVING, FEATURE_SERVER])
def test_exact_answers_are_those_of_feasts_grpc_server(
    world: World, stored: Stored, by_listen: dict[str, Any], service: str
) -> None:
    """With the switch on, both services say of every cell what `feast listen` says: value, status and event time."""
    ours = by_name(world.exact.read(request(refs(stored), entities={"user_id": USERS}), service))
    assert ours.keys() == by_listen.keys()
    for name, column in by_listen.items():
        assert ours[name] == column, name


@pytest.mark.usefixtures("stored")
def test_exact_answers_are_those_of_feasts_sdk(world: World) -> None:
    """With the switch on, the answer is the SDK's own, feature services and full names included."""
    theirs = world.store.get_online_features(
        features=world.store.get_feature_service("everything"),
        entity_rows=[{"user_id": user} for user in USERS[:200]],
        full_feature_names=True,
    ).proto
    ours = world.exact.read(
        request(service="everything", entities={"user_id": USERS[:200]}, full_feature_names=True), SERVING
    )
    assert by_name(ours) == by_name(theirs)


@pytest.mark.parametrize("service", [SERVING, FEATURE_SERVER])
def test_honest_answers_differ_only_where_the_proto_says_so(
    world: World, stored: Stored, by_listen: dict[str, Any], service: str
) -> None:
    """Values and event times are Feast's; statuses tell missing, null and expired apart."""
    ours = by_name(world.honest.read(request(refs(stored), entities={"user_id": USERS}), service))
    assert list(ours) == ["user_id", *stored.features], "columns are in the order of the request"
    now_us = time.time_ns() // 1_000
    for name in stored.features:
        for user in USERS:
            value, status, event_us = ours[name][user]
            assert (value, event_us) == by_listen[name][user][::2], (name, user)
            assert status == expected_status(stored, name, user, now_us), (name, user)
    assert ours["user_id"] == by_listen["user_id"]


def expected_status(stored: Stored, name: str, user: int, now_us: int) -> int:
    """The status that the proto's comments define."""
    if user not in stored.rows:
        return NOT_FOUND
    cells, event_us = stored.rows[user]
    if cells[name].WhichOneof("val") is None:
        return NULL_VALUE
    return OUTSIDE_MAX_AGE if event_us < now_us - DAY_US else PRESENT


def test_json_is_that_of_feasts_http_server(world: World, stored: Stored) -> None:
    """With the switch on, `POST /get-online-features` answers what `feast serve` answers, by column name."""
    body = {"features": refs(stored), "entities": {"user_id": USERS[:300]}}
    code, ours = world.exact.post("/get-online-features", body)
    feasts_code, theirs = world.listen.post("/get-online-features", body)
    assert (code, feasts_code) == (200, 200)
    assert columns(ours) == columns(theirs)


def columns(answer: Any) -> dict[str, Any]:
    """The columns of an HTTP answer by name."""
    return dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))


def test_writing_with_waypost_is_read_by_feast(world: World) -> None:
    """A row pushed to Waypost comes out of Feast's SDK and server, typed and as text, over gRPC and HTTP."""
    now_s = int(time.time())
    typed = {
        "user_id": Value(int32_val=50_001),
        "clicks_1h": Value(int64_val=7),
        "ctr": Value(double_val=0.25),
        "last_page": Value(string_val="/"),
        "last_at": Value(unix_timestamp_val=now_s - 60),
        "tags": Value(string_list_val=StringList(val=["a", "b"])),
        "event_timestamp": Value(unix_timestamp_val=now_s),
    }
    push(world.honest, typed_features=typed)
    texts = {
        "user_id": "50002",
        "clicks_1h": "7",
        "ctr": "0.25",
        "last_page": "/",
        "last_at": str(now_s - 60),
        "tags": '["a", "b"]',
        "event_timestamp": datetime.fromtimestamp(now_s, UTC).isoformat(),
    }
    push(world.honest, features=texts)
    frame = {name: [value] for name, value in texts.items()} | {
        "user_id": [50_003],
        "clicks_1h": [7],
        "ctr": [0.25],
        "tags": [["a", "b"]],
    }
    assert (
        world.honest.post("/push", {"push_source_name": "clicks_push", "df": frame, "to": "online"})[0] == 200
    )
    frame["user_id"] = [50_004]
    assert world.honest.post("/write-to-online-store", {"feature_view_name": "clicks", "df": frame})[0] == 200
    users = [50_001, 50_002, 50_003, 50_004]
    features = [f"clicks:{name}" for name in ("clicks_1h", "ctr", "last_page", "last_at", "tags")]
    theirs = by_name(
        world.store.get_online_features(
            features=features, entity_rows=[{"user_id": user} for user in users]
        ).proto
    )
    for row in range(len(users)):
        assert theirs["clicks_1h"][row] == (Value(int64_val=7), PRESENT, now_s * US), users[row]
        assert theirs["ctr"][row][0].double_val == 0.25
        assert theirs["last_at"][row][0].unix_timestamp_val == now_s - 60
        assert list(theirs["tags"][row][0].string_list_val.val) == ["a", "b"]
    assert by_name(world.exact.read(request(features, entities={"user_id": users}))) == theirs


def test_every_type_can_be_written_with_waypost(world: World, stored: Stored) -> None:
    """A row of every type, written as messages through Waypost, reads back the same through Feast."""
    user, (cells, event_us) = next(
        (user, row) for user, row in stored.rows.items() if row[1] > (time.time() - 86_400) * US
    )
    typed = {name: cell for name, cell in cells.items() if cell.WhichOneof("val")}
    typed |= {name: Value() for name in cells if name not in typed}
    typed |= {"user_id": Value(int64_val=60_001), "event_timestamp": Value(unix_timestamp_val=event_us // US)}
    write = WriteToOnlineStoreRequest(feature_view_name="kinds", typed_features=typed)
    world.honest.call(f"{FEATURE_SERVER}WriteToOnlineStore", write, WriteToOnlineStoreResponse)
    ours = by_name(world.listen.read(request(refs(stored), entities={"user_id": [60_001, user]})))
    for name in stored.features:
        assert ours[name][0][0] == ours[name][1][0], name


def push(door: Door, **fields: Any) -> None:
    """Push one row of clicks."""
    message = PushRequest(stream_feature_view="clicks_push", to="online", **fields)
    assert door.call(f"{FEATURE_SERVER}Push", message, PushResponse).status


def test_older_rows_lose_whoever_writes(world: World) -> None:
    """Feast's push does not go behind Waypost's, nor Waypost's behind Feast's."""
    base_s = int(time.time()) - 1_000
    for later, event_s, value in (
        (False, base_s, 1),
        (True, base_s - 10, 2),
        (False, base_s + 10, 3),
        (True, base_s + 5, 4),
    ):
        row = {
            "user_id": 50_100,
            "clicks_1h": value,
            "ctr": 0.5,
            "last_page": "p",
            "last_at": None,
            "tags": None,
        }
        moment = datetime.fromtimestamp(event_s, UTC)
        if later:
            world.store.push("clicks_push", pd.DataFrame([row | {"event_timestamp": moment}]))
        else:
            frame = {name: [item] for name, item in (row | {"event_timestamp": moment.isoformat()}).items()}
            world.exact.post("/push", {"push_source_name": "clicks_push", "df": frame})
    ours = by_name(world.honest.read(request(["clicks:clicks_1h"], entities={"user_id": [50_100]})))
    assert ours["clicks_1h"][0] == (Value(int64_val=3), PRESENT, (base_s + 10) * US)


def test_an_instant_that_feast_stored_as_missing_is_null(world: World) -> None:
    """Feast's SDK stores a NaT as the least int64 of seconds, and its server sends that."""
    moment = datetime.fromtimestamp(int(time.time()) - 1_000, UTC)
    rows = pd.DataFrame(
        {
            "user_id": [50_200, 50_201],
            "clicks_1h": [1, 2],
            "ctr": 0.5,
            "last_page": "p",
            "last_at": pd.to_datetime([None, "2026-01-02"], utc=True),
            "tags": [["a"], ["b"]],
            "event_timestamp": moment,
        }
    )
    world.store.write_to_online_store("clicks", rows)
    asked = request(["clicks:last_at"], entities={"user_id": [50_200, 50_201]})
    theirs = by_name(world.listen.read(asked))["last_at"]
    assert theirs[0][:2] == (Value(unix_timestamp_val=-(2**63)), PRESENT)
    assert by_name(world.exact.read(asked))["last_at"] == theirs
    missing, present = by_name(world.honest.read(asked))["last_at"]
    assert missing[:2] == (Value(), NULL_VALUE)
    assert present == theirs[1]


def test_pushed_rows_reach_the_offline_log(world: World) -> None:
    """`to: online_and_offline` leaves a row that Feast's offline store reads."""
    now_s = int(time.time())
    cells = {
        "user_id": "50200", "clicks_1h": "3", "ctr": "0.5", "last_page": "é", "last_at": str(now_s), "tags": "[]",
        "event_timestamp": str(now_s),
    }  # fmt: skip
    message = PushRequest(stream_feature_view="clicks_push", to="online_and_offline", features=cells)
    assert world.honest.call(f"{FEATURE_SERVER}Push", message, PushResponse).status
    parts = list((world.repo / "data" / "clicks").glob("*.parquet"))
    (row,) = [row for part in parts for row in pq.read_table(part).to_pylist() if row["user_id"] == 50_200]
    assert row["clicks_1h"] == 3
    assert row["last_page"] == "é"
    assert row["event_timestamp"] == datetime.fromtimestamp(now_s, UTC)


def test_pushed_rows_are_logged_under_the_columns_of_the_batch_source(world: World) -> None:
    """Event time and time of creation are called as the view's source says, so Feast's join finds the row."""
    now_s = int(time.time())
    cells = {"user_id": "50250", "nights": "4", "left_at": str(now_s)}
    message = PushRequest(stream_feature_view="stays_push", to="online_and_offline", features=cells)
    assert world.honest.call(f"{FEATURE_SERVER}Push", message, PushResponse).status
    asked = pd.DataFrame({"user_id": [50_250], "event_timestamp": [datetime.fromtimestamp(now_s + 1, UTC)]})
    assert world.store.get_historical_features(asked, ["stays:nights"]).to_df()["nights"].tolist() == [4]


def test_the_sdk_works_with_a_remote_online_store(world: World, stored: Stored, tmp_path: Any) -> None:
    """`online_store: {type: remote}` reads and writes through Waypost as it does through `feast serve`."""
    users = [*list(stored.rows)[:20], 0, 5]
    rows = [{"user_id": user} for user in users]
    features = [
        f"kinds:{name}" for name in ("int64", "double", "string", "bool", "string_list", "unix_timestamp")
    ]
    ours, theirs = (
        remote_store(world, door, tmp_path / name)
        for name, door in (("ours", world.exact), ("theirs", world.listen))
    )
    assert (
        ours.get_online_features(features, rows).to_dict()
        == theirs.get_online_features(features, rows).to_dict()
    )
    frame = pd.DataFrame(
        {
            "user_id": [50_300], "clicks_1h": [9], "ctr": [0.125], "last_page": ["q"], "tags": [["x"]],
            "last_at": [datetime.fromtimestamp(1_700_000_000, UTC)],
            "event_timestamp": [datetime.fromtimestamp(int(time.time()), UTC)],
        }
    )  # fmt: skip
    ours.write_to_online_store("clicks", frame)
    wanted = ["clicks:clicks_1h", "clicks:tags", "clicks:last_at"]
    found = world.store.get_online_features(wanted, [{"user_id": 50_300}]).to_dict()
    assert found["clicks_1h"] == [9]
    assert found["tags"] == [["x"]]
    assert found["last_at"] == [datetime.fromtimestamp(1_700_000_000, UTC)]


def test_a_remote_online_store_writes_views_whose_event_time_has_another_name(
    world: World, tmp_path: Any
) -> None:
    """The SDK's remote store calls every event time `event_timestamp`, whatever the view's source calls it."""
    remote = remote_store(world, world.honest, tmp_path / "remote")
    left_at = datetime.fromtimestamp(int(time.time()), UTC)
    frame = pd.DataFrame({"user_id": [50_310], "nights": [3], "left_at": [left_at], "logged_at": [left_at]})
    remote.write_to_online_store("stays", frame)
    found = by_name(world.honest.read(request(["stays:nights"], entities={"user_id": [50_310]})))
    assert found["nights"][0] == (Value(int64_val=3), PRESENT, int(left_at.timestamp()) * US)


def remote_store(world: World, door: Door, folder: Any) -> Any:
    """The SDK, its online store behind an HTTP server."""
    from feast import FeatureStore, RepoConfig

    folder.mkdir()
    config = world.store.config
    return FeatureStore(
        config=RepoConfig(
            project=config.project,
            provider="local",
            registry=str(world.repo / "data" / "registry.db"),
            online_store={"type": "remote", "path": f"http://{door.http}"},
            entity_key_serialization_version=3,
        )
    )


def test_on_demand_views_compute_what_feast_computes(world: World) -> None:
    """Functions of lists, of one row and of a frame, on rows that are there: the SDK's values and types."""
    frame = pd.DataFrame(
        {
            "user_id": [70_001, 70_002],
            "item_id": ["a", "b"],
            "score": [1.5, -2.0],
            "label": ["x", "y"],
            "event_timestamp": [datetime.fromtimestamp(int(time.time()), UTC)] * 2,
        }
    )
    world.store.write_to_online_store("pair", frame)
    keys: dict[str, list[Any]] = {"user_id": [70_001, 70_002], "item_id": ["a", "b"]}
    asked = keys | {"boost": [2.0, 3.0], "word": ["hi", "é"]}
    features = ["boosting:boosted", "boosting:shout", "pair:score"]
    rows = [dict(zip(asked, values, strict=True)) for values in zip(*asked.values(), strict=True)]
    theirs = world.store.get_online_features(features=features, entity_rows=rows).proto
    assert by_name(world.exact.read(request(features, entities=asked))) == by_name(theirs)
    one = {name: column[:1] for name, column in keys.items()}
    theirs = world.store.get_online_features(
        features=["doubling:doubled"], entity_rows=[{"user_id": 70_001, "item_id": "a"}]
    ).proto
    assert by_name(world.exact.read(request(["doubling:doubled"], entities=one))) == by_name(theirs)
    push(world.exact, features=CLICK)
    features = ["adding:clicks_plus", "adding:rate", "clicks:ctr"]
    theirs = world.store.get_online_features(features=features, entity_rows=[{"user_id": 70_001}]).proto
    assert by_name(world.exact.read(request(features, entities={"user_id": [70_001]}))) == by_name(theirs)


CLICK = {
    "user_id": "70001",
    "clicks_1h": "3",
    "ctr": "0.5",
    "last_page": "p",
    "last_at": "0",
    "tags": "[]",
    "event_timestamp": "1700000000",
}


def test_aliases_are_those_of_feast(world: World) -> None:
    """One view under two names and two keys: the SDK's columns and values."""
    frame = pd.DataFrame(
        {
            "place_id": [1, 2],
            "degrees": [20.5, -3.0],
            "seen_at": [datetime.fromtimestamp(1_700_000_000, UTC)] * 2,
            "event_timestamp": [datetime.fromtimestamp(int(time.time()), UTC)] * 2,
        }
    )
    world.store.write_to_online_store("weather", frame)
    rows = [
        {"origin_id": 1, "target_id": 2, "user_id": 5},
        {"origin_id": 2, "target_id": 3, "user_id": 5},
    ]
    theirs = world.store.get_online_features(
        features=world.store.get_feature_service("trip"), entity_rows=rows, full_feature_names=True
    ).proto
    entities = {name: [row[name] for row in rows] for name in rows[0]}
    ours = world.exact.read(request(service="trip", entities=entities, full_feature_names=True))
    assert by_name(ours) == by_name(theirs)
