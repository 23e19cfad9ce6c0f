"""The held-out weeks cut into steps: what is published in each, and which visits begin behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pandas as pd

from waypost.events.v1 import events_pb2

STEP: Final = timedelta(minutes=15)
STEP_US: Final = int(STEP / timedelta(microseconds=1))
BROWSE_MARGIN_US: Final = 1_000_000
_ENVELOPE: Final = ("event_id", "event_type", "customer_id", "event_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A customer's visit: from before the first derived event to the purchase.

    Attributes:
        starts_us: Before any event of the visit, so that a decision made then has seen none of it.
        paid_us: When the basket was bought.
        bought: Categories in the basket.
    """

    customer_id: str
    basket_id: str
    starts_us: int
    paid_us: int
    bought: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stretch of logical time.

    Attributes:
        starts_us: Its first instant; decisions about `visits` are made at it.
        ends_us: Its end; the clock moves here before `events` are published.
        visits: Visits that begin within the step.
        events: Events with times within the step, in order.
    """

    starts_us: int
    ends_us: int
    visits: tuple[Visit, ...]
    events: tuple[events_pb2.Event, ...]


def visits_of(events: pd.DataFrame) -> list[Visit]:
    """All visits of a frame of live events, by start."""
    frame = events.assign(basket=events["event_id"].str.split("-").str[0], at_us=_micros(events))
    visits = []
    for basket, rows in frame.groupby("basket", sort=False):
        bought = rows.loc[rows["event_type"] == "purchase"]
        categories = frozenset(bought["product_category"].dropna())
        if not categories:
            continue
        visits.append(
            Visit(
                customer_id=str(rows["customer_id"].iloc[0]),
                basket_id=str(basket),
                starts_us=int(rows["at_us"].min()) - BROWSE_MARGIN_US,
                paid_us=int(bought["at_us"].max()),
                bought=categories,
            )
        )
    return sorted(visits, key=lambda visit: (visit.starts_us, visit.basket_id))


def steps(events: pd.DataFrame, visits: list[Visit]) -> Iterator[Step]:
    """Cut time into steps of `STEP`; stretches in which nothing happens are left out."""
    at_us = _micros(events)
    event_steps = at_us // STEP_US
    visit_steps = np.array([visit.starts_us // STEP_US for visit in visits], dtype=np.int64)
    for number in np.union1d(event_steps, visit_steps).tolist():
        rows = events.iloc[
            np.searchsorted(event_steps, number) : np.searchsorted(event_steps, number, "right")
        ]
        first, last = np.searchsorted(visit_steps, number), np.searchsorted(visit_steps, number, "right")
        yield Step(
            starts_us=number * STEP_US,
            ends_us=(number + 1) * STEP_US,
            visits=tuple(visits[first:last]),
            events=tuple(messages(rows)),
        )


def messages(rows: pd.DataFrame) -> Iterator[events_pb2.Event]:
    """Rows of an events frame as messages, empty properties left out."""
    names = [name for name in rows.columns if name not in _ENVELOPE]
    for record in rows.to_dict("records"):
        event = events_pb2.Event(
            event_id=record["event_id"], event_type=record["event_type"], customer_id=record["customer_id"]
        )
        event.event_time.FromNanoseconds(record["event_time"].value)
        event.properties.update({name: _plain(record[name]) for name in names if not pd.isna(record[name])})
        yield event


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _micros(events: pd.DataFrame) -> np.ndarray:
    times = events["event_time"].dt.tz_convert("UTC").dt.tz_localize(None)
    micros: np.ndarray = times.to_numpy().astype("datetime64[us]").view(np.int64)
    return micros
