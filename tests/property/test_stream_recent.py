"""Recent event ids, compared with a dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import recent
from streaming.recent import CROWDED, NEW, REPEATED, SAME, RecentIds, id_hashes

HASHES = st.integers(-8, 8) | st.sampled_from([2**63 - 1, -(2**63)])
NOTES = st.lists(st.tuples(st.integers(0, 3), HASHES, st.integers(0, 5)), max_size=40)


def _note(ids: RecentIds, notes: list[tuple[int, int, int]]) -> list[int]:
    columns = [np.array([note[place] for note in notes], dtype=np.int64) for place in range(3)]
    marks: list[int] = ids.note(*columns).tolist()
    return marks


def _note_alone(ids: RecentIds, notes: list[tuple[int, int, int]]) -> list[int]:
    return [ids.note_one(*note) for note in notes]


@settings(deadline=None)
@given(
    st.lists(st.tuples(NOTES, st.none() | st.integers(0, 4), st.booleans(), st.booleans()), max_size=6),
    st.integers(1, 30),
)
def test_recent_ids_are_those_of_a_dict(
    rounds: list[tuple[list[tuple[int, int, int]], int | None, bool, bool]], most: int
) -> None:
    """Ids are known by the position that first brought them, until their bucket goes, and after a reload too."""
    ids, known, stored = RecentIds(), dict[int, tuple[int, int]](), dict[bytes, bytes]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recent, "MAX_RECENT_IDS", most)
        patched.setattr(recent, "CHUNK_BYTES", 48)
        for notes, forgotten, reloaded, alone in rounds:
            expected = []
            for bucket, hashed, position in notes:
                if hashed in known:
                    expected.append(SAME if known[hashed][0] == position else REPEATED)
                elif len(known) >= most:
                    expected.append(CROWDED)
                else:
                    known[hashed] = position, bucket
                    expected.append(NEW)
            for note, mark in zip(notes[:1], expected, strict=False):
                assert ids.look_up(*note[1:]) == mark
            assert (_note_alone if alone else _note)(ids, notes) == expected
            if forgotten is not None:
                ids.forget(forgotten)
                known = {h: entry for h, entry in known.items() if entry[1] >= forgotten}
            assert len(ids) == len(known)
            changed, dropped = ids.take_changes()
            assert not any(name in changed for name in dropped)
            stored |= changed
            stored = {name: data for name, data in stored.items() if name not in dropped}
            assert ids.take_changes() == ({}, [])
            if reloaded:
                ids = RecentIds()
                ids.load(dict(reversed(stored.items())))


def test_ids_are_told_apart_by_their_text() -> None:
    """Hashes are those of the UTF-8 bytes, 64 bits, signed."""
    hashes = id_hashes(["a", "b", "a", "ö"])
    assert hashes.dtype == np.int64
    assert hashes[0] == hashes[2]
    assert len(set(hashes.tolist())) == 3
