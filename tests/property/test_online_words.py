"""Writes of many entities as words: runs, compared with what Python makes of each alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from online.words import joined, packed_runs, runs_of, word


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 4), st.data())
def test_runs_join_row_by_row(rows: int, parts: int, data: st.DataObject) -> None:
    """Runs of several parts follow each other in every row; a part may have none for some."""
    expected = [b""] * rows
    counts = [0] * rows
    given_parts = []
    for _ in range(parts):
        items = data.draw(
            st.lists(st.lists(st.binary(max_size=12), max_size=3), min_size=rows, max_size=rows)
        )
        given_parts.append(runs_of(items))
        for n in range(rows):
            expected[n] += b"".join(map(word, items[n]))
            counts[n] += len(items[n])
    made = joined(given_parts, rows)
    assert [made.row(n) for n in range(rows)] == expected
    assert made.sizes.tolist() == counts


def test_packed_runs_keep_their_counts() -> None:
    """What is words already is cut where the rows end."""
    runs = packed_runs([word(b"a") + word(b""), b"", word(b"b")], [2, 0, 1])
    assert [runs.row(n) for n in range(3)] == [b"$1\r\na\r\n$0\r\n\r\n", b"", b"$1\r\nb\r\n"]
    assert runs.sizes.tolist() == [2, 0, 1]
