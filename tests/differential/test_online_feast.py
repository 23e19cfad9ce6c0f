"""Feast 0.67 itself on the same Valkey: what either writes, the other reads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.keys import EntityKeys, feature_field
from online.read import Columns, OnlineReader, ReadPlan
from online.store import connect, feast_connection_string, open_topology
from online.values import encode_value
from online.write import EntityWrite, EntityWriter, RowWrite, RowWriter, ViewWrite, revision_of
from tests.support.valkey import start_valkey

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own, at import and apply

US = 1_000_000
EVENT_US = 1_700_000_000_123_456
USER = JoinKey(name="user_id", value_type=ValueType.INT64)
ITEM = JoinKey(name="item", value_type=ValueType.STRING)
FEATURES = tuple(
    Feature(name=value_type.name.lower(), value_type=value_type)
    for value_type in ValueType
    if not value_type.opaque
)
CATALOG = Catalog(
    project="shop",
    views=(
        View(name="everything", join_keys=(USER,), features=FEATURES),
        View(name="pair", join_keys=(USER, ITEM), features=FEATURES),
        View(name="single", join_keys=(), features=FEATURES),
    ),
)
REFS = {
    view.name: [FeatureRef(view=view.name, feature=f.name) for f in view.features] for view in CATALOG.views
}
Row = dict[str, Value]


@dataclass(frozen=True)
class Both:
    """The two ways to one store."""

    feast: Any
    url: str


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A Feast repo with one view per kind of entity and one feature per value type, applied."""
    folder = tmp_path_factory.mktemp("repo")
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield Both(feast=_feature_store(folder, url), url=url)


def _feature_store(folder: Path, url: str) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import from_value_type
    from feast.value_type import ValueType as FeastType

    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "redis", "connection_string": feast_connection_string(url)},
        entity_key_serialization_version=3,
    )
    path = folder / "rows.parquet"
    pd.DataFrame({"event_timestamp": pd.to_datetime(["2024-01-01"], utc=True)}).to_parquet(path)
    source = FileSource(name="rows", path=str(path), timestamp_field="event_timestamp")
    entities = {
        key.name: Entity(name=key.name, join_keys=[key.name], value_type=FeastType[key.value_type.name])
        for key in (USER, ITEM)
    }
    views = []
    for view in CATALOG.views:
        fields = [
            Field(name=f.name, dtype=from_value_type(FeastType[f.value_type.name])) for f in view.features
        ]
        fields += [
            Field(name=k.name, dtype=from_value_type(FeastType[k.value_type.name])) for k in view.join_keys
        ]
        owners = [entities[name] for name in view.key_names]
        views.append(FeatureView(name=view.name, entities=owners, schema=fields, source=source))
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *views])
    return store


def some_value(value_type: ValueType, rng: random.Random) -> Value:
    """Draw a value, one in six null; timestamps in whole seconds."""
    if rng.random() < 1 / 6:
        return None
    name = value_type.name
    if name.endswith("_LIST"):
        element = ValueType[name.removesuffix("_LIST")]
        return tuple(_element(element, rng) for _ in range(rng.randrange(1, 4)))
    value: Value = _element(value_type, rng)
    return value


def _element(value_type: ValueType, rng: random.Random) -> Any:
    match value_type:
        case ValueType.BYTES:
            return rng.randbytes(rng.randrange(4))
        case ValueType.STRING:
            return "".join(rng.choice("aé語{}\0 ") for _ in range(rng.randrange(5)))
        case ValueType.INT32:
            return rng.choice([0, 1, -1, 2**31 - 1, -(2**31), rng.randrange(10**6)])
        case ValueType.INT64:
            return rng.choice([0, 1, -1, 2**63 - 1, -(2**63), rng.randrange(10**12)])
        case ValueType.DOUBLE:
            return rng.choice([0.0, -0.0, 1e308, -1e-300, float("inf"), rng.random()])
        case ValueType.FLOAT:
            return rng.choice([0.0, 0.5, -1024.25, float("-inf")])
        case ValueType.BOOL:
            return rng.random() < 0.5
        case _:
            return rng.choice([0, -86_400, 1_700_000_000]) * US


