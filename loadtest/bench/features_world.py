"""One store, one Feast repo on it, and every server that is measured, each a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Value, ValueType, View
from loadtest.server import free_port
from online.keys import EntityKeys, feature_field
from online.store import connect, feast_connection_string
from online.values import encode_value
from online.write import RowWrite, RowWriter
from server.children import spawn, stop
from server.embedded import EmbeddedValkey

START_S: Final = 180.0
SERVERS: Final = ("waypost", "listen", "serve")
ENTITIES: Final = 2_000
OFFERS: Final = 20
METHOD: Final = "/feast.serving.ServingService/GetOnlineFeatures"
LISTEN_METHOD: Final = "/GrpcFeatureServer/GetOnlineFeatures"
SERVE_OPTIONS: Final = ("--workers", "1", "--max-requests", "0", "--no-access-log")
"""By default a worker ends after some 1,000 requests, cutting off those it still has, and logs each."""
_TYPES: Final = (
    *(ValueType.DOUBLE,) * 4,
    *(ValueType.INT64,) * 3,
    ValueType.STRING,
    ValueType.BOOL,
    ValueType.UNIX_TIMESTAMP,
)
_FEAST_TYPES: Final = {
    ValueType.DOUBLE: "Float64",
    ValueType.INT64: "Int64",
    ValueType.STRING: "String",
    ValueType.BOOL: "Bool",
    ValueType.UNIX_TIMESTAMP: "UnixTimestamp",
}
_USER: Final = JoinKey(name="user_id", value_type=ValueType.INT64)
_OFFER: Final = JoinKey(name="offer_id", value_type=ValueType.STRING)


def _view(name: str, key: JoinKey, count: int, **settings: Any) -> View:
    features = tuple(Feature(name=f"{name}_{i}", value_type=_TYPES[i]) for i in range(count))
    return View(name=name, join_keys=(key,), features=features, **settings)


VIEWS: Final = tuple(_view(name, _USER, 10) for name in ("profile", "session", "history"))
CATALOG: Final = Catalog(project="bench", views=(*VIEWS, _view("offer", _OFFER, 8)))
NEAR_CATALOG: Final = Catalog(
    project="bench", views=(*VIEWS, _view("offer", _OFFER, 8, tags=(("waypost.cache", "near"),)))
)
"""As `CATALOG`, with offers kept in memory."""
REFS: Final = tuple(FeatureRef(view=view.name, feature=f.name) for view in VIEWS for f in view.features)
OFFER_REFS: Final = tuple(
    FeatureRef(view="offer", feature=f.name) for f in CATALOG.view_by_name["offer"].features
)
NAMES: Final = tuple(f"{ref.view}:{ref.feature}" for ref in REFS)
COLUMNS: Final = (_USER.name, *(ref.feature for ref in REFS))
"""The columns of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a server is asked: `http` says whether in JSON over HTTP/1.1 or in gRPC."""

    port: int
    path: str
    http: bool = False
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is measured.

    Attributes:
        store_url: The store.
        repo: The Feast repo.
        doors: Servers by name: waypost, listen, serve.
    """

    store_url: str
    repo: Path
    doors: Mapping[str, Door]
    log: Path


@contextmanager
def run_world(folder: Path, names: Sequence[str] = SERVERS) -> Iterator[World]:
    """Start the store and servers on free ports; they are gone afterwards."""
    with run_store(folder) as url:
        repo = write_repo(folder, url)
        log = folder / "servers.log"
        binaries = Path(sys.executable).parent
        ports = {name: free_port() for name in SERVERS}
        feast = [str(binaries / "feast"), "-c", str(repo)]
        commands = {
            "waypost": [
                *(str(binaries / "waypost"), "serve", "--repo", str(repo), "--redis-url", url),
                *(
                    "--data-dir",
                    str(folder / "data"),
                    "--grpc-port",
                    str(ports["waypost"]),
                    "--http-port",
                    "0",
                ),
            ],
            "listen": [*feast, "listen", "--address", f"127.0.0.1:{ports['listen']}"],
            "serve": [*feast, "serve", "-h", "127.0.0.1", "-p", str(ports["serve"]), *SERVE_OPTIONS],
        }
        with ExitStack() as stack:
            doors = {}
            for name in names:
                child = spawn(commands[name], output=log, env=os.environ | {"FEAST_USAGE": "False"})
                stack.callback(stop, child)
                path = {"waypost": METHOD, "listen": LISTEN_METHOD, "serve": "/get-online-features"}[name]
                doors[name] = Door(port=ports[name], path=path, http=name == "serve", pid=child.pid)
            world = World(store_url=url, repo=repo, doors=doors, log=log)
            _wait_until_answering(world)
            yield world


@contextmanager
def run_store(folder: Path) -> Iterator[str]:
    """Run a Valkey with every entity and offer in it; yields its URL."""
    store = EmbeddedValkey(folder / "store")
    store.start()
    try:
        _fill(store.url)
        yield store.url
    finally:
        store.stop()


@contextmanager
def run_echo(size_bytes: int) -> Iterator[Door]:
    """Run a bare server that answers every call with so many bytes."""
    port = free_port()
    child = spawn([sys.executable, "-m", "loadtest.bench.echo", str(port), str(size_bytes)])
    try:
        door = Door(port=port, path=METHOD, pid=child.pid)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=START_S)
        yield door
    finally:
        stop(child)


def users(count: int) -> list[int]:
    """The entities of a request of so many rows."""
    return [(7 * number) % ENTITIES for number in range(count)]


