"""Rows of a backfill that wait on disk come back as they were."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Value, View
from streaming.feeds import Feed, Numbers, prepared_rows, window_rows
from streaming.windows.inputs import Prepared, prepared
from streaming.windows.plan import WindowPlan
from streaming.windows.sweep import sweep, sweep_chunks
from tests.property.test_windows_oracle import (
    HOP_US,
    History,
    as_batch,
    histories,
    plan_of,
    sweep_rows,
    views,
)

KEYS = [b"a", b"bcd", b""]
UNTIL_US = 90 * HOP_US
Rows = list[tuple[bytes, int, dict[str, Value]]]


def _read(feed: Feed, part: int, numbers: Numbers, plan: WindowPlan) -> Prepared:
    pieces = list(feed.read(part))
    entity = np.concatenate([numbers.of(keys)[codes] for keys, codes, _ in pieces])
    return prepared_rows(plan, entity, [rows for _, _, rows in pieces])


@settings(max_examples=100, deadline=None)
@given(views(), histories, st.integers(1, 14), st.integers(1, 5), st.integers(1, 4))
def test_rows_on_disk_come_back_part_by_part_and_slice_by_slice(
    view: View, history: History, size: int, part_count: int, slice_count: int
) -> None:
    """Whatever columns a view has: an entity's rows are in one part, as they were, and slices follow each other."""
    plan = plan_of(view)
    swept = sweep(plan, as_batch(plan, history), len(KEYS), UNTIL_US)
    expected = [(KEYS[entity], at_us, values) for entity, at_us, _, values in sweep_rows(swept)]
    found: Rows = []
    with TemporaryDirectory() as folder:
        feed = Feed(Path(folder), part_count)
        for at in range(0, len(history), size):
            rows = prepared(plan, as_batch(plan, history[at : at + size]))
            own, codes = np.unique(rows.entity, return_inverse=True)
            feed.add([KEYS[entity] for entity in own.tolist()], codes, window_rows(plan, rows))
        for part in (part for part in range(part_count) if feed.row_count(part)):
            numbers = Numbers()
            whole = _read(feed, part, numbers, plan)
            assert len(whole) == feed.row_count(part)
            for chunk in sweep_chunks(plan, whole, len(numbers), UNTIL_US):
                found += [(numbers.keys[own], at_us, values) for own, at_us, _, values in sweep_rows(chunk)]
            edges = feed.edges(part, slice_count)
            sliced = feed.sliced(part, edges)
            slices = [
                _read(sliced, number, numbers, plan)
                for number in range(len(edges) + 1)
                if sliced.row_count(number)
            ]
            assert sum(map(len, slices)) == len(whole)
            bounds = [
                0,
                *np.searchsorted(edges, [times.event_us[0] for times in slices], side="right").tolist(),
            ]
            assert bounds == sorted(bounds)
            for rows, number in zip(slices, bounds[1:], strict=True):
                assert set(np.searchsorted(edges, rows.event_us, side="right").tolist()) == {number}
            sliced.close()
        feed.close()
    assert repr(sorted(found, key=lambda row: row[:2])) == repr(sorted(expected, key=lambda row: row[:2]))
