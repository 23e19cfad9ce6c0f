"""The repo of `tests/fixtures/kinds`, served by Feast's own servers and by Waypost over one store."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc

from online.store import feast_connection_string
from server.children import spawn
from server.config import Deadlines, FeastAnswers, FeastServing, FeastSource, Settings
from server.grpc_server import Addresses
from server.repo import importable
from tests.support.clinic import Server

KINDS = Path(__file__).parents[1] / "fixtures" / "kinds"
START_S = 120.0
TIMEOUT_S = 60.0
SERVING = "/feast.serving.ServingService/"
FEATURE_SERVER = "/GrpcFeatureServer/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One server that speaks Feast's API."""

    channel: grpc.Channel
    http: str
    addresses: Addresses | None = None

    def read(self, request: Any, service: str = FEATURE_SERVER) -> Any:
        """Call `GetOnlineFeatures` of one of the services."""
        from server.feast.protos import GetOnlineFeaturesResponse

        return self.call(f"{service}GetOnlineFeatures", request, GetOnlineFeaturesResponse)

    def call(self, method: str, request: Any, response: Any) -> Any:
        """Call any method."""
        stub = self.channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return stub(request, timeout=TIMEOUT_S)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """POST JSON; code and body."""
        connection = http.client.HTTPConnection(self.http, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything over one store.

    Attributes:
        store: Feast's SDK.
        listen: `feast listen` and `feast serve`.
        honest: Waypost, statuses as the proto says.
        exact: Waypost, answers as Feast's Python server gives them.
    """

    store: Any
    url: str
    repo: Path
    listen: Door
    honest: Door
    exact: Door


@contextlib.contextmanager
def run_world(folder: Path, url: str) -> Iterator[World]:
    """Apply the repo and start all servers on free ports."""
    from feast import FeatureStore

    repo = folder / "kinds"
    shutil.copytree(KINDS, repo)
    os.environ["KINDS_STORE"] = feast_connection_string(url)
    exact = FeastServing(refresh_s=0, answers=FeastAnswers.PYTHON, definitions=FeastSource.REGISTRY)
    with (
        _feast_servers(repo, folder / "feast.log") as listen,
        run_waypost(folder, repo, url, FeastServing(refresh_s=0)) as honest,
        run_waypost(folder, repo, url, exact) as exactly,
    ):
        store = FeatureStore(repo_path=str(repo))
        yield World(store=store, url=url, repo=repo, listen=listen, honest=honest, exact=exactly)


def apply(repo: Path) -> Any:
    """What `feast apply` does; a store on the result."""
    from feast import FeatureStore
    from feast.repo_operations import apply_total

    previous = Path.cwd()
    try:
        with importable(repo), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast calls on-demand views experimental
            apply_total(FeatureStore(repo_path=str(repo)).config, repo, skip_source_validation=True)
    finally:
        os.chdir(previous)
    return FeatureStore(repo_path=str(repo))


@contextlib.contextmanager
def run_waypost(folder: Path, repo: Path, url: str, serving: FeastServing, **options: Any) -> Iterator[Door]:
    """Serve a repo by Waypost, on an event loop in a thread."""
    settings = Settings(
        repo=repo,
        data_dir=folder / f"data-{uuid.uuid4().hex}",
        redis_url=url,
        grpc_port=0,
        http_port=0,
        feast=serving,
        deadlines=PATIENT,
        **options,
    )
    server = Server(settings, url)
    server.thread.start()
    try:
        addresses = server.wait()
        with grpc.insecure_channel(addresses.grpc, options=_LARGE) as channel:
            yield Door(channel=channel, http=addresses.http, addresses=addresses)
    finally:
        server.end()


PATIENT = Deadlines(default_ms=30_000, cap_ms=60_000, store_ms=20_000)
"""A shared machine stalls at will; what is tested here is what is said, not how fast."""
_LARGE = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


@contextlib.contextmanager
def _feast_servers(repo: Path, log: Path) -> Iterator[Door]:
    """Feast's own servers, on free ports."""
    from feast import FeatureStore  # noqa: F401 - imported while the child does the same

    grpc_port, http_port = free_port(), free_port()
    script = Path(__file__).with_name("feast_servers.py")
    child = spawn([sys.executable, str(script), str(repo), str(grpc_port), str(http_port)], output=log)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(http_port):
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "Feast's servers did not start"
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=_LARGE) as channel:
            yield Door(channel=channel, http=f"127.0.0.1:{http_port}")
    finally:
        child.kill()
        child.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        time.sleep(0.05)
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def request(
    features: Sequence[str] = (),
    service: str = "",
    entities: Mapping[str, Sequence[Any]] | None = None,
    **fields: Any,
) -> Any:
    """A `GetOnlineFeaturesRequest`; ints are int64, texts strings, everything else must be a `Value`."""
    from server.feast.protos import GetOnlineFeaturesRequest

    message = GetOnlineFeaturesRequest(**fields)
    if service:
        message.feature_service = service
    else:
        message.features.val.extend(features)
    for name, column in (entities or {}).items():
        message.entities[name].val.extend(value_message(value) for value in column)
    return message


