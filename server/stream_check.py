"""Tries a repo's stream views on events made up from `events.yaml`, so that what cannot work fails before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from decision.policy import Policy
from decision.schema import Catalog, Value, View
from online.errors import OnlineStoreError
from online.keys import US_PER_SECOND
from server.errors import Problem
from server.repo import Repo, locate
from streaming.advance import ViewValues
from streaming.errors import NoCustomerView, StreamingError, TransformError
from streaming.events import EventRecord, Events, EventSchema, PropertySchema
from streaming.frame import events_frame
from streaming.plan import SourceEvents, StreamPlan, ViewPlan
from streaming.sink import unlogged
from streaming.windows.errors import PlanError
from streaming.windows.plan import WindowPlan
from streaming.windows.state import TileState
from streaming.windows.stream import apply

Row = tuple[bytes, dict[str, Any]]

VARIED_TURNS = 4
MANY_TURNS = 60
"""Enough for functions to show themselves that keep a number of rows, or that renumber those with large values."""
MOST_DECADES = 6
ALONE, PARTED, TURNED = "by itself", "among fewer others", "when the events come in another order"
SHOWN = 120
SAMPLE_US = 1_700_000_000_000_000
_SAMPLES: dict[str, Value] = {"string": "1", "int64": 1, "double": 1.0, "bool": True, "timestamp": SAMPLE_US}


def stream_problems(repo: Repo, policy: Policy) -> list[Problem]:
    """What keeps the repo's stream views from being fed; empty where nothing does, or nothing is to feed them."""
    problems = list(_window_problems(repo))
    if problems:
        return problems
    try:
        plan = StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer)
    except NoCustomerView:
        return []
    except (StreamingError, OnlineStoreError) as error:
        return [Problem(message=str(error))]
    events, varied = list(sample_events(repo.events)), _Varied.of(repo.events)
    problems = [problem for view, problem in _unlogged(repo, plan) if not _is_only_pushed(repo, view)]
    for view_plan in (view_plan for kind in plan.kinds for view_plan in kind.views):
        if _is_only_pushed(repo, view_plan.view):
            continue
        found = list(_feed_problems(view_plan, events, repo.events))
        problems += found or _row_problems(view_plan, varied, repo.events)
    return problems


def stream_warnings(repo: Repo, policy: Policy) -> list[Problem]:
    """Stream views that are served, but that events bring nothing."""
    try:
        plan = StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer)
    except NoCustomerView as error:
        return [_unfed(error, repo)] if stream_views(repo.catalog) else []
    except (StreamingError, OnlineStoreError):  # a problem, and told as one
        return []
    pushed = [problem for view, problem in _unlogged(repo, plan) if _is_only_pushed(repo, view)]
    return pushed + [
        Problem(
            message=f"view {view.name} has no function, and events have no properties: they bring it nothing and would "
            "be put aside if they came; its rows are pushed or materialized by Feast"
        )
        for view in stream_views(repo.catalog)
        if _is_only_pushed(repo, view)
    ]


def stream_views(catalog: Catalog) -> list[View]:
    """The views that are there for events to feed."""
    return [view for view in catalog.views if view.stream and view.tag("waypost.role") != "segments"]


def _unfed(error: NoCustomerView, repo: Repo) -> Problem:
    names = ", ".join(view.name for view in stream_views(repo.catalog))
    return Problem(
        message=f"{error} if events are to count: they bring {names} nothing, and `waypost materializer` does not start"
    )


def _is_only_pushed(repo: Repo, view: View) -> bool:
    """Whether events have nothing that the view could take as it is."""
    return not repo.events.has_properties and view.name not in repo.transforms


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


