"""What surrounds a call: incidents without text, budgets, clocks, and the docs of all names."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import Metric

from decision.schema import Catalog
from online.near import NearCache
from server.budget import Budget
from server.calls import Border
from server.catalog_json import catalog_from_json, catalog_to_json
from server.clock import SystemClock, VirtualClock
from server.config import Deadlines, Settings, describe
from server.errors import RequestError
from server.metrics import Metrics
from server.repo import load_repo
from server.stream_metrics import StreamCollector
from tests.support.clinic import CLINIC, refusal
from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

CLINIC_HASH = "0301464355e7ee0465447e9f8ddf0a8a8e308ecd0c88b397c4e4cbf70cf01c42"
"""Of the clinic's catalog, as bundles were kept under it before catalogs had versions."""
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class Broken(admin_pb2_grpc.AdminServiceServicer):
    """A servicer with a bug."""

    async def GetStatus(self, request: Any, context: Any) -> admin_pb2.GetStatusResponse:  # noqa: N802, ARG002
        """Fail as code fails that nobody thought of."""
        raise KeyError("the customer's secret")

    async def AdvanceClock(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not called."""
        raise NotImplementedError

    async def Reload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not called."""
        raise NotImplementedError

    async def ListDeadLetters(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not called."""
        raise NotImplementedError

    async def RedriveDeadLetters(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Not called."""
        raise NotImplementedError


async def call(method: Callable[[admin_pb2_grpc.AdminServiceAsyncStub], Awaitable[Any]]) -> Any:
    """Call a server of `Broken`."""
    server = grpc.aio.server()
    border: Any = Border(server, Settings(), Metrics())
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Broken(), border)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
            return await method(stub)
    finally:
        await server.stop(None)


async def test_a_bug_becomes_an_incident_without_its_text() -> None:
    """A client learns an id to quote, and nothing of the exception."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(lambda stub: stub.GetStatus(admin_pb2.GetStatusRequest()))
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert refused.info.metadata["incident"] in refused.message
    assert "secret" not in str(refused.details) + refused.message


def test_a_client_without_a_deadline_gets_the_default() -> None:
    """The budget is the default, the client's own, or the cap, whichever applies."""
    deadlines = Deadlines(default_ms=200, cap_ms=500)
    assert Budget.start(None, deadlines).total_s == 0.2
    assert Budget.start(0.1, deadlines).total_s == 0.1
    assert Budget.start(9.0, deadlines).total_s == 0.5
    assert Budget.start(-1.0, deadlines).left_s() == 0.0


def test_the_store_gets_no_more_than_its_share() -> None:
    """The reserve is kept back, and the store's own bound holds."""
    deadlines = Deadlines(default_ms=1_000, cap_ms=1_000, store_ms=250, reserve_ms=5)
    assert Budget.start(None, deadlines).for_store_s() == 0.25
    assert Budget.start(0.1, deadlines).for_store_s() < 0.0951
    assert Budget.start(0.004, deadlines).for_store_s() == 0.0


def test_clocks_never_run_backwards() -> None:
    """The virtual clock stands still until advanced; the system's is monotonic."""
    clock = VirtualClock(10)
    assert (clock.advance(5), clock.advance(20), clock.now_us()) == (10, 20, 20)
    system = SystemClock()
    assert system.now_us() <= system.now_us()


def test_a_catalog_survives_json() -> None:
    """A kept bundle's catalog is equal to the one that was compiled, hash included."""
    catalog = load_repo(CLINIC).catalog
    again = catalog_from_json(catalog_to_json(catalog))
    assert again == catalog
    assert again.content_hash == catalog.content_hash
    assert catalog_from_json(catalog_to_json(Catalog(project="p", views=()))) == Catalog(
        project="p", views=()
    )


def test_versions_of_views_survive_json_and_catalogs_without_any_keep_their_hash() -> None:
    """What is stored under another name is another bundle; kept ones of before, which know of no names, are found."""
    catalog = load_repo(CLINIC).catalog
    moved = catalog.stored_under({"visits": "visits_v1"})
    first = replace(moved.view_by_name["visits"], name="visits@v0", stored_as="visits")
    aged = replace(moved, versions=(first,))
    assert catalog_from_json(catalog_to_json(aged)) == aged
    assert catalog_from_json(catalog_to_json(aged)).content_hash == aged.content_hash
    assert len({catalog.content_hash, moved.content_hash, aged.content_hash}) == 3
    assert aged.stored_under({"visits": ""}).views == catalog.views
    before = json.loads(catalog_to_json(catalog))
    del before["versions"]
    for view in before["views"]:
        del view["stored_as"]
    assert catalog_from_json(json.dumps(before)).content_hash == catalog.content_hash == CLINIC_HASH


def documented(section: str) -> set[str]:
    """Names in code marks at the start of the rows of a section's table."""
    text = OPERATIONS.read_text(encoding="utf-8")
    body = text.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([^`]+)`", body, flags=re.MULTILINE))


def test_every_reason_is_documented() -> None:
    """The page of errors lists exactly the reasons that the server can give."""
    reasons = set().union(*(kind.reasons for kind in RequestError.__subclasses__()))
    assert documented("Errors") == reasons | {"INTERNAL"}


def test_every_metric_is_documented() -> None:
    """The pages of metrics list exactly those that the registries of a server and of a materializer have."""
    metrics = Metrics()
    metrics.watch_near(NearCache())
    assert documented("Metrics") == _metric_names(metrics.registry.collect())
    assert documented("Metrics of a materializer") == _metric_names(StreamCollector(dict).collect())


def _metric_names(families: Iterable[Metric]) -> set[str]:
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_every_setting_is_documented() -> None:
    """The page of settings lists exactly what can be set."""
    assert documented("Settings") == {"WAYPOST_" + row.name.upper() for row in describe(Settings())}