def value_message(value: Any) -> Any:
    """A `feast.types.Value` of a plain key."""
    from server.feast.protos import Value

    if isinstance(value, Value):
        return value
    if isinstance(value, bool):
        return Value(bool_val=value)
    if isinstance(value, int):
        return Value(int64_val=value)
    if isinstance(value, float):
        return Value(double_val=value)
    return Value(bytes_val=value) if isinstance(value, bytes) else Value(string_val=value)


def by_name(response: Any) -> dict[str, list[tuple[Any, int, int]]]:
    """Value, status and event time in microseconds of every row, by column."""
    names = list(response.metadata.feature_names.val)
    assert len(set(names)) == len(names)
    return {
        name: [
            (value, status, stamp.seconds * 1_000_000 + stamp.nanos // 1_000)
            for value, status, stamp in zip(
                result.values, result.statuses, result.event_timestamps, strict=True
            )
        ]
        for name, result in zip(names, response.results, strict=True)
    }


def some_kind(kind: str, rng: random.Random) -> Any:
    """A random value of one of Feast's types, as Feast's SDK takes it; None is NULL."""
    if rng.random() < 0.15:
        return None
    if kind in _PLAIN:
        return _PLAIN[kind](rng)
    if kind.endswith("_LIST") and kind.removesuffix("_LIST") in _PLAIN:
        return [_PLAIN[kind.removesuffix("_LIST")](rng) for _ in range(rng.randrange(1, 4))]
    if kind.endswith("_SET"):
        return {_PLAIN[kind.removesuffix("_SET")](rng) for _ in range(rng.randrange(1, 4))}
    raise KeyError(kind)


def _mapping(rng: random.Random) -> dict[str, Any]:
    return {"a": rng.randrange(9), "é": rng.choice(["x", "語"]), "inner": {"b": rng.random(), "none": None}}


_PLAIN: dict[str, Any] = {
    "BYTES": lambda rng: rng.randbytes(rng.randrange(4)),
    "STRING": lambda rng: "".join(rng.choice("aé語{}\0 ") for _ in range(rng.randrange(5))),
    "INT32": lambda rng: rng.choice([0, 1, -1, 2**31 - 1, -(2**31)]),
    "INT64": lambda rng: rng.choice([0, 1, -1, 2**63 - 1, -(2**63), rng.randrange(10**12)]),
    "DOUBLE": lambda rng: rng.choice([0.0, -0.0, 1e308, -1e-300, float("inf"), rng.random()]),
    "FLOAT": lambda rng: rng.choice([0.0, 0.5, -1024.25]),
    "BOOL": lambda rng: rng.random() < 0.5,
    "UNIX_TIMESTAMP": lambda rng: datetime.fromtimestamp(rng.choice([0, 86_400, 1_700_000_000]), UTC),
    "JSON": lambda rng: json.dumps(_mapping(rng)),
    "UUID": lambda rng: uuid.UUID(int=rng.getrandbits(128)),
    "TIME_UUID": lambda rng: uuid.UUID(int=rng.getrandbits(128)),
    "DECIMAL": lambda rng: Decimal(rng.randrange(-(10**20), 10**20)) / 1000,
    "MAP": _mapping,
    "STRUCT": _mapping,
    "VALUE_LIST": lambda rng: [[1, 2], [rng.randrange(9)]],
    "VALUE_SET": lambda rng: [["a"], [rng.choice("bc")]],
    "SCALAR_MAP": lambda rng: {rng.randrange(99): "x", Decimal("1.5"): 2.5},
    "ZONED_TIMESTAMP": lambda rng: datetime.fromtimestamp(rng.randrange(2 * 10**9), UTC),
}