class _Varied(NamedTuple):
    """Events of each type, of several customers and instants, whose values differ and are left out by turns.

    Attributes:
        few: Values close to the samples'.
        many: As few, but more.
        wild: As many, of values of all sizes.
    """

    few: list[EventRecord]
    many: list[EventRecord]
    wild: list[EventRecord]

    @staticmethod
    def of(schema: EventSchema) -> _Varied:
        """Make them up."""
        samples = list(sample_events(schema))

        def made(decades: int) -> list[EventRecord]:
            return [
                EventRecord(
                    f"varied-{turn}-{place}",
                    sample.event_type,
                    str(1 + (turn + place) % 2),
                    sample.event_us + turn * US_PER_SECOND,
                    {
                        name: _other(
                            schema.types[sample.event_type].properties[name],
                            value,
                            turn,
                            (len(samples) * turn + place) * 10 ** (turn // VARIED_TURNS % decades),
                        )
                        for name, value in sample.properties.items()
                    },
                )
                for turn in range(MANY_TURNS)
                for place, sample in enumerate(samples)
            ]

        many = made(1)
        return _Varied(many[: VARIED_TURNS * len(samples)], many, made(MOST_DECADES))


def _other(declared: PropertySchema, value: Value, turn: int, step: int) -> Value:
    """Another value of a property for a turn, a number by so many halves larger, within what is declared."""
    if declared.allowed:
        return declared.allowed[turn % len(declared.allowed)]
    if declared.type == "bool":
        return turn % 2 == 0
    if declared.type == "string":
        return str(1 + turn % 3)
    if declared.type == "timestamp":
        return SAMPLE_US + turn * US_PER_SECOND
    more: Any = value + (step if declared.type == "int64" else step * 0.5)  # type: ignore[operator]
    return value if declared.maximum is not None and more > declared.maximum else more


def _window_problems(repo: Repo) -> Iterator[Problem]:
    for view in repo.catalog.views:
        if not view.stream or not view.aggregations:
            continue
        try:
            WindowPlan.compile(view)
        except PlanError as error:
            yield from (Problem(message=f"view {view.name}: {problem}") for problem in error.problems)


def _unlogged(repo: Repo, plan: StreamPlan) -> Iterator[tuple[View, Problem]]:
    """Views whose batch source is nothing that values can be logged in, with what it must be."""
    for view, message in unlogged(plan.shown).items():
        file, line = locate(repo.path, view)
        said = f"{message}; until then `waypost materializer` does not start"
        yield repo.catalog.view_by_name[view], Problem(message=said, file=file, line=line)


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


def _row_problems(plan: ViewPlan, varied: _Varied, schema: EventSchema) -> Iterator[Problem]:
    """Whether an event becomes the same rows by itself, among few others, among many, and in another order."""
    few = varied.few
    made = partial(_rows_by_event, plan, schema)
    try:
        alone = [rows for event in few for rows in made([event])]
        problem = _difference(plan, few, made(few), {ALONE: alone, TURNED: made(few[::-1])[::-1]})
    except (StreamingError, OnlineStoreError) as error:
        problem = Problem(message=f"view {plan.view.name}: {error} (tried on made-up events)")
    for many in (varied.wild, varied.many):
        half = len(many) // 2
        # A function may refuse values beyond those that it is for.
        with suppress(StreamingError, OnlineStoreError):
            if problem is None:
                parted = made(many[:half]) + made(many[half:])
                problem = _difference(
                    plan, many, made(many), {PARTED: parted, TURNED: made(many[::-1])[::-1]}
                )
    if problem is not None:
        yield problem


def _difference(
    plan: ViewPlan,
    events: Sequence[EventRecord],
    together: Sequence[list[Row]],
    others: Mapping[str, Sequence[list[Row]]],
) -> Problem | None:
    """An event that becomes other rows than it does together with all, by how it was tried."""
    for how, rows in others.items():
        for event, expected, found in zip(events, together, rows, strict=True):
            if found != expected:
                return Problem(
                    message=f"view {plan.view.name}: its function makes other rows of an event {how}: write it so that "
                    f"each row depends on its own event alone (tried on made-up events; one of type "
                    f"{event.event_type!r} became {_shown(found)} instead of {_shown(expected)})"
                )
    return None


def _rows_by_event(plan: ViewPlan, schema: EventSchema, events: list[EventRecord]) -> list[list[Row]]:
    """What a view makes of each event: entity keys and cells."""
    made = plan.transformed(SourceEvents.of(events_frame(Events.of(events), schema.property_types)))
    rows = plan.rows(made)
    own = range(len(rows.codes)) if rows.rows is None else rows.rows.tolist()
    columns = [made.column(name) for name in plan.columns]
    found: list[list[Row]] = [[] for _ in events]
    for number, code, source in zip(own, rows.codes.tolist(), rows.source.tolist(), strict=True):
        cells = {name: _cell(column[number]) for name, column in zip(plan.columns, columns, strict=True)}
        found[source].append((rows.keys[code], cells))
    return found


def _cell(value: Any) -> Any:
    """A cell, the same whatever dtype its column has: pandas turns integers beside nothing into floats."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_cell(item) for item in value]
    if pd.isna(value):
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    return pd.Timestamp(value).isoformat() if isinstance(value, datetime | np.datetime64) else plain


def _shown(rows: list[Row]) -> str:
    text = ", ".join(str(cells) for _, cells in rows) or "no row"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
