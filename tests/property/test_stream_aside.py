"""Finding what is refused among what is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from streaming.aside import refused, runs
from streaming.errors import TransformError
from streaming.events import EventRecord, Events
from streaming.log import Records


@given(st.integers(0, 60), st.data())
def test_the_refused_are_found_in_few_attempts(count: int, data: st.DataObject) -> None:
    """All of them and no others, in order, by at most two attempts a halving for each."""
    bad = set(data.draw(st.lists(st.integers(0, 59), max_size=5)))
    attempts: list[int] = []

    def attempt(rows: npt.NDArray[np.int64]) -> None:
        attempts.append(len(rows))
        if bad & set(rows.tolist()):
            raise TransformError(f"refused {sorted(bad & set(rows.tolist()))}")

    found = [(row, str(error)) for row, error in refused(attempt, np.arange(count))]
    assert found == [(number, f"refused [{number}]") for number in sorted(bad) if number < count]
    assert len(attempts) <= 1 + 2 * 6 * len(found)


@given(st.integers(1, 600), st.data())
def test_where_all_are_refused_each_takes_an_attempt(count: int, data: st.DataObject) -> None:
    """And a few halvings for all of them; so too where a share of neighbours is."""
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    attempts = 0

    def attempt(rows: npt.NDArray[np.int64]) -> None:
        nonlocal attempts
        attempts += 1
        if ((rows >= start) & (rows < stop)).any():
            raise TransformError("refused")

    assert [row for row, _ in refused(attempt, np.arange(count))] == list(range(start, stop))
    assert attempts <= stop - start + 30


@given(st.lists(st.booleans(), max_size=20), st.data())
def test_records_are_cut_into_runs(has_event: list[bool], data: st.DataObject) -> None:
    """The runs are all records in order; neighbours that have one of the events are in one, and are in it alone."""
    count, rows = len(has_event), np.flatnonzero(np.array(has_event, dtype=bool))
    events = Events.of([EventRecord(f"e{row}", "t", "c", 0, {}) for row in rows.tolist()])
    numbers = np.arange(count, dtype=np.int64)
    records = Records(numbers, numbers, numbers, events, rows)
    chosen = [number for number in range(len(rows)) if data.draw(st.booleans())]
    pieces = runs(records, set(chosen))
    assert [int(place) for piece, _ in pieces for place in piece.positions] == list(range(count))
    assert [event for piece, _ in pieces for event in piece.events.event_ids] == list(events.event_ids)
    assert [number for _, own in pieces for number in own] == chosen
    kinds = []
    for piece, own in pieces:
        assert not own or list(piece.events.event_ids) == [events.event_ids[number] for number in own]
        assert len(piece) == len(own) or not own
        kinds.append(bool(own))
    assert all(kinds[place] != kinds[place + 1] for place in range(len(kinds) - 1))
