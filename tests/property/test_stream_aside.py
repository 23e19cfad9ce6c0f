"""Finding what is refused among what is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from streaming.aside import MAX_DETAIL_CHARS, letter, refused
from streaming.errors import TransformError
from streaming.events import EventRecord, Events
from streaming.log import Records
from streaming.reasons import NOT_APPLICABLE


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


@given(st.text(st.characters(), max_size=2 * MAX_DETAIL_CHARS))
def test_the_detail_of_a_letter_is_short_and_can_be_written(detail: str) -> None:
    """A function may raise whatever it likes, half a character among it."""
    nothing = np.zeros(1, dtype=np.int64)
    records = Records(nothing, nothing, nothing, Events.of([EventRecord("e", "t", "c", 0, {})]), nothing)
    said = letter(records, 0, NOT_APPLICABLE, detail).detail
    assert len(said) <= MAX_DETAIL_CHARS
    assert said.encode().decode() == said
