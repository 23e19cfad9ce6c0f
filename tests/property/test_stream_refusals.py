"""What views refuse, compared with what they say of each event alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.schema import Value
from streaming.aside import POISON
from streaming.events import EventRecord, Events
from streaming.frame import events_frame
from streaming.plan import SourceEvents, StreamPlan
from streaming.refusals import refusals
from streaming.windows.errors import ValueRefused
from streaming.windows.inputs import prepare
from tests.support.stream_world import SCHEMA, TRANSFORMS, World

IntArray = npt.NDArray[np.int64]
PARTS: list[dict[str, Value]] = [
    {"category": "tea", "amount": 2.0},
    {"category": "tea", "amount": 9.3e12},
    {"category": "two rows", "amount": 1.0},
    {"category": "two rows", "amount": 9.3e12},
    {"category": 5, "amount": 1.0},
    {"category": "boom", "amount": 1.0},
    {"category": "cut", "amount": 1.0},
]
EVENTS = st.lists(st.tuples(st.sampled_from(["buy", "look"]), st.sampled_from(PARTS)), max_size=12)


def _events(events: Events, rows: IntArray) -> SourceEvents:
    return SourceEvents.of(events_frame(events.take(rows), SCHEMA.property_types))


def _alone(plan: StreamPlan, events: Events, event: int) -> str:
    """Why an event is refused where it comes alone; nothing where it is not."""
    try:
        feeds = plan.rows(_events(events, np.array([event])))
        for view in (view for kind in plan.kinds for view in kind.views if view.windows is not None):
            assert view.windows is not None
            feed = feeds[view.view.name]
            try:
                prepare(view.windows, feed.batch(feed.codes, view.windows))
            except ValueRefused as error:
                return f"view {view.view.name}: {error.detail}"
    except POISON as error:
        return str(error)
    return ""


@given(EVENTS, st.data())
def test_refused_are_those_refused_alone(
    drawn: list[tuple[str, dict[str, Value]]], data: st.DataObject
) -> None:
    """By functions, keys or windows; of rows in any number an event; and why is said as of it alone."""
    buys = TRANSFORMS["spending"]

    def strange(frame: pd.DataFrame) -> pd.DataFrame:
        if (frame["category"] == "boom").any():
            raise ZeroDivisionError
        rows = buys(frame)
        rows = rows.assign(category=rows["category"].replace("cut", "\ud800"))
        return pd.concat([rows, rows.loc[rows["category"] == "two rows"]])

    with pytest.MonkeyPatch.context() as patch:
        views = data.draw(st.sampled_from([("demand",), ("spending", "demand", "taste")]))
        for view in views:
            patch.setitem(TRANSFORMS, view, strange)
        plan = World.create().plan
    events = Events.of(
        [EventRecord(f"e{n}", kind, f"c{n % 3}", n, part) for n, (kind, part) in enumerate(drawn)]
    )
    asked = [number for number in range(len(drawn)) if data.draw(st.booleans())]
    found = refusals(plan, partial(_events, events), np.array(asked, dtype=np.int64))
    alone = {event: _alone(plan, events, event) for event in asked}
    assert set(found) == {event for event, why in alone.items() if why}
    # Of several reasons, in views that do not share a function, another may come first.
    assert len(views) == 1 or all(alone[event] == why for event, why in found.items())
