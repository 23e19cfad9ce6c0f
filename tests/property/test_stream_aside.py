"""Finding what is refused among what is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from streaming.aside import around, refused
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
            raise TransformError("refused")

    found = list(refused(attempt, np.arange(count)))
    assert found == sorted(number for number in bad if number < count)
    assert len(attempts) <= 1 + 2 * 6 * len(found)


@given(st.lists(st.booleans(), max_size=20), st.data())
def test_records_are_cut_around_events(has_event: list[bool], data: st.DataObject) -> None:
    """The pieces are all records in order; each of the events is alone in its own."""
    count, rows = len(has_event), np.flatnonzero(np.array(has_event, dtype=bool))
    events = Events.of([EventRecord(f"e{row}", "t", "c", 0, {}) for row in rows.tolist()])
    numbers = np.arange(count, dtype=np.int64)
    records = Records(numbers, numbers, numbers, events, rows)
    chosen = [number for number in range(len(rows)) if data.draw(st.booleans())]
    pieces = around(records, chosen)
    assert [int(place) for piece in pieces for place in piece.positions] == list(range(count))
    assert [event for piece in pieces for event in piece.events.event_ids] == list(events.event_ids)
    alone = {piece.events.event_ids[0] for piece in pieces if len(piece) == 1 and len(piece.events)}
    assert {events.event_ids[number] for number in chosen} <= alone
