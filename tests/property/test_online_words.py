"""Writes of many entities as words: keys, heads and runs, compared with what Python makes of each alone."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from online.keys import state_key
from online.words import joined, packed_heads, packed_keys, packed_runs, runs_of, word

KEYS = st.binary(max_size=40) | st.lists(st.sampled_from([b"{", b"}", b"a", b"bc"]), max_size=9).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(KEYS, max_size=6))
def test_keys_are_followed_by_those_of_their_states(keys: list[bytes]) -> None:
    """Whatever braces a key holds, its state is in the same slot under the key that Python finds."""
    data, places = packed_keys(keys)
    text = data.tobytes()
    assert text == b"".join(word(key) + word(state_key(key)) for key in keys)
    for key, (first, second, stop) in zip(keys, places.tolist(), strict=True):
        assert text[first:second] == word(key)
        assert text[second:stop] == word(state_key(key))


@given(st.lists(st.integers(0, 2**62), max_size=6))
def test_heads_hold_the_next_revision(revisions: list[int]) -> None:
    """A head, the revision that is expected and the one that follows."""
    heads = [struct.pack("<I", number) for number in range(len(revisions))]
    table = np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(-1, 4)
    made = packed_heads(table, np.array(revisions, dtype=np.int64))
    for number, (head, revision) in enumerate(zip(heads, revisions, strict=True)):
        assert made.row(number) == word(head) + word(b"%d" % revision) + word(b"%d" % (revision + 1))


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 4), st.data())
def test_runs_join_row_by_row(rows: int, parts: int, data: st.DataObject) -> None:
    """Runs of several parts follow each other in every row; a part may leave rows out."""
    expected = [b""] * rows
    counts = [0] * rows
    given_parts = []
    for _ in range(parts):
        items = data.draw(
            st.lists(st.lists(st.binary(max_size=12), max_size=3), min_size=rows, max_size=rows)
        )
        own = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=np.bool_)
        given_parts.append(runs_of(items).spread(np.where(own, np.arange(rows), -1), rows))
        for n in np.flatnonzero(own).tolist():
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
