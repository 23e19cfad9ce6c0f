"""Tries a repo's stream views on events made up from `events.yaml`, so that what cannot work fails before it runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from decision.policy import Policy
from decision.schema import Value
from online.errors import OnlineStoreError
from server.errors import Problem
from server.repo import Repo
from streaming.advance import ViewValues
from streaming.errors import StreamingError, TransformError
from streaming.events import EventRecord, Events, EventSchema, PropertySchema
from streaming.frame import events_frame
from streaming.plan import SourceEvents, StreamPlan, ViewPlan
from streaming.windows.errors import PlanError
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState
from streaming.windows.stream import apply

SAMPLE_US = 1_700_000_000_000_000
_SAMPLES: dict[str, Value] = {"string": "1", "int64": 1, "double": 1.0, "bool": True, "timestamp": SAMPLE_US}


def stream_problems(repo: Repo, policy: Policy) -> list[Problem]:
    """What keeps the repo's stream views from being fed; empty where nothing does."""
    problems = list(_window_problems(repo))
    if problems:
        return problems
    try:
        plan = StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer)
    except (StreamingError, OnlineStoreError) as error:
        return [Problem(message=str(error))]
    events = list(sample_events(repo.events))
    return [
        problem
        for kind in plan.kinds
        for view_plan in kind.views
        for problem in _feed_problems(view_plan, events, repo.events)
    ]


def sample_events(schema: EventSchema) -> Iterator[EventRecord]:
    """Two valid events of each type: one with every property, one with the required ones alone."""
    for number, (name, event_type) in enumerate(schema.types.items()):
        full = {key: _sample(declared) for key, declared in event_type.properties.items()}
        required = {key: value for key, value in full.items() if event_type.properties[key].required}
        for place, properties in enumerate((full, required)):
            yield EventRecord(f"sample-{number}-{place}", name, "1", SAMPLE_US + number, properties)


def _sample(declared: PropertySchema) -> Value:
    if declared.allowed:
        return declared.allowed[0]
    value = _SAMPLES[declared.type]
    if declared.type in {"int64", "double"}:
        low = declared.minimum if declared.minimum is not None else value
        high = declared.maximum if declared.maximum is not None else max(low, value)  # type: ignore[type-var]
        within = min(max(low, value), high)  # type: ignore[type-var]
        return int(within) if declared.type == "int64" else float(within)  # type: ignore[arg-type]
    return value


def _window_problems(repo: Repo) -> Iterator[Problem]:
    for view in repo.catalog.views:
        if not view.stream or not view.aggregations:
            continue
        try:
            WindowPlan.compile(view)
        except PlanError as error:
            yield from (Problem(message=f"view {view.name}: {problem}") for problem in error.problems)


def _feed_problems(plan: ViewPlan, events: list[EventRecord], schema: EventSchema) -> Iterator[Problem]:
    """Feed a view with each event by itself and with all of them, and encode what comes out."""
    tries = [(f"a made-up event of type {event.event_type!r}", [event]) for event in events]
    for what, batch in (*tries, ("one made-up event of each type together", events)):
        try:
            _feed(plan, batch, schema)
        except (StreamingError, OnlineStoreError) as error:
            place = "" if isinstance(error, TransformError) else f"view {plan.view.name}: "
            yield Problem(message=f"{place}{error} (tried on {what})")
            return


def _feed(plan: ViewPlan, events: list[EventRecord], schema: EventSchema) -> None:
    rows = plan.rows(
        plan.transformed(SourceEvents.of(events_frame(Events.of(events), schema.property_types)))
    )
    if plan.windows is None or not len(rows.codes):
        return
    states = [TileState.empty(plan.windows)] * len(rows.keys)
    batch = rows.batch(rows.codes, plan.windows)
    applied = apply(plan.windows, states, batch, int(np.max(batch.event_us)))
    ViewValues.of(plan, np.arange(len(states)), applied.columns, applied.value_us)
