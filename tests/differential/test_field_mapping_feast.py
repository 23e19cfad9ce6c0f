"""`field_mapping` of a batch source, beside Feast: in its historical retrieval, its materialization and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from decision.schema import Catalog, ValueType, View
from online.keys import EntityKeys, feature_field
from online.store import connect, feast_connection_string
from online.values import encode_value
from online.write import RowWriter
from server.catalog_json import catalog_from_json, catalog_to_json
from server.cli import app
from server.config import FeastServing
from server.repo import load_repo
from streaming.arrow import view_schema
from streaming.batch_views import load_batch_view
from tests.support.feast_world import apply, run_waypost
from tests.support.valkey import start_valkey
from training.dataset import Dataset, features_at, find_service
from training.errors import DatasetError
from training.verify import verify_against_feast

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own, at import and apply

US = 1_000_000
START_US = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * US
USERS = ("ann", "bob", "cid", "dan")
MAPPING = {"uid": "user_id", "n": "clicks", "at_last": "last_at", "ts": "event_timestamp", "made": "created"}
STORE = """
project: mapped
provider: local
registry: data/registry.db
online_store: {{type: redis, connection_string: "{store}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
FEATURES = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Int64, String, UnixTimestamp

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
rows = FileSource(
    name="rows", path="rows/*.parquet", timestamp_field="event_timestamp", created_timestamp_column="created",
    field_mapping={mapping},
)
stats = FeatureView(
    name="stats", entities=[user], ttl=timedelta(days=40), source=rows,
    schema=[
        Field(name="user_id", dtype=String), Field(name="clicks", dtype=Int64), Field(name="band", dtype=String),
        Field(name="last_at", dtype=UnixTimestamp),
    ],
)
service = FeatureService(name="of_user", features=[stats])
log = FileSource(
    name="log", path="log/*.parquet", timestamp_field="event_timestamp", created_timestamp_column="created",
    field_mapping={mapping},
)
pushed = FeatureView(
    name="pushed", entities=[user], ttl=timedelta(days=40), source=PushSource(name="pushes", batch_source=log),
    schema=[Field(name="user_id", dtype=String), Field(name="clicks", dtype=Int64), Field(name="band", dtype=String)],
)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        yield found


def make_repo(folder: Path, url: str, mapping: Mapping[str, str] = MAPPING) -> Path:
    """A repo over rows whose columns all go by other names but one."""
    repo = folder / "repo"
    (repo / "rows").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(STORE.format(store=feast_connection_string(url)))
    (repo / "events.yaml").write_text("{customer: user_id, types: {none: {}}}")
    (repo / "features.py").write_text(FEATURES.format(mapping=json.dumps(mapping)))
    rng = np.random.default_rng(5)
    at_us = START_US + rng.integers(0, 30, 200) * 86_400 * US + np.arange(200) * 7 * US
    table = {
        "uid": pa.array(rng.choice(USERS, 200)),
        "n": pa.array(rng.integers(0, 1000, 200), mask=rng.random(200) < 0.2),
        "band": pa.array(rng.choice(["low", "high"], 200)),
        "at_last": pa.array(START_US + np.arange(200) * US).cast(pa.timestamp("us", tz="UTC")),
        "ts": pa.array(at_us).cast(pa.timestamp("us", tz="UTC")),
        "made": pa.array(at_us + rng.permutation(200)).cast(pa.timestamp("us", tz="UTC")),
        "unwanted": pa.array(np.zeros(200)),
    }
    pq.write_table(pa.table(table), repo / "rows" / "all.parquet")
    (repo / "log").mkdir()
    pq.write_table(
        pa.table(table).drop_columns(["at_last", "unwanted"]).slice(0, 0), repo / "log" / "none.parquet"
    )
    return repo


def joined(repo: Path) -> Dataset:
    """The features of every user, and of one without rows, at instants between and after the rows.

    None are before a user's first row or past the last one's TTL: Feast's file store leaves such rows out.
    """
    catalog = load_repo(repo).catalog
    service = find_service(catalog, "of_user")
    asked = [
        (user, START_US + hour * 3_600 * US) for user in (*USERS, "eve") for hour in range(4 * 24, 60 * 24, 7)
    ]
    rows = pa.table({"user_id": [user for user, _ in asked], "label_time_us": [at for _, at in asked]})
    table = features_at(catalog=catalog, service=service, rows=rows)
    return Dataset(table=table, features=service.features, join_keys=("user_id",))


def test_training_joins_what_feast_joins(url: str, tmp_path: Path) -> None:
    """Join keys, features and both timestamps are found under the source's names, as `get_historical_features` does."""
    repo = make_repo(tmp_path, url)
    store = apply(repo)
    verification = verify_against_feast(store, "of_user", joined(repo))
    assert verification.equal, verification.differences
    cells = verification.row_count * verification.column_count
    assert 0.05 * cells < verification.missing_count < 0.95 * cells


def test_batch_views_bring_online_what_feast_materializes(url: str, tmp_path: Path) -> None:
    """Byte by byte, the newest row of each entity."""
    repo = make_repo(tmp_path, url)
    store = apply(repo)
    catalog = load_repo(repo).catalog
    view = catalog.view_by_name["stats"]
    keys = [EntityKeys("mapped", view.join_keys).encode({"user_id": user}) for user in USERS]
    until = datetime(2024, 2, 1, tzinfo=UTC)
    with connect(url) as client:
        client.delete(*keys)
        store.materialize(until - timedelta(days=60), until)
        feasts = [client.hgetall(key) for key in keys]
        client.delete(*keys)
        until_us = int(until.timestamp()) * US
        count = load_batch_view(RowWriter(client), catalog, view, until_us, lambda *_: None)
        ours = [client.hgetall(key) for key in keys]
    assert count == len(USERS)
    assert all(feasts)
    assert ours == feasts


def test_of_one_instant_the_row_counts_that_the_mapped_column_says_was_created_last(
    url: str, tmp_path: Path
) -> None:
    """In the join and online; Feast's own sorting keeps that order only among a few rows."""
    repo = make_repo(tmp_path, url)
    file = repo / "rows" / "all.parquet"
    rows = pq.read_table(file).slice(0, 1)
    earlier = rows.set_column(rows.column_names.index("made"), "made", rows["ts"])
    earlier = earlier.set_column(earlier.column_names.index("band"), "band", pa.array(["stale"]))
    later = rows.set_column(rows.column_names.index("band"), "band", pa.array(["fresh"]))
    later = later.set_column(later.column_names.index("made"), "made", pc.add(rows["ts"], timedelta(days=1)))
    for name, table in (("a", [later, earlier]), ("b", [earlier, later])):
        file.unlink(missing_ok=True)
        pq.write_table(pa.concat_tables(table), repo / "rows" / f"{name}.parquet")
        assert set(joined(repo).table["stats__band"].to_pylist()) == {"fresh", None}
        view = load_repo(repo).catalog.view_by_name["stats"]
        (stored,) = filter(None, newest(view, url))
        assert stored[feature_field("stats", "band")] == encode_value(ValueType.STRING, "fresh")
        (repo / "rows" / f"{name}.parquet").unlink()


def test_files_that_have_the_views_names_already_are_read_beside_the_others(url: str, tmp_path: Path) -> None:
    """As Feast renames what it finds: a file may be mapped, or not need it."""
    repo = make_repo(tmp_path, url)
    whole = joined(repo).table
    file = repo / "rows" / "all.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 90), file)
    rest = table.slice(90).rename_columns([MAPPING.get(name, name) for name in table.column_names])
    pq.write_table(rest, repo / "rows" / "renamed.parquet")
    assert joined(repo).table == whole
    view = load_repo(repo).catalog.view_by_name["stats"]
    (tmp_path / "one").mkdir()
    pq.write_table(table, tmp_path / "one" / "all.parquet")
    one = replace(view, offline_path=str(tmp_path / "one" / "*.parquet"))
    assert newest(view, url) == newest(one, url)


def newest(view: View, url: str) -> list[Any]:
    """What a batch view brings online."""
    keys = [EntityKeys("mapped", view.join_keys).encode({"user_id": user}) for user in USERS]
    with connect(url) as client:
        client.delete(*keys)
        load_batch_view(
            RowWriter(client), Catalog(project="mapped", views=(view,)), view, 2**60, lambda *_: None
        )
        return [client.hgetall(key) for key in keys]


def test_what_waypost_logs_goes_by_the_sources_names(url: str, tmp_path: Path) -> None:
    """Rows that a push or the stream appends lie as the rest of the source does."""
    view = load_repo(make_repo(tmp_path, url)).catalog.view_by_name["stats"]
    assert view_schema(view).names == ["uid", "n", "band", "at_last", "ts", "made"]


def test_pushes_take_either_name_and_feast_reads_them(url: str, tmp_path: Path) -> None:
    """Online and offline: Feast's own `push` renames columns by the mapping, and so does its retrieval."""
    repo = make_repo(tmp_path, url)
    store = apply(repo)
    at = datetime(2024, 3, 1, tzinfo=UTC)
    called = {name: column for column, name in MAPPING.items()}
    with run_waypost(tmp_path, repo, url, FeastServing(refresh_s=0)) as door:
        for user, names in (("ann", called), ("bob", {})):
            row = {"user_id": user, "clicks": 7, "band": "low", "event_timestamp": at.isoformat()}
            cells = {names.get(name, name): [value] for name, value in row.items()}
            body = {"push_source_name": "pushes", "df": cells, "to": "online_and_offline"}
            assert door.post("/push", body)[0] == 200
            clicks = names.get("clicks", "clicks")
            status, refused = door.post("/push", body | {"df": cells | {clicks: ["many"]}})
            assert status == 400
            assert f"df.{clicks}" in json.dumps(refused)
    features, users = ["pushed:clicks", "pushed:band"], ["ann", "bob"]
    online = store.get_online_features(features, [{"user_id": user} for user in users]).to_dict()
    assert (online["clicks"], online["band"]) == ([7, 7], ["low", "low"])
    asked = pd.DataFrame({"user_id": users, "event_timestamp": [at + timedelta(hours=1)] * 2})
    assert store.get_historical_features(asked, features).to_df()["clicks"].tolist() == [7, 7]


def test_a_column_that_is_not_there_is_named_as_the_source_has_it(url: str, tmp_path: Path) -> None:
    """The message has the name to look for in the file."""
    repo = make_repo(tmp_path, url)
    file = repo / "rows" / "all.parquet"
    pq.write_table(pq.read_table(file).drop_columns("n"), file)
    with pytest.raises(DatasetError, match=r"all\.parquet .*no column 'n'"):
        joined(repo)


def test_two_columns_of_one_name_are_an_error(url: str, tmp_path: Path) -> None:
    """Feast would take either; `waypost check` says which two they are."""
    repo = make_repo(tmp_path, url, MAPPING | {"m": "clicks"})
    checked = CliRunner().invoke(app, ["check", "--repo", str(repo)])
    assert checked.exit_code == 1
    assert "maps both 'n' and 'm' to 'clicks'" in checked.output


def test_names_in_files_are_kept_and_decide_nothing(url: str, tmp_path: Path) -> None:
    """A kept catalog has them; the version of what decides does not depend on them."""
    mapped = load_repo(make_repo(tmp_path, url)).catalog
    plain = json.loads(catalog_to_json(mapped))
    assert catalog_from_json(json.dumps(plain)) == mapped
    for view in plain["views"]:
        del view["source_columns"]
    assert catalog_from_json(json.dumps(plain)).content_hash == mapped.content_hash