def request_message(count: int) -> bytes:
    """A `GetOnlineFeaturesRequest` for so many rows."""
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest

    message = GetOnlineFeaturesRequest()
    message.features.val.extend(NAMES)
    for user in users(count):
        message.entities["user_id"].val.add().int64_val = user
    return bytes(message.SerializeToString())


def request_json(count: int) -> bytes:
    """The same request as `feast serve` takes it."""
    return json.dumps({"features": NAMES, "entities": {"user_id": users(count)}}).encode()


def values_of(response: bytes) -> dict[str, list[Any]]:
    """The serialized values in a `GetOnlineFeaturesResponse`, by column."""
    message = _message(response)
    return {
        name: [value.SerializeToString() for value in result.values]
        for name, result in zip(message.metadata.feature_names.val, message.results, strict=True)
    }


def json_of(response: bytes) -> dict[str, list[Any]]:
    """The values in a `GetOnlineFeaturesResponse` as `feast serve` writes them, by column."""
    from feast.feature_server_utils import convert_response_to_dict

    return json_values_of(json.dumps(convert_response_to_dict(_message(response))).encode())


def json_values_of(body: bytes) -> dict[str, list[Any]]:
    """The values in an answer of `feast serve`, by column."""
    answer = json.loads(body)
    names = answer["metadata"]["feature_names"]
    return {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}


def _message(response: bytes) -> Any:
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

    return GetOnlineFeaturesResponse.FromString(response)


def write_repo(folder: Path, url: str) -> Path:
    """Write the Feast repo and apply it."""
    repo = folder / "repo"
    (repo / "policy").mkdir(parents=True)
    settings = f"""project: bench
provider: local
registry: {repo}/registry.db
online_store: {{type: redis, connection_string: "{feast_connection_string(url)}"}}
offline_store: {{type: duckdb}}
entity_key_serialization_version: 3
"""
    (repo / "feature_store.yaml").write_text(settings, encoding="utf-8")
    (repo / "definitions.py").write_text(_definitions(), encoding="utf-8")
    (repo / "events.yaml").write_text(
        "customer: user_id\nlateness_s: 60\ntypes: {nothing: {properties: {}}}\n", encoding="utf-8"
    )
    _apply(repo)
    return repo


def _definitions() -> str:
    lines = [
        "from datetime import timedelta",
        "from feast import Entity, FeatureView, Field, FileSource, ValueType",
        f"from feast.types import {', '.join(_FEAST_TYPES.values())}",
        'user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)',
        'source = FileSource(name="s", path="none.parquet", timestamp_field="event_timestamp")',
    ]
    for view in VIEWS:
        fields = ", ".join(
            f'Field(name="{f.name}", dtype={_FEAST_TYPES[f.value_type]})' for f in view.features
        )
        lines.append(
            f'{view.name} = FeatureView(name="{view.name}", entities=[user], schema=[{fields}], '
            "source=source, ttl=timedelta(0))"
        )
    return "\n".join(lines) + "\n"


def _apply(repo: Path) -> None:
    feast = Path(sys.executable).parent / "feast"
    subprocess.run(
        [str(feast), "-c", str(repo), "apply", "--skip-source-validation"],
        check=True,
        capture_output=True,
        timeout=START_S,
        env=os.environ | {"FEAST_USAGE": "False"},
    )


def _fill(url: str) -> None:
    rng = random.Random(1)
    now_us = int(time.time()) * 1_000_000
    with connect(url) as client:
        writer = RowWriter(client)
        for view in CATALOG.views:
            keys = EntityKeys(CATALOG.project, view.join_keys)
            rows: Sequence[dict[str, Value]] = (
                [{"offer_id": f"offer-{number}"} for number in range(OFFERS)]
                if view.name == "offer"
                else [{"user_id": number} for number in range(ENTITIES)]
            )
            writer.apply(
                [
                    RowWrite(
                        key=keys.encode(row),
                        view=view.name,
                        values={
                            feature_field(view.name, f.name): encode_value(
                                f.value_type, _drawn(f.value_type, rng)
                            )
                            for f in view.features
                        },
                        event_us=now_us,
                    )
                    for row in rows
                ]
            )


def _drawn(value_type: ValueType, rng: random.Random) -> Value:
    match value_type:
        case ValueType.DOUBLE:
            return rng.uniform(0, 1_000)
        case ValueType.INT64:
            return rng.randrange(100_000)
        case ValueType.STRING:
            return rng.choice(("bronze", "silver", "gold", "platinum"))
        case ValueType.BOOL:
            return rng.random() < 0.5
        case _:
            return rng.randrange(1_600_000_000, 1_700_000_000) * 1_000_000


def _wait_until_answering(world: World) -> None:
    deadline = time.monotonic() + START_S
    for name, door in world.doors.items():
        while not _answers(door):
            if time.monotonic() > deadline:
                tail = "\n".join(world.log.read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"{name} did not start; the servers' log ends:\n{tail}")
            time.sleep(0.1)


def _answers(door: Door) -> bool:
    try:
        return bool(ask(door, 1))
    except (OSError, grpc.RpcError):
        return False


def ask(door: Door, count: int) -> bytes:
    """Ask a server once and return the body of its answer."""
    if door.http:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
        try:
            connection.request("POST", door.path, request_json(count), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"HTTP {answer.status}: {body[:200]!r}")
        return body
    with grpc.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        method: Any = channel.unary_unary(door.path)
        return bytes(method(request_message(count), timeout=30))
