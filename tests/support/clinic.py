"""The clinic of `tests/fixtures/clinic`, served in process over a real store."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from decision.schema import Catalog, Value
from online.keys import EntityKeys, feature_field
from online.near import NearCache
from online.read import OnlineReader
from online.store import connect, connect_async, open_topology
from online.values import encoder
from online.write import RowWrite, RowWriter
from server.config import Settings
from server.grpc_server import Addresses, serve
from server.repo import load_repo
from server.wiring import build_application
from waypost.admin.v1 import admin_pb2, admin_pb2_grpc
from waypost.decision.v1 import decision_pb2_grpc
from waypost.events.v1 import events_pb2_grpc
from waypost.features.v1 import features_pb2, features_pb2_grpc

CLINIC = Path(__file__).parents[1] / "fixtures" / "clinic"
START_S = 60.0
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinic:
    """A running server and stubs to call it."""

    settings: Settings
    url: str
    addresses: Addresses
    channel: grpc.Channel
    catalog: Catalog
    decisions: decision_pb2_grpc.DecisionServiceStub
    features: features_pb2_grpc.FeatureServiceStub
    events: events_pb2_grpc.EventServiceStub
    admin: admin_pb2_grpc.AdminServiceStub

    def put(self, view: str, keys: Mapping[str, Value], values: Mapping[str, Value], event_us: int) -> None:
        """Store a row of a view, as Feast lays it out."""
        definition = self.catalog.view_by_name[view]
        types = {feature.name: feature.value_type for feature in definition.features}
        row = RowWrite(
            key=EntityKeys(self.catalog.project, definition.join_keys).encode(keys),
            view=view,
            values={feature_field(view, name): encoder(types[name])(value) for name, value in values.items()},
            event_us=event_us,
        )
        with connect(self.url) as client:
            assert RowWriter(client).apply([row]) == [True]

    def push(self, at_us: int, columns: Mapping[str, Sequence[int]], source: str = "desk") -> None:
        """Push rows of patients' profiles over HTTP, as Feast's SDK does; what is not given is the same in all."""
        rows = len(columns["patient_id"])
        df = {
            "insurer": ["x"] * rows,
            "reminders_wanted": [True] * rows,
            "event_timestamp": [at_us / 1e6] * rows,
            **columns,
        }
        body = json.dumps({"push_source_name": source, "df": df, "to": "online"}).encode()
        request = urllib.request.Request(
            f"http://{self.addresses.http}/push", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - loopback

    def advance(self, now_us: int) -> None:
        """Move the virtual clock."""
        request = admin_pb2.AdvanceClockRequest()
        request.now.FromMicroseconds(now_us)
        self.admin.AdvanceClock(request, timeout=60)

    def log_length(self) -> int:
        """Records in all partitions of the log."""
        with connect(self.url) as client:
            return sum(int(client.xlen(key)) for key in client.keys("wp:*:log"))


def clinic_repo(folder: Path, segment: str) -> Path:
    """The clinic's repo with another definition of its segment."""
    repo = folder / "repo"
    shutil.copytree(CLINIC, repo)
    policy = repo / "policy" / "portal.policy"
    text = policy.read_text()
    old = next(line for line in text.splitlines() if line.startswith("segment regular"))
    policy.write_text(text.replace(old, segment))
    return repo


def have_profile_pushed(repo: Path) -> None:
    """Give patients' profiles a push source, `desk`."""
    views = repo / "views.py"
    pushed = 'source=PushSource(name="desk", batch_source=parquet("profile"))'
    views.write_text(views.read_text().replace('source=parquet("profile")', pushed))


@contextmanager
def run_clinic(folder: Path, url: str, **options: Any) -> Iterator[Clinic]:
    """Serve a copy of the clinic's repo, on free ports, on an event loop in a thread."""
    repo = folder / "repo"
    if not repo.exists():
        shutil.copytree(CLINIC, repo)
    settings = Settings(
        repo=repo, data_dir=folder / "data", redis_url=url, grpc_port=0, http_port=0, **options
    )
    server = Server(settings, url)
    server.thread.start()
    try:
        addresses = server.wait()
        with grpc.insecure_channel(addresses.grpc) as channel:
            yield Clinic(
                settings=settings,
                url=url,
                addresses=addresses,
                channel=channel,
                catalog=server.catalog,
                decisions=decision_pb2_grpc.DecisionServiceStub(channel),
                features=features_pb2_grpc.FeatureServiceStub(channel),
                events=events_pb2_grpc.EventServiceStub(channel),
                admin=admin_pb2_grpc.AdminServiceStub(channel),
            )
    finally:
        server.end()


class Server:
    """A server on an event loop in a thread."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.catalog = load_repo(settings.repo).catalog
        self._settings = settings
        self._url = url
        self._ready = threading.Event()
        self._addresses: Addresses | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.thread = threading.Thread(target=self._run, name="clinic")

    def wait(self) -> Addresses:
        """Wait until the server serves."""
        assert self._ready.wait(START_S), "the server did not start"
        if self._failure is not None:
            raise self._failure
        assert self._addresses is not None
        return self._addresses

    def end(self) -> None:
        """Stop the server and wait for it."""
        if self._loop is not None and self._stop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._stop.set)
        self.thread.join(START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        topology = open_topology(self._url)
        client = connect_async(self._url, topology)
        reader = OnlineReader(topology, NearCache())
        app = await build_application(self._settings, load_repo(self._settings.repo), client, reader)
        try:
            await serve(app, self._settings, self._announce, self._stop)
        finally:
            await app.reader.aclose()
            await client.aclose()

    def _announce(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._ready.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed call, taken apart."""

    code: grpc.StatusCode
    message: str
    info: error_details_pb2.ErrorInfo
    details: Mapping[type[Message], Any]

    @property
    def fields(self) -> list[str]:
        """Fields that the call was refused for."""
        bad = self.details.get(error_details_pb2.BadRequest)
        return [violation.field for violation in bad.field_violations] if bad is not None else []


def refusal(error: Any) -> Refusal:
    """Take apart a failed call, or the status of a refused event; it has exactly one ErrorInfo."""
    status = rpc_status.from_call(error) if isinstance(error, grpc.RpcError) else error
    assert status is not None, error
    details: dict[type[Message], Any] = {}
    for packed in status.details:
        kind = next(kind for kind in _KINDS if packed.Is(kind.DESCRIPTOR))
        assert kind not in details, "each kind of detail is there once"
        details[kind] = kind()
        packed.Unpack(details[kind])
    return Refusal(
        code=next(code for code in grpc.StatusCode if code.value[0] == status.code),
        message=status.message,
        info=details[error_details_pb2.ErrorInfo],
        details=details,
    )


_KINDS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.PreconditionFailure,
)


def text(value: str) -> features_pb2.Value:
    """A text."""
    return features_pb2.Value(string_value=value)


def whole(value: int) -> features_pb2.Value:
    """A whole number."""
    return features_pb2.Value(int64_value=value)
