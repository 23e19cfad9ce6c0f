"""The bytes that `waypost check` forecasts are those that a store says it uses, after real writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from online.keys import parse_key, state_key
from online.store import connect
from server.bundles import repo_policy
from server.forecast import Forecast, forecast
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.events import EventRecord
from tests.support.stream_world import MINUTE_US, SCHEMA, START_US, World, drain, publish
from tests.support.valkey import start_valkey

MINUTES = 90


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


def _buy(event_id: str, customer_id: str, category: str, at_us: int) -> EventRecord:
    return EventRecord(event_id, "buy", customer_id, at_us, {"category": category, "amount": 1.0})


def _look(event_id: str, at_us: int) -> EventRecord:
    return EventRecord(event_id, "look", "1", at_us, {"category": "1"})


def _used(url: str, world: World, events: list[EventRecord]) -> dict[str, int]:
    """Bytes of one entity of each kind, features and state, once events are applied."""
    with connect(url) as client:
        client.flushall()
        publish(url, [(event.event_us, event) for event in events])
        materializer = world.materializer(client)
        while materializer.step():
            materializer.checkpoint()
        drain(materializer)
        store: Any = client
        found: dict[str, int] = {}
        for kind in world.plan.kinds:
            keys = [
                key
                for key in store.scan_iter(count=1000)
                if not key.startswith((b"{", b"wp:")) and parse_key(key).names == kind.key_names
            ]
            sizes = [
                sum(store.memory_usage(name, samples=0) for name in (key, state_key(key))) for key in keys
            ]
            found[kind.name] = max(sizes)
        return found


def _by_kind(world: World) -> dict[str, Forecast]:
    return {told.kind: told for told in forecast(world.plan, SCHEMA, partitions=1)}


def test_forecast_of_a_single_event_is_what_the_store_uses(url: str) -> None:
    """One event of each type: within a fifth of `MEMORY USAGE`."""
    world = World.create()
    used = _used(url, world, [_buy("b" * 36, "1", "1", START_US), _look("l" * 36, START_US + 1)])
    for name, told in _by_kind(world).items():
        assert told.least_bytes == pytest.approx(used[name], rel=0.2), name


def test_forecast_of_busy_entities_is_what_the_store_uses(url: str) -> None:
    """Events of each type every minute, by other customers and in other categories too: within a fifth again."""
    world = World.create()
    events = []
    for minute in range(MINUTES):
        at_us, number = START_US + minute * MINUTE_US, f"{minute:033d}"
        events += [
            _buy(f"own{number}", "1", "1", at_us),
            _look(f"eye{number}", at_us + 1),
            _buy(f"oth{number}", f"{minute + 2}", "1", at_us + 2),
            _buy(f"cat{number}", "1", f"{minute + 2}", at_us + 3),
        ]
    used = _used(url, world, events)
    for name, told in _by_kind(world).items():
        assert told.busy_bytes == pytest.approx(used[name], rel=0.2), name


def test_forecast_of_the_example_shop_is_bounded() -> None:
    """Every kind of the example repo has one, and a busy entity takes more than a quiet one."""
    repo = load_repo(Path(__file__).parents[2] / "feature_repo")
    told = forecast(stream_plan(repo, repo_policy(repo)), repo.events, partitions=4)
    assert len(told) >= 4
    assert all(0 < each.least_bytes <= each.busy_bytes < 1_000_000 for each in told)
