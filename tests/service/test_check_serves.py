"""`waypost check` and `waypost serve` agree about repos that no event feeds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from online.keys import EntityKeys, feature_field, timestamp_field
from online.store import connect
from online.values import encode_timestamp
from server.bundles import BundleKeeper
from server.cli import app
from server.config import FeastServing, Settings
from server.errors import PolicyRejectedError
from server.feast.protos import Value
from server.metrics import Metrics
from server.repo import load_repo
from tests.support.feast_world import by_name, request, run_waypost
from tests.support.up import ENV, READY_S
from tests.support.valkey import start_valkey

STORE = """
project: plain
provider: local
registry: data/registry.db
online_store: {type: redis, connection_string: "localhost:6379"}
offline_store: {type: file}
entity_key_serialization_version: 3
"""
BATCH = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, PushSource, StreamFeatureView, ValueType
from feast.types import Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
rows = FileSource(name="rows", path="data/rows/*.parquet", timestamp_field="event_timestamp")
stats = FeatureView(name="stats", entities=[user], schema=[Field(name="clicks", dtype=Int64)], source=rows)
"""
STREAM = """
stream = StreamFeatureView(
    name="pushed", entities=[{entity}], ttl=timedelta(0), schema=[Field(name="clicks", dtype=Int64)],
    timestamp_field="event_timestamp", source=PushSource(name="pushes", batch_source=rows),
)
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        yield found


@pytest.mark.parametrize(
    ("views", "said"),
    [
        (
            "",
            "ok: 1 view, 1 feature, 0 feature services, 1 event type, 0 warnings; no stream view takes events",
        ),
        (STREAM.format(entity="item"), "warning: no stream view is keyed by the customer alone (user_id)"),
        (STREAM.format(entity="user"), "warning: view pushed has no function, and events have no properties"),
    ],
    ids=["batch views", "a stream view of items", "a pushed stream view"],
)
def test_a_repo_without_events_is_served_and_said_to_be(
    url: str, tmp_path: Path, views: str, said: str
) -> None:
    """A Feast repo that events bring nothing passes, with what they do not feed, and its features are served."""
    repo = tmp_path / "plain"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(STORE)
    (repo / "events.yaml").write_text("{customer: user_id, types: {none: {}}}")
    (repo / "features.py").write_text(BATCH + views)
    checked = CliRunner().invoke(app, ["check", "--repo", str(repo)])
    assert checked.exit_code == 0, checked.output
    assert said in checked.output
    catalog = load_repo(repo).catalog
    with connect(url) as client:
        key = EntityKeys("plain", catalog.view_by_name["stats"].join_keys).encode({"user_id": "a"})
        client.hset(
            key,
            mapping={
                timestamp_field("stats"): encode_timestamp(1_700_000_000_000_000),
                feature_field("stats", "clicks"): Value(int64_val=7).SerializeToString(),
            },
        )
    with run_waypost(tmp_path, repo, url, FeastServing(refresh_s=0)) as door:
        answer = by_name(door.read(request(["stats:clicks"], entities={"user_id": ["a"]})))
    assert answer["clicks"][0][0].int64_val == 7


def test_what_a_server_takes_though_not_all_of_it_works_is_an_error_and_said_so(tmp_path: Path) -> None:
    """A view whose columns events do not have, where they have some, is a mistake; the summary says what is served."""
    repo = tmp_path / "plain"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(STORE)
    (repo / "events.yaml").write_text(
        "{customer: user_id, types: {click: {properties: {page: {type: string}}}}}"
    )
    (repo / "features.py").write_text(BATCH + STREAM.format(entity="user"))
    checked = CliRunner().invoke(app, ["check", "--repo", str(repo)])
    assert checked.exit_code == 1
    assert "no column 'clicks'" in checked.output
    assert "1 error, 0 warnings: `waypost serve` takes the repo, but not all of it works" in checked.output


@pytest.mark.parametrize(
    ("properties", "code", "said"),
    [("{properties: {clicks: {type: int64}}}", 1, "error"), ("{}", 0, "warning")],
    ids=["fed by events", "pushed alone"],
)
def test_a_source_that_values_cannot_be_logged_in_is_found_before_the_materializer_refuses_it(
    url: str, tmp_path: Path, properties: str, code: int, said: str
) -> None:
    """With the place of the view and the path to give it; a server without a materializer needs none."""
    repo = tmp_path / "plain"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(STORE)
    (repo / "events.yaml").write_text(f"{{customer: user_id, types: {{click: {properties}}}}}")
    views = BATCH.replace("data/rows/*.parquet", "data/rows.parquet") + STREAM.format(entity="user")
    (repo / "features.py").write_text(views)
    checked = CliRunner().invoke(app, ["check", "--repo", str(repo)])
    assert checked.exit_code == code, checked.output
    line = 1 + views[: views.index("stream = ")].count("\n")
    why = "view pushed: its batch source must be a FileSource with a path of this machine like data/offline/pushed/"
    assert f"{said}: features.py:{line}: {why}*.parquet" in checked.output
    for command in (["materializer"], ["backfill", "none.parquet"]):
        place = ["--repo", str(repo), "--data-dir", str(tmp_path / "data"), "--redis-url", url]
        child = [sys.executable, "-m", "server.cli", *command, *place]
        refused = subprocess.run(child, env=ENV, capture_output=True, text=True, check=False, timeout=READY_S)
        assert refused.returncode == 1
        assert refused.stderr.startswith(why)
        assert "Traceback" not in refused.stderr


def test_what_a_server_refuses_is_said_to_be_refused(tmp_path: Path) -> None:
    """Two features of one hash field, read by a rule, keep a server from starting, and the check says so."""
    repo = tmp_path / "plain"
    (repo / "policy").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(STORE)
    (repo / "events.yaml").write_text("{customer: user_id, types: {none: {}}}")
    colliding = 'Field(name="f37660", dtype=Int64), Field(name="f43618", dtype=Int64)'
    views = BATCH.replace('Field(name="clicks", dtype=Int64)', colliding).replace('"stats"', '"v"')
    (repo / "features.py").write_text(views)
    (repo / "policy" / "p.policy").write_text(
        'placement home:\n  candidates tagged "t"\n  limit 1\n  fallback o\n\n'
        'offer o:\n  content {"title": "O"}\n  tags "t"\n\n'
        'rule r on home priority 1:\n  IF v.f37660 > v.f43618\n  THEN display_recommendation("o")\n'
    )
    checked = CliRunner().invoke(app, ["check", "--repo", str(repo)])
    assert checked.exit_code == 1
    assert "hash to the same field" in checked.output
    assert "the repo cannot be served" in checked.output
    settings = Settings(repo=repo, data_dir=tmp_path / "data")
    with pytest.raises(PolicyRejectedError, match="hash to the same field"):
        BundleKeeper(load_repo(repo), settings.models_dir, settings.bundles_dir, Metrics())
