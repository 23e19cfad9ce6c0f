"""The bytes that `waypost check` forecasts are those that a store says it uses, after real writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decision.lang.compiler import compile_policy
from decision.schema import Feature, ValueType
from online.keys import parse_key, state_key
from online.store import connect
from server.bundles import repo_policy
from server.forecast import Forecast, forecast
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.events import EventRecord
from streaming.plan import StreamPlan
from streaming.windows.distinct import hashes
from streaming.windows.plan import DISTINCT_EXACT_BELOW
from tests.support.stream_world import (
    MINUTE_US,
    POLICY,
    SCHEMA,
    START_US,
    TRANSFORMS,
    World,
    catalog,
    drain,
    publish,
)

MINUTES = 90
HOPS = 32


def _buy(event_id: str, customer_id: str, category: str, at_us: int) -> EventRecord:
    return EventRecord(event_id, "buy", customer_id, at_us, {"category": category, "amount": 1.0})


def _look(event_id: str, at_us: int) -> EventRecord:
    return EventRecord(event_id, "look", "1", at_us, {"category": "1"})


def _used(url: str, world: World, events: list[EventRecord], batch_records: int = 7) -> dict[str, int]:
    """Bytes of one entity of each kind, features and state, once events are applied."""
    with connect(url) as client:
        client.flushall()
        publish(url, [(event.event_us, event) for event in events])
        materializer = world.materializer(client, batch_records=batch_records)
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


def test_forecast_of_values_chosen_to_be_kept_is_what_the_store_uses(url: str) -> None:
    """As many values in each hop as are kept, their hashes ascending: within a fifth."""
    world = World.create()
    told = _by_kind(world)["customer_id"]
    names = np.array([f"{number:05d}" for number in range(HOPS * DISTINCT_EXACT_BELOW)], dtype=object)
    order = np.argsort(hashes("category", names, np.ones(len(names), np.bool_)).view(np.uint64))
    events = []
    for place, name in enumerate(names[order].tolist()):
        at_us = START_US + place * MINUTE_US // DISTINCT_EXACT_BELOW
        events += [_buy(f"b{place}", "1", name, at_us), _look(f"l{place}", at_us)]
    used = _used(url, world, events, batch_records=4_000)["customer_id"]
    assert told.most_bytes == pytest.approx(used, rel=0.2)
    assert used > 20 * told.busy_bytes


def test_forecast_of_values_over_all_time_has_an_end() -> None:
    """A busy entity has as many values from before as are kept, and chosen ones are no more than a hop's more."""
    world = World.create()
    definitions = catalog(world.offline)
    spending = definitions.view_by_name["spending"]
    aggregations = tuple(
        replace(each, window_s=None) if each.function == "count_distinct" else each
        for each in spending.aggregations
    )
    views = (
        replace(spending, aggregations=aggregations),
        *(view for view in definitions.views if view != spending),
    )
    policy = compile_policy({"world.policy": POLICY}, definitions, customer_key="customer_id").policy
    assert policy is not None
    plan = StreamPlan.compile(replace(definitions, views=views), TRANSFORMS, policy, "customer_id")
    (told,) = [each for each in forecast(plan, SCHEMA, partitions=1) if each.is_customer]
    windowed = _by_kind(world)["customer_id"]
    assert windowed.busy_bytes + 200 * 8 < told.busy_bytes < windowed.busy_bytes + 256 * 16
    assert told.busy_bytes < told.most_bytes < windowed.most_bytes


def test_forecast_of_the_example_shop_is_bounded() -> None:
    """Every kind of the example repo has one, and a busy entity takes more than a quiet one."""
    repo = load_repo(Path(__file__).parents[2] / "feature_repo")
    told = forecast(stream_plan(repo, repo_policy(repo)), repo.events, partitions=4)
    assert len(told) >= 4
    assert all(0 < each.least_bytes <= each.busy_bytes < 1_000_000 for each in told)


def test_an_instant_of_a_latest_row_is_forecast() -> None:
    """A view without aggregations may hold instants, which come out of its function as pandas has them."""
    world = World.create()
    kind = world.plan.customer
    looked = next(item for item in kind.views if item.view.name == "looked")
    seen_at = Feature(name="event_time", value_type=ValueType.UNIX_TIMESTAMP)
    changed = replace(looked, view=replace(looked.view, features=(seen_at,)))
    views = tuple(changed if item is looked else item for item in kind.views)
    customer = replace(kind, views=views)
    kinds = tuple(customer if item is kind else item for item in world.plan.kinds)
    plan = replace(world.plan, kinds=kinds, customer=customer)
    assert {told.kind for told in forecast(plan, SCHEMA, partitions=1)} == {item.name for item in kinds}
