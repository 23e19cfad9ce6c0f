"""The archive on its own: what is read back, whatever owners left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from streaming.archive import Archive, archived_events, erase_archived, read_live, read_put_aside
from streaming.events import EventRecord, Events
from streaming.log import Records


def _records(positions: list[int]) -> Records:
    events = [EventRecord(f"e{at}", "buy", f"c{at % 3}", at, {"note": "c1"}) for at in positions]
    times = np.array(positions, dtype=np.int64)
    return Records(times, times * 10, times, Events.of(events), np.arange(len(positions)))


def _write(folder: Path, after: int, positions: list[int], fence: int) -> None:
    archive = Archive(folder, 0)
    archive.extend(_records(positions), np.arange(len(positions)))
    archive.write(archive.take(), after, fence)


def _positions(folder: Path, after: int = 0, until: int = 1_000) -> list[int]:
    tables = list(read_live(folder, 0, after, until))
    return pa.concat_tables(tables)["position"].to_pylist() if tables else []


def test_what_is_read_lies_between_two_positions(tmp_path: Path) -> None:
    _write(tmp_path, 0, [1, 2, 5], 1)
    _write(tmp_path, 5, [6, 9], 1)
    _write(tmp_path, 9, [10], 1)
    assert _positions(tmp_path) == [1, 2, 5, 6, 9, 10]
    assert _positions(tmp_path, after=2, until=9) == [5, 6, 9]
    assert _positions(tmp_path, after=10) == []


def test_what_was_put_aside_lies_beside_what_counted_with_its_reason(tmp_path: Path) -> None:
    archive, records = Archive(tmp_path, 0), _records([1, 2, 3, 4])
    archive.extend(records, np.array([0, 3]))
    archive.extend(records, np.array([1]), "LATE")
    archive.write(archive.take(), 0, 1)
    assert _positions(tmp_path) == [1, 4]
    (path,) = tmp_path.iterdir()
    assert pq.read_table(path)["position"].to_pylist() == [1, 2, 4]
    (aside,) = read_put_aside(tmp_path, 0, 0, 1_000)
    assert [(row["position"], row["reason"]) for row in aside.to_pylist()] == [(2, "LATE")]


def test_parts_from_before_there_were_reasons_are_read(tmp_path: Path) -> None:
    _write(tmp_path, 0, [1, 2], 1)
    (path,) = tmp_path.iterdir()
    pq.write_table(pq.read_table(path).drop_columns("reason"), path)
    _write(tmp_path, 2, [3], 1)
    assert _positions(tmp_path) == [1, 2, 3]
    assert erase_archived(tmp_path, "c1", apply=True) == 1
    assert [row["event"] is None for table in read_live(tmp_path, 0, 0, 3) for row in table.to_pylist()] == [
        True,
        False,
        False,
    ]


def test_the_part_of_the_later_owner_holds(tmp_path: Path) -> None:
    """One that was frozen in the moment of its rename leaves its part beside that of the owner after it."""
    _write(tmp_path, 0, [1, 2, 3, 4], 12)
    _write(tmp_path, 0, [1, 2], 7)
    assert len(list(tmp_path.iterdir())) == 2
    assert _positions(tmp_path) == [1, 2, 3, 4]
    _write(tmp_path, 0, [1, 2, 3], 13)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_part_ends_where_the_next_begins(tmp_path: Path) -> None:
    """An owner that took over moved the checkpoint to 1, past nothing that counts, before it wrote a part."""
    _write(tmp_path, 0, [2, 3], 1)
    _write(tmp_path, 1, [2, 3, 4], 2)
    assert _positions(tmp_path) == [2, 3, 4]


def test_what_an_emptied_store_left_is_set_aside(tmp_path: Path) -> None:
    """Its parts are not of this store's events, whatever their names; an erasure reaches them all the same."""
    _write(tmp_path, 0, [1, 2, 3], 5)
    _write(tmp_path, 3, [4, 5], 5)
    Archive(tmp_path, 0).start(0)
    assert _positions(tmp_path) == []
    _write(tmp_path, 0, [7], 1)
    assert _positions(tmp_path) == [7]
    assert erase_archived(tmp_path, "c1", apply=True) == 3
    assert erase_archived(tmp_path, "c1", apply=False) == 0


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.randoms())
def test_owners_that_die_anywhere_leave_each_event_once(ends: list[int], rng: object) -> None:
    """Each owner writes from the checkpoint on and dies before or after it has moved that."""
    import random
    import tempfile

    assert isinstance(rng, random.Random)
    counted = [position for position in range(1, 31) if position % 4]
    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name), 0
        for fence, end in enumerate([*ends, 30], start=1):
            if end <= checkpoint:
                continue
            _write(folder, checkpoint, [at for at in counted if checkpoint < at <= end], fence)
            if rng.random() < 0.5 or fence > len(ends):
                checkpoint = end
        assert _positions(folder, until=checkpoint) == [at for at in counted if at <= checkpoint]


def test_an_erased_customer_leaves_positions_alone(tmp_path: Path) -> None:
    """The id in another place of an event is no reason to blank it."""
    _write(tmp_path, 0, [1, 2, 3, 4], 1)
    assert erase_archived(tmp_path, "c1", apply=False) == 2
    assert erase_archived(tmp_path, "c1", apply=True) == 2
    assert erase_archived(tmp_path, "c1", apply=True) == 0
    (table,) = read_live(tmp_path, 0, 0, 10)
    assert table["position"].to_pylist() == [1, 2, 3, 4]
    assert [EventRecord.from_bytes(text).customer_id for text in archived_events(table)] == ["c2", "c0"]
