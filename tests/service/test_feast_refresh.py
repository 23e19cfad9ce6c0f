"""Changed definitions take over while serving; broken ones change nothing; versions of views are told apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from online.keys import EntityKeys, feature_field, timestamp_field
from online.store import connect, feast_connection_string
from online.values import encode_timestamp
from server.config import FeastServing, FeastSource
from server.errors import RepoError
from server.feast.loading import load_apart
from server.feast.protos import Value
from server.program import Program
from server.repo import load_repo
from tests.support.clinic import refusal
from tests.support.feast_world import KINDS, Door, apply, by_name, request, run_waypost
from tests.support.up import ENV
from tests.support.valkey import start_valkey

WAIT_S = 100.0
NEWER = """
newer = FeatureView(
    name="newer",
    entities=[user],
    ttl=timedelta(0),
    schema=[Field(name="fresh", dtype=Int64)],
    source=parts("newer"),
)


@on_demand_feature_view(sources=[newer], schema=[Field(name="fresher", dtype=Int64)], mode="python")
def refreshing(inputs):
    return {"fresher": [None if value is None else value + 1 for value in inputs["fresh"]]}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        os.environ["KINDS_STORE"] = feast_connection_string(found)
        yield found


def metric(door: Door, result: str) -> float:
    """How many refreshes ended so."""
    import http.client

    connection = http.client.HTTPConnection(door.http, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    line = f'waypost_definition_refreshes_total{{result="{result}"}} '
    return sum(float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(line))


def wait_for(door: Door, result: str, count: float) -> None:
    """Wait until so many refreshes ended so."""
    deadline = time.monotonic() + WAIT_S
    while metric(door, result) < count:
        assert time.monotonic() < deadline, f"no refresh was {result}"
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_new_views_appear_and_broken_definitions_change_nothing(url: str, tmp_path: Path) -> None:
    """A view and a function added to the repo are served without a restart; a broken file keeps the last good."""
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    definitions = repo / "definitions.py"
    whole = definitions.read_text()
    asked = request(["newer:fresh", "refreshing:fresher"], entities={"user_id": [1]})
    with run_waypost(tmp_path, repo, url, FeastServing(refresh_s=0.05)) as door:
        with pytest.raises(grpc.RpcError) as caught:
            door.read(asked)
        assert refusal(caught.value).info.reason == "UNKNOWN_FEATURE"
        put(url, "newer", {"fresh": 4})
        definitions.write_text(whole + NEWER)
        wait_for(door, "swapped", 1)
        answer = by_name(door.read(asked))
        assert answer["fresh"][0][0].int64_val == 4
        assert answer["fresher"][0][0].int64_val == 5
        definitions.write_text(whole + NEWER + "\nbroken = FeatureView(name=\n")
        wait_for(door, "refused", 1)
        assert by_name(door.read(asked)) == answer


@pytest.mark.timeout(240)
def test_an_empty_registry_changes_nothing(url: str, tmp_path: Path) -> None:
    """Feast writes its file in place: whoever looks meanwhile finds nothing in it."""
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    apply(repo)
    registry = repo / "data" / "registry.db"
    kept = registry.read_bytes()
    asked = request(["pair:score"], entities={"user_id": [1], "item_id": ["a"]})
    serving = FeastServing(refresh_s=0.05, definitions=FeastSource.REGISTRY)
    with run_waypost(tmp_path, repo, url, serving) as door:
        answer = by_name(door.read(asked))
        registry.write_bytes(b"")
        wait_for(door, "refused", 1)
        assert by_name(door.read(asked)) == answer
        registry.write_bytes(kept)
        wait_for(door, "swapped", 1)
        assert by_name(door.read(asked)) == answer


@pytest.mark.timeout(240)
def test_a_refresh_imports_nothing_into_the_server(url: str, tmp_path: Path) -> None:
    """An upgrade may replace the program's files at any time: what takes definitions over is in memory before."""
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    command = [sys.executable, "-m", "tests.support.watched_server", str(repo), str(tmp_path / "data"), url]
    env = ENV | {"WAYPOST_FEAST__REFRESH_S": "0.05", "KINDS_STORE": os.environ["KINDS_STORE"]}
    put(url, "newer", {"fresh": 4})
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            target = next(line for line in server.stdout if line.startswith("127.0.0.1:")).strip()
            with grpc.insecure_channel(target) as channel:
                door = Door(channel=channel, http="")
                with (repo / "definitions.py").open("a") as file:
                    file.write(NEWER)
                asked = request(["refreshing:fresher"], entities={"user_id": [1]})
                assert by_name(_once_there(door, asked))["fresher"][0][0].int64_val == 5
        finally:
            server.send_signal(signal.SIGTERM)
        told = [line for line in server.stdout if line.startswith("{")]
    assert server.returncode == 0
    assert json.loads(told[-1])["imported"] == []


def _once_there(door: Door, asked: Any) -> Any:
    """The answer, once what is asked for is defined."""
    deadline = time.monotonic() + WAIT_S
    while True:
        with contextlib.suppress(grpc.RpcError):
            return door.read(asked)
        assert time.monotonic() < deadline, "the definitions were not taken over"
        time.sleep(0.05)


REPLACING = """
from pathlib import Path

Path({file!r}).write_text("VERSION = 2")
"""


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_replaced_program_loads_no_definitions(tmp_path: Path, when: str) -> None:
    """Objects of another version are not taken apart by this one, whether its files came before or during the load."""
    file = tmp_path / "program" / "server" / "thing.py"
    file.parent.mkdir(parents=True)
    file.write_text("VERSION = 1")
    program = Program(file.parents[1])
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    assert asyncio.run(load_apart(repo, FeastSource.REPO, program)).definitions.views
    if when == "before":
        file.write_text("VERSION = 2")
    else:
        (repo / "replacing.py").write_text(REPLACING.format(file=str(file)))
    with pytest.raises(RepoError, match="the program's files have changed since this server started"):
        asyncio.run(load_apart(repo, FeastSource.REPO, program))


def put(url: str, view: str, values: dict[str, int], version: int = 0) -> None:
    """Store a row of user 1."""
    stored = f"{view}_v{version}" if version else view
    keys = load_repo(KINDS).catalog.view_by_name["clicks"].join_keys
    fields = {timestamp_field(stored): encode_timestamp(time.time_ns() // 1_000)}
    for name, value in values.items():
        fields[feature_field(stored, name)] = Value(int64_val=value).SerializeToString()
    with connect(url) as client:
        client.hset(EntityKeys("kinds", keys).encode({"user_id": 1}), mapping=fields)


@pytest.mark.timeout(240)
def test_versions_of_a_view_are_read_apart(url: str, tmp_path: Path) -> None:
    """With versions on, `view@vN` reads what was stored for that version, as Feast's SDK does, and says its number."""
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    settings = yaml.safe_load((repo / "feature_store.yaml").read_text())
    settings["registry"]["enable_online_feature_view_versioning"] = True
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    definitions = repo / "definitions.py"
    whole = definitions.read_text()
    apply(repo)
    changed = whole.replace(
        'Field(name="clicks_1h", dtype=Int64),',
        'Field(name="clicks_1h", dtype=Int64), Field(name="more", dtype=Int64),',
    )
    definitions.write_text(changed)
    store = apply(repo)
    (latest,) = [view for view in store.list_feature_views() if view.name == "clicks"]
    assert latest.current_version_number == 1
    put(url, "clicks", {"clicks_1h": 10})
    put(url, "clicks", {"clicks_1h": 11, "more": 12}, version=1)
    serving = FeastServing(refresh_s=0, definitions=FeastSource.REGISTRY)
    with run_waypost(tmp_path, repo, url, serving) as door:
        features = ["clicks@v0:clicks_1h", "clicks@v1:clicks_1h", "clicks:more"]
        ours = door.read(
            request(
                features,
                entities={"user_id": [1]},
                full_feature_names=True,
                include_feature_view_version_metadata=True,
            )
        )
        theirs = store.get_online_features(
            features=features,
            entity_rows=[{"user_id": 1}],
            full_feature_names=True,
            include_feature_view_version_metadata=True,
        ).proto
        assert by_name(ours) == by_name(theirs)
        assert {name: column[0][0].int64_val for name, column in by_name(ours).items()} == {
            "user_id": 1, "clicks@v0__clicks_1h": 10, "clicks@v1__clicks_1h": 11, "clicks__more": 12,
        }  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            door.read(request(["clicks@v9:clicks_1h"], entities={"user_id": [1]}))
        assert refusal(caught.value).info.reason == "UNKNOWN_FEATURE"


def test_a_disabled_view_is_refused(url: str, tmp_path: Path) -> None:
    """What the registry does not let serve is refused with the reason."""
    repo = Path(shutil.copytree(KINDS, tmp_path / "kinds"))
    definitions = repo / "definitions.py"
    definitions.write_text(definitions.read_text() + "\npair.enabled = False\n")
    with run_waypost(tmp_path, repo, url, FeastServing(refresh_s=0)) as door:
        with pytest.raises(grpc.RpcError) as caught:
            door.read(request(["pair:score"], entities={"user_id": [1], "item_id": ["a"]}))
        found: Any = refusal(caught.value)
        assert (found.code, found.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VIEW_NOT_SERVING")
