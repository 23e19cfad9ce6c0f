"""What views refuse of events by themselves, whatever has come before: found without the store.

A function is asked for many events at once, and again for fewer only where it fails. Keys and windows are asked for
fewer of the rows that it made: a row depends on its event alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from streaming.aside import POISON, refused, why
from streaming.plan import SourceEvents, StreamPlan, Transform, Transformed, ViewPlan, ViewRows
from streaming.windows.inputs import prepare
from streaming.windows.plan import WindowPlan

IntArray = npt.NDArray[np.int64]
Source = Callable[[IntArray], SourceEvents]
"""Makes some events, by their numbers, into what functions take."""


def refusals(plan: StreamPlan, source: Source, events: IntArray) -> dict[int, str]:
    """Which events the functions, the join keys or the windows of views refuse, by number, and why.

    Args:
        plan: The views.
        source: Makes events into what their functions take.
        events: Numbers of those in question, ascending.
    """
    found: dict[int, str] = {}
    made = [_call(views, source, events, found) for views in _by_function(plan)]
    for call in made:
        if call is not None:
            found |= call.refused_by_windows(found)
    return found


def _by_function(plan: StreamPlan) -> list[list[ViewPlan]]:
    """Views that share a function are fed by one call of it."""
    views: dict[Transform | None, list[ViewPlan]] = {}
    for kind in plan.kinds:
        for view in kind.views:
            views.setdefault(view.transform, []).append(view)
    return list(views.values())


def _call(views: Sequence[ViewPlan], source: Source, events: IntArray, found: dict[int, str]) -> _Call | None:
    """Have the function of some views make rows of what it does not refuse; what it or the join keys do is noted."""
    function = views[0].transformed
    found |= _found(_without(events, found), lambda some: function(source(some)))
    events = _without(events, found)
    if not len(events):
        return None
    taken = source(events)
    try:
        made = function(taken)
    except POISON:
        return None  # only beside each other: whoever applies them will find out
    call = _Call(views, events, taken, made)
    for view in views:
        found |= _found(_without(events, found), partial(call.rows, view))
    return call


@dataclass(frozen=True, slots=True)
class _Call:
    """What a function made of events.

    Attributes:
        views: Those that share it.
        events: Numbers of the events, ascending.
        taken: What it was called with.
        made: What came of it.
    """

    views: Sequence[ViewPlan]
    events: IntArray
    taken: SourceEvents
    made: Transformed

    def rows(self, view: ViewPlan, events: IntArray) -> ViewRows:
        """A view's rows, as if the function had been asked for some of the events alone."""
        if len(events) == len(self.events):
            return view.rows(self.made)
        own, taken = self.events.searchsorted(events), self.taken
        (rows,) = np.isin(self.made.source, own).nonzero()
        frame = self.made.frame.take(rows)
        frame.index = pd.Index(own.searchsorted(self.made.source[rows]))
        ids, customers = taken.event_ids[own], taken.customer_ids[own]
        return view.rows(Transformed(SourceEvents(frame, ids, customers, taken.event_us[own]), frame))

    def refused_by_windows(self, found: dict[int, str]) -> dict[int, str]:
        """Events that windows refuse, but for those that are found already."""
        more: dict[int, str] = {}
        for view in self.views:
            if view.windows is not None:
                more |= self._refused_by(view, view.windows, _without(self.events, found | more))
        return more

    def _refused_by(self, view: ViewPlan, windows: WindowPlan, events: IntArray) -> dict[int, str]:
        try:
            feed = self.rows(view, events)
        except POISON:
            return {}  # as above

        def attempt(some: IntArray) -> None:
            prepare(windows, feed.batch(feed.codes[some], windows, some))

        found: dict[int, str] = {}
        for row, error in refused(attempt, np.arange(len(feed.codes))):
            said = f"view {view.view.name}: {why(error)}"
            found.setdefault(int(events[feed.source[row]]), said)
        return found


def _found(events: IntArray, attempt: Callable[[IntArray], object]) -> dict[int, str]:
    return {event: why(error) for event, error in refused(attempt, events)}


def _without(events: IntArray, found: dict[int, str]) -> IntArray:
    return events[np.isin(events, list(found), invert=True)] if found else events