def entity(view: View, number: int) -> Row:
    """Name an entity of a view."""
    every: Row = {"user_id": number - 20, "item": f"item {number % 7} {{é}}"}
    return {name: every[name] for name in view.key_names}


def feast_message(value_type: ValueType, value: Value) -> Any:
    """Build Feast's message of a value, unset for null, seconds for timestamps."""
    from feast.protos.feast.types.Value_pb2 import Value as Message

    message = Message()
    name = f"{value_type.name.lower()}_val"
    if isinstance(value, tuple):
        seconds = value_type == ValueType.UNIX_TIMESTAMP_LIST
        getattr(message, name).val.extend([item // US for item in value] if seconds else value)  # type: ignore[operator]
    elif value is not None:
        setattr(message, name, value // US if value_type == ValueType.UNIX_TIMESTAMP else value)  # type: ignore[operator]
    return message


def feast_reads(both: Both, view: View, rows: list[Row]) -> dict[str, list[tuple[Any, int]]]:
    """Ask Feast's SDK; values as messages with event time in microseconds, by feature."""
    refs = [f"{view.name}:{feature.name}" for feature in view.features]
    asked = [row or {"__dummy_id": ""} for row in rows]
    response = both.feast.get_online_features(features=refs, entity_rows=asked).proto
    names = response.metadata.feature_names.val
    return {
        name: [
            (value, stamp.seconds * US + stamp.nanos // 1_000)
            for value, stamp in zip(column.values, column.event_timestamps, strict=True)
        ]
        for name, column in zip(names, response.results, strict=True)
    }


async def waypost_reads(both: Both, view: View, rows: list[Row]) -> Columns:
    """Ask Waypost's reader."""
    reader = OnlineReader(open_topology(both.url))
    (columns,) = await reader.fetch([(ReadPlan.compile(CATALOG, REFS[view.name]), rows)], now_us=EVENT_US)
    await reader.aclose()
    return columns


def encoded(view: View, values: Row) -> dict[bytes, bytes]:
    """Encode a row's features for the store."""
    types = {feature.name: feature.value_type for feature in view.features}
    return {
        feature_field(view.name, name): encode_value(types[name], value) for name, value in values.items()
    }


def drawn(view: View, seed: int, count: int) -> tuple[list[Row], list[Row]]:
    """Draw entities of a view and their values; the entityless view has one."""
    rng = random.Random(seed)
    rows = [entity(view, number) for number in range(count if view.join_keys else 1)]
    return rows, [{f.name: some_value(f.value_type, rng) for f in view.features} for _ in rows]


@pytest.mark.parametrize("name", ["everything", "pair", "single"])
@pytest.mark.parametrize("writer", ["row", "entity"])
def test_feast_reads_what_waypost_writes(both: Both, name: str, writer: str) -> None:
    """Both writers' values of every type, nulls and event times come out of Feast's own SDK equal."""
    view = CATALOG.view_by_name[name]
    rows, values = drawn(view, seed=len(name) + len(writer), count=60)
    keys = EntityKeys("shop", view.join_keys)
    with connect(both.url) as client:
        client.flushall()
        if writer == "row":
            batch = [
                RowWrite(key=keys.encode(row), view=name, values=encoded(view, cells), event_us=EVENT_US)
                for row, cells in zip(rows, values, strict=True)
            ]
            assert all(RowWriter(client).apply(batch))
        else:
            changes = [
                EntityWrite(
                    key=keys.encode(row),
                    revision=0,
                    views=(ViewWrite(view=name, values=encoded(view, cells), event_us=EVENT_US),),
                    state={b"t": b"x"},
                )
                for row, cells in zip(rows, values, strict=True)
            ]
            assert all(EntityWriter(client).apply(changes))
    found = feast_reads(both, view, rows)
    for feature in view.features:
        expected = [(feast_message(feature.value_type, cells[feature.name]), EVENT_US) for cells in values]
        assert found[feature.name] == expected, feature.name


@pytest.mark.parametrize("name", ["everything", "pair", "single"])
async def test_waypost_reads_what_feast_writes(both: Both, name: str) -> None:
    """Feast's online store writes every type; Waypost reads the same values, and what is missing as missing."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value as Message

    view = CATALOG.view_by_name[name]
    rows, values = drawn(view, seed=len(name), count=60)
    with connect(both.url) as client:
        client.flushall()
    types = {key.name: key.value_type for key in view.join_keys}
    batch = []
    for row, cells in zip(rows, values, strict=True):
        key = EntityKey(
            join_keys=list(row) or ["__dummy_id"],
            entity_values=[feast_message(types[join_key], value) for join_key, value in row.items()]
            or [Message(string_val="")],
        )
        features = {f.name: feast_message(f.value_type, cells[f.name]) for f in view.features}
        batch.append((key, features, datetime.fromtimestamp(EVENT_US // US, UTC), None))
    provider = both.feast._get_provider()
    provider.online_write_batch(both.feast.config, both.feast.get_feature_view(name), batch, None)
    never_written = [entity(view, 999)] if view.join_keys else []
    columns = await waypost_reads(both, view, rows + never_written)
    assert columns.malformed == 0
    for position, feature in enumerate(view.features):
        stored = [cells[feature.name] for cells in values]
        statuses = [Status.NULL if value is None else Status.PRESENT for value in stored]
        assert columns.values(position) == stored + [None] * len(never_written), feature.name
        assert columns.statuses[position].tolist() == statuses + [Status.NOT_FOUND] * len(never_written)
        assert columns.event_us[0, : len(rows)].tolist() == [EVENT_US // US * US] * len(rows)


async def test_waypost_reads_what_feast_push_writes(both: Both) -> None:
    """`write_to_online_store` with a data frame, as users call it, reads back through Waypost."""
    frame = pd.DataFrame(
        {
            "user_id": [501, 502],
            "int64": [7, -7],
            "double": [0.25, 1e9],
            "string": ["tea", "語"],
            "bool": [True, False],
            "string_list": [["a", "b"], ["c"]],
            "event_timestamp": pd.to_datetime([EVENT_US, EVENT_US], unit="us", utc=True),
        }
    )
    names = [name for name in frame.columns if name in {feature.name for feature in FEATURES}]
    for feature in FEATURES:
        if feature.name not in names:
            frame[feature.name] = None
    both.feast.write_to_online_store("everything", frame)
    columns = await waypost_reads(
        both, CATALOG.view_by_name["everything"], [{"user_id": 501}, {"user_id": 502}]
    )
    found = {ref.feature: columns.values(place) for place, ref in enumerate(columns.refs)}
    assert found["int64"] == [7, -7]
    assert found["double"] == [0.25, 1e9]
    assert found["string"] == ["tea", "語"]
    assert found["bool"] == [True, False]
    assert found["string_list"] == [("a", "b"), ("c",)]
    assert columns.event_us[0].tolist() == [EVENT_US, EVENT_US]


def test_row_writes_and_feast_writes_agree_on_the_newest(both: Both) -> None:
    """Feast skips a row older than Waypost's, and Waypost refuses a row older than Feast's."""
    view = CATALOG.view_by_name["everything"]
    key = EntityKeys("shop", view.join_keys).encode({"user_id": 601})
    newer = RowWrite(key=key, view=view.name, values=encoded(view, {"int64": 2}), event_us=EVENT_US)
    with connect(both.url) as client:
        assert RowWriter(client).apply([newer]) == [True]
        _feast_push(both, 601, 1, EVENT_US - 1)
        assert feast_reads(both, view, [{"user_id": 601}])["int64"][0][0].int64_val == 2
        _feast_push(both, 601, 3, EVENT_US + 1)
        assert RowWriter(client).apply([newer]) == [False]
        assert feast_reads(both, view, [{"user_id": 601}])["int64"][0][0].int64_val == 3


@pytest.mark.parametrize("seed", range(3))
def test_three_writers_taking_turns_keep_the_newest(both: Both, seed: int) -> None:
    """Rows, the stream and Feast's SDK in any order: the newest stands after each; of equals, Waypost's last."""
    view = CATALOG.view_by_name["everything"]
    key = EntityKeys("shop", view.join_keys).encode({"user_id": 700 + seed})
    rng = random.Random(seed)
    newest, standing, revision = -1, 0, 0
    with connect(both.url) as client:
        for value in range(1, 60):
            event_us = EVENT_US + rng.randrange(12)
            writer = rng.choice(("row", "stream", "feast"))
            cells = encoded(view, {"int64": value})
            if writer == "row":
                row = RowWrite(key=key, view=view.name, values=cells, event_us=event_us)
                assert RowWriter(client).apply([row]) == [event_us >= newest]
            elif writer == "stream":
                part = ViewWrite(view=view.name, values=cells, event_us=event_us)
                write = EntityWrite(key=key, revision=revision, views=(part,), state={})
                expected = frozenset({view.name}) if event_us >= newest else frozenset()
                assert EntityWriter(client).apply([write]) == [expected]
                revision += 1
            else:
                _feast_push(both, 700 + seed, value, event_us)
            if event_us > newest or (event_us == newest and writer != "feast"):
                newest, standing = event_us, value
            message, stamp_us = feast_reads(both, view, [{"user_id": 700 + seed}])["int64"][0]
            assert (message.int64_val, stamp_us) == (standing, newest), (value, writer)


def test_three_writers_at_once_end_at_the_newest(both: Both) -> None:
    """Threads of both of Waypost's writers end at the newest; where Feast's own race lost it, the next row mends it."""
    newest = RACED, EVENT_US + RACED
    assert (
        _race(both, partial(_rows, 1), partial(_rows, 2), partial(_stream, 3), partial(_stream, 4)) == newest
    )
    with connect(both.url) as client:
        client.delete(RACED_KEY)
    _race(both, partial(_rows, 5), partial(_pushes, both, 6))
    with connect(both.url) as client:
        assert RowWriter(client).apply([_raced_row(RACED)]) == [True]
    assert _race(both) == newest


RACED = 120
"""So many rows race, in event time 1 µs apart; the number is the value too."""
RACED_KEY = EntityKeys("shop", [USER]).encode({"user_id": 801})


def _race(both: Both, *works: Callable[[str], None]) -> tuple[int, int]:
    """Run all works at once; returns value and event time as Feast reads them afterwards."""
    threads = [threading.Thread(target=work, args=(both.url,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = CATALOG.view_by_name["everything"]
    message, stamp_us = feast_reads(both, view, [{"user_id": 801}])["int64"][0]
    return message.int64_val, stamp_us


def _order(seed: int) -> list[int]:
    return random.Random(seed).sample(range(1, RACED + 1), RACED)


def _raced_row(number: int) -> RowWrite:
    view = CATALOG.view_by_name["everything"]
    cell = {feature_field(view.name, "int64"): encode_value(ValueType.INT64, number)}
    return RowWrite(key=RACED_KEY, view=view.name, values=cell, event_us=EVENT_US + number)


def _rows(seed: int, url: str) -> None:
    with connect(url) as client:
        for number in _order(seed):
            RowWriter(client).apply([_raced_row(number)])


def _stream(seed: int, url: str) -> None:
    with connect(url) as client:
        writer = EntityWriter(client)
        for number in _order(seed):
            written = None
            while written is None:
                revision = revision_of(writer.load([RACED_KEY])[0])
                write = EntityWrite(key=RACED_KEY, revision=revision, views=(_raced_row(number),), state={})
                written = writer.apply([write])[0]


def _pushes(both: Both, seed: int, _url: str) -> None:
    for number in _order(seed):
        _feast_push(both, 801, number, EVENT_US + number)


def _feast_push(both: Both, user_id: int, value: int, event_us: int) -> None:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    key = EntityKey(join_keys=["user_id"], entity_values=[feast_message(ValueType.INT64, user_id)])
    row = (
        key,
        {"int64": feast_message(ValueType.INT64, value)},
        datetime.fromtimestamp(event_us / US, UTC),
        None,
    )
    provider = both.feast._get_provider()
    provider.online_write_batch(both.feast.config, both.feast.get_feature_view("everything"), [row], None)
