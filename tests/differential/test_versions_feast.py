"""Versions of feature views, beside Feast's SDK over one store: written with either, read with the other."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from typer.testing import CliRunner

from online.keys import EntityKeys
from online.store import connect, feast_connection_string
from online.write import RowWriter
from server.bundles import repo_policy
from server.checking import check_repo
from server.cli import app
from server.config import FeastServing, FeastSource
from server.feast.protos import (
    PushRequest,
    PushResponse,
    Value,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from server.repo import load_repo
from server.stream_plans import current_repo, stream_plan
from streaming.batch_views import load_batch_view
from tests.support.clinic import refusal
from tests.support.feast_world import FEATURE_SERVER, Door, apply, by_name, request, run_waypost
from tests.support.stores import wait_until
from tests.support.valkey import start_valkey
from training.dataset import Dataset, features_at, find_service
from training.verify import verify_against_feast
from waypost.decision.v1 import decision_pb2, decision_pb2_grpc
from waypost.features.v1 import features_pb2, features_pb2_grpc

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own, at import and apply

BOTH = [FeastSource.REPO, FeastSource.REGISTRY]
AT = datetime(2024, 5, 1, tzinfo=UTC)
NUMBERED_ANEW = {"stats__clicks": 0, "stats@v1__clicks": 11}
STORE = """
project: aged
provider: local
registry: {{path: data/registry.db, enable_online_feature_view_versioning: true, cache_ttl_seconds: 600}}
online_store: {{type: redis, connection_string: "{store}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
FEATURES = """
from datetime import timedelta
from feast import Aggregation, Entity, FeatureService, FeatureView, Field, FileSource, PushSource, StreamFeatureView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float64, Int64, String
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def parts(name):
    return FileSource(name=f"{name}_log", path=f"data/{name}/*.parquet", timestamp_field="event_timestamp")


stats = FeatureView(
    name="stats", entities=[user], ttl=timedelta(days=40_000), source=parts("stats"),
    schema=[Field(name="user_id", dtype=String), Field(name="clicks", dtype=Int64)],
)
pushed = FeatureView(
    name="pushed", entities=[user], ttl=timedelta(0), source=PushSource(name="pushes", batch_source=parts("pushed")),
    schema=[Field(name="user_id", dtype=String), Field(name="level", dtype=Int64)],
)
seen = StreamFeatureView(
    name="seen", entities=[user], ttl=timedelta(0), timestamp_field="event_timestamp",
    source=PushSource(name="events", batch_source=parts("seen")),
    schema=[Field(name="user_id", dtype=String), Field(name="amount_count_all", dtype=Int64)],
    aggregations=[Aggregation(column="amount", function="count", name="amount_count_all")],
)
groups = FeatureView(
    name="groups", entities=[user], ttl=timedelta(0), source=parts("groups"), tags={"waypost.role": "segments"},
    schema=[Field(name="user_id", dtype=String), Field(name="high", dtype=Bool)],
)


@on_demand_feature_view(sources=[stats], schema=[Field(name="doubled", dtype=Int64)], mode="python")
def doubling(inputs):
    return {"doubled": [None if value is None else value * 2 for value in inputs["clicks"]]}


newest = FeatureService(name="newest", features=[stats, pushed])
"""
PINNED = ["stats@v0", "pushed@V1:rank"]
CLICKS = 'Field(name="clicks", dtype=Int64)'
LEVEL = 'Field(name="level", dtype=Int64)'
EVENTS = "{customer: user_id, types: {seen: {properties: {amount: {type: double}}}}}"
POLICY = """
segment high: pushed.level >= 100

placement home:
  limit 1
  fallback plain

offer plain:
  content {"title": "Plain"}

offer special:
  content {"title": "Special"}

rule of_level on home:
  IF pushed.level >= 100 THEN display_recommendation("special")
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        yield found


@pytest.fixture
def repo(url: str, tmp_path: Path) -> Path:
    """A repo whose views nobody has changed yet, and a store without values."""
    with connect(url) as client:
        client.flushall()
    root = tmp_path / "repo"
    (root / "policy").mkdir(parents=True)
    (root / "feature_store.yaml").write_text(STORE.format(store=feast_connection_string(url)))
    (root / "events.yaml").write_text(EVENTS)
    (root / "policy" / "home.policy").write_text(POLICY.replace("segment high", "segment high"))
    (root / "features.py").write_text(FEATURES)
    return root


def change(repo: Path, old: str, new: str) -> None:
    """Change the repo's definitions."""
    file = repo / "features.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def age(repo: Path) -> Any:
    """Make second versions of the views that are not computed, and a service that pins some; Feast's store."""
    from feast import FeatureService

    change(repo, CLICKS, f'{CLICKS}, Field(name="buys", dtype=Int64)')
    change(repo, LEVEL, f'{LEVEL}, Field(name="rank", dtype=Int64)')
    store = apply(repo)
    store.apply(FeatureService(name="pinned", features=PINNED))
    with (repo / "features.py").open("a") as file:
        file.write(f'pinned = FeatureService(name="pinned", features={PINNED})\n')
    return store


def frame(minute: int = 0, **columns: int) -> pd.DataFrame:
    """A row of user u."""
    values = {name: [value] for name, value in columns.items()}
    return pd.DataFrame({"user_id": ["u"], **values, "event_timestamp": [AT + timedelta(minutes=minute)]})


@contextmanager
def served(repo: Path, url: str, source: FeastSource, refresh_s: float = 0) -> Iterator[Door]:
    """Waypost over the repo."""
    with run_waypost(repo.parent, repo, url, FeastServing(refresh_s=refresh_s, definitions=source)) as door:
        yield door


def ours(door: Door, *features: str, service: str = "", full: bool = True) -> dict[str, Any]:
    """What Waypost reads of user u."""
    options = {"full_feature_names": full, "include_feature_view_version_metadata": True}
    return by_name(door.read(request(features, service, {"user_id": ["u"]}, **options)))


def theirs(store: Any, *features: str, service: str = "", full: bool = True) -> dict[str, Any]:
    """What Feast's SDK reads of user u."""
    store.refresh_registry()
    asked = store.get_feature_service(service) if service else list(features)
    return by_name(
        store.get_online_features(
            features=asked, entity_rows=[{"user_id": "u"}], full_feature_names=full,
            include_feature_view_version_metadata=True,
        ).proto
    )  # fmt: skip


def numbers(found: dict[str, Any]) -> dict[str, int]:
    """The values that are there."""
    return {name: column[0][0].int64_val for name, column in found.items() if name != "user_id"}


def native(door: Door, *features: str, service: str = "") -> dict[str, int]:
    """What Waypost's own API reads."""
    asked = features_pb2.GetOnlineFeaturesRequest(features=features, feature_service=service)
    asked.entities.add().keys["user_id"].string_value = "u"
    answer = features_pb2_grpc.FeatureServiceStub(door.channel).GetOnlineFeatures(asked, timeout=30)
    return {column.name: column.values[0].int64_value for column in answer.columns}


def decided(door: Door) -> str:
    """The offer that is shown to user u."""
    asked = decision_pb2.DecideRequest(placement="home", customer_id="u")
    return str(decision_pb2_grpc.DecisionServiceStub(door.channel).Decide(asked, timeout=30).offers[0].offer)


@pytest.mark.parametrize("source", BOTH)
def test_waypost_reads_what_feast_writes(url: str, repo: Path, source: FeastSource) -> None:
    """Of each version, through services that pin one, in on-demand views and in decisions."""
    store = apply(repo)
    store.write_to_online_store("stats", frame(clicks=1))
    store.push("pushes", frame(level=100))
    store = age(repo)
    refs = [
        "stats:clicks",
        "stats:buys",
        "stats@v0:clicks",
        "stats@v1:clicks",
        "pushed@v0:level",
        "doubling:doubled",
    ]
    with served(repo, url, source) as door:
        assert {name: value for name, value in numbers(ours(door, *refs)).items() if value} == {
            "stats@v0__clicks": 1, "pushed@v0__level": 100,
        }  # fmt: skip
        assert decided(door) == "plain"
        store.write_to_online_store("stats", frame(clicks=11, buys=12))
        store.push("pushes", frame(level=200, rank=21))
        assert numbers(ours(door, *refs)) == {
            "stats__clicks": 11, "stats__buys": 12, "stats@v0__clicks": 1, "stats@v1__clicks": 11,
            "pushed@v0__level": 100, "doubling__doubled": 22,
        }  # fmt: skip
        stored = refs[:-1]
        assert ours(door, *stored) == theirs(store, *stored)
        assert ours(door, service="pinned") == theirs(store, service="pinned")
        assert native(door, service="pinned") == {"stats@v0:clicks": 1, "pushed@v1:rank": 21}
        now = {"stats__clicks": 11, "stats__buys": 12, "pushed__level": 200, "pushed__rank": 21}
        assert numbers(ours(door, service="newest")) == now
        # Feast 0.67 forgets the number of a view that it takes through a service or an on-demand view.
        was = {"stats__clicks": 1, "stats__buys": 0, "pushed__level": 100, "pushed__rank": 0}
        assert numbers(theirs(store, service="newest")) == was
        assert numbers(theirs(store, "doubling:doubled", full=False)) == {"doubled": 2}
        assert native(door, "stats:clicks", "stats@v0:clicks") == {"stats:clicks": 11, "stats@v0:clicks": 1}
        assert decided(door) == "special"


@pytest.mark.parametrize("source", BOTH)
def test_feast_reads_what_waypost_writes(url: str, repo: Path, source: FeastSource) -> None:
    """`Push`, `WriteToOnlineStore` and both HTTP routes write the version that is current and leave the first alone."""
    store = apply(repo)
    refs = ("stats:clicks", "pushed:level")
    typed = {
        "user_id": Value(string_val="u"),
        "event_timestamp": Value(unix_timestamp_val=int(AT.timestamp())),
    }
    with served(repo, url, source) as door:
        pushing = PushRequest(stream_feature_view="pushes", to="online", typed_features=typed)
        pushing.typed_features["level"].int64_val = 1
        door.call(f"{FEATURE_SERVER}Push", pushing, PushResponse)
        writing = WriteToOnlineStoreRequest(feature_view_name="stats", typed_features=typed)
        writing.typed_features["clicks"].int64_val = 2
        door.call(f"{FEATURE_SERVER}WriteToOnlineStore", writing, WriteToOnlineStoreResponse)
        assert numbers(theirs(store, *refs)) == {"stats__clicks": 2, "pushed__level": 1}
        assert ours(door, *refs) == theirs(store, *refs)
    store = age(repo)
    every = (*refs, "stats@v0:clicks", "pushed@v0:level", "pushed@v1:rank")
    with served(repo, url, source) as door:
        pushing.typed_features["level"].int64_val = 11
        pushing.typed_features["rank"].int64_val = 12
        door.call(f"{FEATURE_SERVER}Push", pushing, PushResponse)
        writing.typed_features["clicks"].int64_val = 13
        writing.typed_features["buys"].int64_val = 14
        door.call(f"{FEATURE_SERVER}WriteToOnlineStore", writing, WriteToOnlineStoreResponse)
        expected = {"stats__clicks": 13, "pushed__level": 11, "pushed@v1__rank": 12}
        expected |= {"stats@v0__clicks": 2, "pushed@v0__level": 1}
        assert numbers(theirs(store, *every)) == expected
        assert ours(door, *every) == theirs(store, *every)
        later = (AT + timedelta(minutes=1)).isoformat()
        row = {"user_id": ["u"], "event_timestamp": [later]}
        pushed = {"push_source_name": "pushes", "to": "online", "df": {**row, "level": [21], "rank": [22]}}
        assert door.post("/push", pushed)[0] == 200
        written = {"feature_view_name": "stats", "df": {**row, "clicks": [23], "buys": [24]}}
        assert door.post("/write-to-online-store", written)[0] == 200
        expected |= {"stats__clicks": 23, "pushed__level": 21, "pushed@v1__rank": 22}
        assert numbers(theirs(store, *every)) == expected
        assert ours(door, *every) == theirs(store, *every)


def test_batch_views_bring_online_what_feast_materializes(url: str, repo: Path) -> None:
    """Byte by byte, whichever version is current."""
    folder = repo / "data" / "stats"
    folder.mkdir(parents=True)
    rows = frame(clicks=7, buys=8)
    pq.write_table(pa.Table.from_pandas(rows), folder / "rows.parquet")
    store = apply(repo)
    for current in ("stats", "stats_v1"):
        catalog = load_repo(repo).catalog
        view = catalog.view_by_name["stats"]
        key = EntityKeys("aged", view.join_keys).encode({"user_id": "u"})
        with connect(url) as client:
            client.delete(key)
            store.materialize(AT - timedelta(days=1), AT + timedelta(days=1), feature_views=["stats"])
            feasts = client.hgetall(key)
            client.delete(key)
            until_us = int((AT + timedelta(days=1)).timestamp()) * 1_000_000
            assert load_batch_view(RowWriter(client), catalog, view, until_us, lambda *_: None) == 1
            assert client.hgetall(key) == feasts
        assert f"_ts:{current}".encode() in feasts
        store = age(repo) if current == "stats" else store


@pytest.mark.parametrize("source", BOTH)
def test_reads_move_to_a_new_version_while_serving(url: str, repo: Path, source: FeastSource) -> None:
    """A request reads the first version or the second, never some of each; decisions and Waypost's API move along."""
    store = apply(repo)
    store.write_to_online_store("stats", frame(clicks=1))
    store.push("pushes", frame(level=100))
    with served(repo, url, source, refresh_s=0.1) as door:
        assert decided(door) == "special"
        found, ended = [], threading.Event()

        def reading() -> None:
            while not ended.is_set():
                found.append(numbers(ours(door, "stats:clicks", "pushed:level")))

        reader = threading.Thread(target=reading)
        reader.start()
        try:
            change(repo, CLICKS, f'{CLICKS}, Field(name="buys", dtype=Int64)')
            change(repo, LEVEL, f'{LEVEL}, Field(name="rank", dtype=Int64)')
            with applied_at_once(repo) as aside:
                aside.write_to_online_store("stats", frame(clicks=11, buys=12))
                aside.push("pushes", frame(level=20, rank=21))
            wait_until(
                lambda: not reader.is_alive() or bool(found and found[-1]["stats__clicks"] == 11),
                "the new version is read",
            )
            assert reader.is_alive()
        finally:
            ended.set()
            reader.join()
        both = ({"stats__clicks": 1, "pushed__level": 100}, {"stats__clicks": 11, "pushed__level": 20})
        assert all(pair in both for pair in found)
        assert ours(door, "stats:buys") == theirs(store, "stats:buys")
        assert decided(door) == "plain"
        assert native(door, "pushed:level") == {"pushed:level": 20}


@pytest.mark.parametrize(("source", "left"), zip(BOTH, ["nothing", "no file"], strict=True))
def test_a_registry_that_is_lost_takes_no_versions_along(
    url: str, repo: Path, source: FeastSource, left: str
) -> None:
    """Feast writes the file in place, so that it is empty for a moment: first versions are not read meanwhile."""
    apply(repo)
    change(repo, CLICKS, f'{CLICKS}, Field(name="buys", dtype=Int64)')
    apply(repo).write_to_online_store("stats", frame(clicks=11, buys=12))
    registry = repo / "data" / "registry.db"
    with served(repo, url, source, refresh_s=0.1) as door, capture_logs() as said:
        assert numbers(ours(door, "stats:clicks")) == {"stats__clicks": 11}
        kept = registry.read_bytes()
        if left == "nothing":
            registry.write_bytes(b"")
        else:
            registry.unlink()
        wait_until(lambda: _told(said, "definitions.refused"), "the lost registry is refused")
        assert not _told(said, "definitions.swapped")
        assert numbers(ours(door, "stats:clicks")) == {"stats__clicks": 11}
        registry.write_bytes(kept)
        wait_until(lambda: _told(said, "definitions.swapped"), "the registry that is back serves")
        assert numbers(ours(door, "stats:clicks")) == {"stats__clicks": 11}


def _told(said: list[EventDict], event: str) -> bool:
    return any(line["event"] == event for line in said)


@contextmanager
def applied_at_once(repo: Path) -> Iterator[Any]:
    """Apply beside the registry in use, write what the new versions hold, and then put the registry in its place."""
    registry, settings = repo / "data" / "registry.db", repo / "feature_store.yaml"
    aside = repo.parent / "aside"
    (aside / "data").mkdir(parents=True)
    for file in (registry, settings, repo / "features.py"):
        copy = aside / file.relative_to(repo)
        copy.write_bytes(file.read_bytes())
    yield apply(aside)
    (aside / "data" / "registry.db").replace(registry)
    shutil.rmtree(aside)


def test_versions_that_are_not_there_are_refused(url: str, repo: Path) -> None:
    """With the view and the version in the message; so is a version where versions are off."""
    apply(repo)
    with served(repo, url, FeastSource.REPO) as door:
        for ref in ("stats@v7:clicks", "nothing@v0:clicks", "stats@v0:buys"):
            with pytest.raises(grpc.RpcError) as caught:
                ours(door, ref)
            assert refusal(caught.value).info.reason == "UNKNOWN_FEATURE"
            assert ref.split(":")[0] in refusal(caught.value).message
    settings = repo / "feature_store.yaml"
    settings.write_text(settings.read_text().replace("versioning: true", "versioning: false"))
    with served(repo, url, FeastSource.REPO) as door:
        with pytest.raises(grpc.RpcError) as caught:
            ours(door, "stats@v0:clicks")
        assert refusal(caught.value).info.reason == "FEATURE_NOT_READABLE"
        assert "versions are off" in str(refusal(caught.value))


def test_a_view_that_its_file_pins_is_the_one_of_the_registry(url: str, repo: Path) -> None:
    """`version="v0"` brings the first definition back, though the file describes the second."""
    store = apply(repo)
    store.write_to_online_store("stats", frame(clicks=1))
    change(repo, CLICKS, f'{CLICKS}, Field(name="buys", dtype=Int64)')
    store = apply(repo)
    store.write_to_online_store("stats", frame(clicks=11, buys=12))
    change(repo, '\n    name="stats", ', '\n    name="stats", version="v0", ')
    change(repo, "features=[stats, pushed]", "features=[pushed]")
    store = apply(repo)
    with served(repo, url, FeastSource.REPO) as door:
        assert numbers(ours(door, "stats:clicks")) == {"stats__clicks": 1}
        assert ours(door, "stats:clicks") == theirs(store, "stats:clicks")
        with pytest.raises(grpc.RpcError):
            ours(door, "stats:buys")


def test_what_feast_numbers_anew_is_read_as_feast_does(url: str, repo: Path) -> None:
    """Applying another description alone takes Feast 0.67 back to the first version's name, and Waypost with it."""
    apply(repo)
    store = age(repo)
    store.write_to_online_store("stats", frame(clicks=11, buys=12))
    change(repo, '\n    name="stats", ', '\n    name="stats", description="Other words", ')
    store = apply(repo)
    with served(repo, url, FeastSource.REPO) as door:
        refs = ("stats:clicks", "stats@v1:clicks")
        assert numbers(ours(door, *refs)) == numbers(theirs(store, *refs)) == NUMBERED_ANEW


def test_views_that_waypost_computes_keep_their_names(url: str, repo: Path) -> None:
    """Whatever their version in the registry; older ones are refused, and `waypost check` says what the SDK misses."""
    apply(repo)
    assert "Waypost computes groups, seen" in check_repo(repo).warnings[0].message
    change(
        repo,
        'Field(name="amount_count_all", dtype=Int64)',
        'Field(name="amount_count_all", dtype=Int64), Field(name="amount_sum_all", dtype=Float64)',
    )
    change(
        repo,
        'name="amount_count_all")]',
        'name="amount_count_all"), Aggregation(column="amount", function="sum", name="amount_sum_all")]',
    )
    store = apply(repo)
    assert store.get_stream_feature_view("seen").current_version_number == 1
    loaded = load_repo(repo)
    assert loaded.catalog.view_by_name["seen"].stored_name == "seen"
    (warning,) = check_repo(repo).warnings
    assert "(now seen_v1)" in warning.message
    assert warning.file == "feature_store.yaml"
    for source in BOTH:
        with served(repo, url, source) as door:
            assert ours(door, "seen:amount_count_all").keys() == {"user_id", "seen__amount_count_all"}
            assert ours(door, "seen@v1:amount_count_all").keys() == {"user_id", "seen@v1__amount_count_all"}
            with pytest.raises(grpc.RpcError) as caught:
                ours(door, "seen@v0:amount_count_all")
            assert refusal(caught.value).info.reason == "VIEW_NOT_SERVING"


def test_segments_read_the_version_that_is_current(repo: Path) -> None:
    """Also after it has changed under a materializer that runs."""
    apply(repo)
    loaded = load_repo(repo)
    (_, before, _) = stream_plan(loaded, repo_policy(loaded)).customer.borrowed_fields[0]
    age(repo)
    now = current_repo(loaded)
    assert now.catalog.view_by_name["pushed"].stored_name == "pushed_v1"
    assert stream_plan(now, repo_policy(now)).customer.borrowed_fields[0][1] != before
    (repo / "data" / "registry.db").write_bytes(b"\xff")
    assert current_repo(now) is now


def test_a_retired_view_takes_its_own_fields_along_and_no_others(url: str, repo: Path) -> None:
    """`waypost retire VIEW` the current version's, `VIEW@vN` those of another."""
    store = apply(repo)
    store.write_to_online_store("stats", frame(clicks=1))
    store.push("pushes", frame(level=2))
    store = age(repo)
    store.write_to_online_store("stats", frame(clicks=11, buys=12))
    store.push("pushes", frame(level=13, rank=14))
    refs = ("stats:clicks", "stats@v0:clicks", "pushed:level", "pushed@v0:level")
    for view, gone in (("stats", "stats__clicks"), ("pushed@v0", "pushed@v0__level")):
        expected = numbers(theirs(store, *refs)) | {gone: 0}
        result = CliRunner().invoke(app, ["retire", view, "--yes", "--repo", str(repo), "--redis-url", url])
        assert result.exit_code == 0, result.output
        assert numbers(theirs(store, *refs)) == expected
        assert expected[gone] == 0


def test_a_repo_that_nobody_applied_has_first_versions(repo: Path) -> None:
    """And loading it makes no registry."""
    catalog = load_repo(repo).catalog
    assert {view.stored_name for view in catalog.views} == {view.name for view in catalog.views}
    assert not catalog.versions
    assert not (repo / "data" / "registry.db").exists()


def test_an_old_version_that_fits_no_more_is_left_out(repo: Path) -> None:
    """One of an entity that is gone keeps nothing from loading."""
    change(
        repo,
        "\nstats = ",
        '\nother = Entity(name="other", join_keys=["other_id"], value_type=ValueType.STRING)\nstats = ',
    )
    change(repo, '    name="stats", entities=[user]', '    name="stats", entities=[other]')
    change(repo, "features=[stats, pushed]", "features=[pushed]")
    change(
        repo,
        'schema=[Field(name="user_id", dtype=String), Field(name="clicks"',
        'schema=[Field(name="clicks"',
    )
    apply(repo)
    change(repo, '    name="stats", entities=[other]', '    name="stats", entities=[user]')
    change(repo, '\nother = Entity(name="other", join_keys=["other_id"], value_type=ValueType.STRING)', "")
    store = apply(repo)
    assert store.get_feature_view("stats").current_version_number == 1
    assert "stats@v0" not in load_repo(repo).catalog.view_by_name
    assert "stats@v1" in load_repo(repo).catalog.view_by_name


def test_a_view_called_as_a_version_of_another_is_refused(repo: Path) -> None:
    """Both would be one in the store, as they are for Feast."""
    apply(repo)
    change(repo, CLICKS, f'{CLICKS}, Field(name="buys", dtype=Int64)')
    apply(repo)
    change(repo, '    name="pushed", ', '    name="stats_v1", ')
    assert "'stats_v1' is stored under the name that the current version of 'stats' has" in str(
        check_repo(repo).problems[0]
    )


def test_training_joins_what_feast_joins_of_pinned_versions(repo: Path) -> None:
    """The columns that each version has, from the files that its source reads."""
    at_us = [int((AT + timedelta(hours=hour)).timestamp()) * 1_000_000 for hour in range(6)]
    for name, columns in (("stats", ("clicks", "buys")), ("pushed", ("level", "rank"))):
        folder = repo / "data" / name
        folder.mkdir(parents=True)
        rows = {column: pa.array(range(place, place + 6)) for place, column in enumerate(columns)}
        stamps = pa.array(at_us, pa.timestamp("us", tz="UTC"))
        table = pa.table({"user_id": ["u"] * 6, **rows, "event_timestamp": stamps})
        pq.write_table(table, folder / "rows.parquet")
    apply(repo)
    store = age(repo)
    catalog = load_repo(repo).catalog
    service = find_service(catalog, "pinned")
    labels = pa.table({"user_id": ["u"] * 5, "label_time_us": [at + 1_000_000 for at in at_us[:5]]})
    table = features_at(catalog=catalog, service=service, rows=labels)
    assert {"stats@v0__clicks", "pushed@v1__rank"} <= set(table.column_names)
    dataset = Dataset(table=table, features=service.features, join_keys=("user_id",))
    verification = verify_against_feast(store, "pinned", dataset)
    assert verification.equal, verification.differences
