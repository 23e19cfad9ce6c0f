"""Merging the archive's parts: each event is read once at every instant, wherever a merge is cut off."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streaming.archive
import streaming.merging
import streaming.sink
from streaming.archive import Archive, erase_archived, live_parts, read_live
from streaming.errors import LeaseLost, StreamingError
from streaming.events import EventRecord, Events
from streaming.file_locks import lock_parts
from streaming.log import Records
from streaming.merging import PARTS_MIN, merge_parts

ALL = 10**9


def write(folder: Path, positions: list[int], fence: int = 1) -> None:
    """A part of these positions, behind a checkpoint just before them."""
    events = [EventRecord(f"e{at}", "buy", f"c{at % 3}", at, {"note": "c1"}) for at in positions]
    times = np.array(positions, dtype=np.int64)
    archive = Archive(folder, 0)
    records = Records(times, times * 10, times, Events.of(events), np.arange(len(positions)))
    archive.extend(records, np.arange(len(positions)))
    archive.write(archive.take(), positions[0] - 1, fence)


def fill(folder: Path, parts: int, rng: random.Random) -> list[int]:
    """Parts of a few positions each, some of them written by two owners; returns what was written."""
    positions: list[int] = []
    at = 1
    for _ in range(parts):
        own = list(range(at, at + rng.randrange(1, 5)))
        if rng.random() < 0.2:
            write(folder, own[:1], fence=1)
        write(folder, own, fence=2)
        positions += own
        at = own[-1] + rng.randrange(1, 3)
    return positions


def read(folder: Path, after: int = 0) -> list[int]:
    """Positions as a build of views reads them."""
    return [at for table in read_live(folder, 0, after, ALL) for at in table["position"].to_pylist()]


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def observed(act: Callable[[], None]) -> Iterator[None]:
    """Do something before every change that a merge makes to the folder, and amid the writing of its part."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (Path, "replace"),
            (Path, "unlink"),
            (streaming.sink, "sync"),
            (pq.ParquetWriter, "write_table"),
            (pq.ParquetWriter, "close"),
        ):
            original = getattr(owner, name)

            def step(*args: object, original: Callable[..., object] = original, **kwargs: object) -> object:
                act()
                return original(*args, **kwargs)

            patch.setattr(owner, name, step)
        yield


@pytest.mark.parametrize("seed", range(2))
def test_a_merge_killed_at_any_step_leaves_each_event_once(tmp_path: Path, seed: int) -> None:
    """Dead from the n-th change to the folder on, for every n; the next merge finishes and leaves nothing behind."""
    written = fill(tmp_path / "filled", PARTS_MIN + 4, random.Random(seed))
    for dies_at in count():
        folder, steps = tmp_path / str(dies_at), count()
        shutil.copytree(tmp_path / "filled", folder)

        def act(steps: Iterator[int] = steps, dies_at: int = dies_at) -> None:
            if next(steps) >= dies_at:
                raise Killed

        try:
            with observed(act):
                merged = merge_parts(folder, 0)
        except Killed:
            merged = 0
        assert read(folder) == written
        assert read(folder, after=written[10]) == written[11:]
        if merged:
            break
        Archive(folder, 0).start(position=1)
        assert not list(folder.glob(".*.tmp"))
        assert read(folder) == written
        merge_parts(folder, 0)
        assert read(folder) == written
        assert len(list(folder.glob("*.parquet"))) < 5
    assert dies_at > PARTS_MIN + 4


@pytest.mark.parametrize("seed", range(3))
def test_each_event_is_read_once_at_every_step_of_a_merge(tmp_path: Path, seed: int) -> None:
    written = fill(tmp_path, 3 * PARTS_MIN, random.Random(seed))
    seen = []
    with observed(lambda: seen.append(read(tmp_path))):
        while merge_parts(tmp_path, 0):
            pass
    assert len(seen) > 3 * PARTS_MIN
    assert all(positions == written for positions in seen)


def test_a_reader_that_has_listed_parts_goes_on_when_they_are_merged(tmp_path: Path) -> None:
    """Between any two of its tables everything behind is merged."""
    written = fill(tmp_path, PARTS_MIN + 2, random.Random(4))
    found = []
    for table in read_live(tmp_path, 0, 0, ALL):
        found += table["position"].to_pylist()
        merge_parts(tmp_path, 0)
    assert found == written


def test_readers_beside_a_writer_and_mergers_read_each_event_once(tmp_path: Path) -> None:
    """Threads that merge as fast as they can; what was written before a reading began is all there, in order."""
    positions: list[int] = []
    over = threading.Event()

    def merge() -> None:
        while not over.is_set():
            merge_parts(tmp_path, 0)

    mergers = [threading.Thread(target=merge) for _ in range(2)]
    for merger in mergers:
        merger.start()
    try:
        for at in range(1, 80):
            write(tmp_path, [at])
            positions.append(at)
            if at % 5 == 0:
                assert read(tmp_path) == positions
    finally:
        over.set()
        for merger in mergers:
            merger.join()
    assert read(tmp_path) == positions


def test_few_parts_stay_and_events_are_copied_few_times(tmp_path: Path) -> None:
    """Fewer than 16 of each tier and the last; each event is copied once a tier."""
    parts, copied = PARTS_MIN**2 + 2 * PARTS_MIN, 0
    original = pq.ParquetWriter.write_table

    def write_table(writer: pq.ParquetWriter, table: pa.Table, *args: object) -> None:
        nonlocal copied
        copied += len(table)
        original(writer, table, *args)

    for at in range(1, parts + 1):
        write(tmp_path, [at])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pq.ParquetWriter, "write_table", write_table)
            while merge_parts(tmp_path, 0):
                pass
        assert len(live_parts(tmp_path, 0)) <= 2 * PARTS_MIN + 2
    assert read(tmp_path) == list(range(1, parts + 1))
    assert copied <= 2 * parts


def test_an_erasure_reaches_what_is_merged(tmp_path: Path) -> None:
    """In merged parts, in those that a killed merge left behind, and counted once."""
    written = fill(tmp_path, PARTS_MIN + 4, random.Random(5))
    with pytest.raises(Killed), observed(_die_once_merged(tmp_path)):
        merge_parts(tmp_path, 0)
    assert list(tmp_path.glob("merged-*.parquet"))
    assert len(list(tmp_path.glob("live-*.parquet"))) > PARTS_MIN
    own = sum(at % 3 == 1 for at in written)
    assert erase_archived(tmp_path, "c1", apply=False) == own
    assert erase_archived(tmp_path, "c1", apply=True) == own
    for path in tmp_path.glob("*.parquet"):
        assert not any(
            text and text.split(b",")[2] == b'"c1"' for text in pq.read_table(path)["event"].to_pylist()
        )
    merge_parts(tmp_path, 0)
    assert read(tmp_path) == written
    assert erase_archived(tmp_path, "c1", apply=True) == 0


def _die_once_merged(folder: Path) -> Callable[[], None]:
    def act() -> None:
        if list(folder.glob("merged-*.parquet")):
            raise Killed

    return act


def test_merges_and_erasures_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy begun before an erasure must not come into place behind it."""
    fill(tmp_path, PARTS_MIN + 4, random.Random(6))
    monkeypatch.setattr(streaming.file_locks, "LOCK_WAIT_S", 0.0)
    with lock_parts(tmp_path) as locked:
        assert locked
        assert merge_parts(tmp_path, 0) == 0
        with pytest.raises(StreamingError, match="stands still"):
            erase_archived(tmp_path, "c1", apply=True)
    assert erase_archived(tmp_path, "c1", apply=True)
    assert merge_parts(tmp_path, 0)


def test_an_owner_removes_what_was_left_half_written_of_its_partition(tmp_path: Path) -> None:
    """And nothing of another partition, which may be being written now."""
    for name in ("live-0-5-1", "merged-0-5-9", "live-1-5-1", "live-01-5-1"):
        (tmp_path / f".{name}.77.tmp").write_bytes(b"half")
    Archive(tmp_path, 0).start(position=5)
    left = sorted(path.name for path in tmp_path.glob(".*.tmp"))
    assert left == [".live-01-5-1.77.tmp", ".live-1-5-1.77.tmp"]


def test_what_is_being_merged_now_is_left_to_who_does_it(tmp_path: Path) -> None:
    """An owner that comes while a process that had the partition merges its parts."""
    unfinished = tmp_path / ".merged-0-5-9.77.tmp"
    unfinished.write_bytes(b"half")
    with lock_parts(tmp_path):
        Archive(tmp_path, 0).start(position=5)
        assert unfinished.exists()


def test_an_owner_starts_though_what_was_left_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that became read-only, rows wait in memory; a start must not fail where they would."""
    written = fill(tmp_path, 3, random.Random(7))
    (tmp_path / ".live-0-5-1.77.tmp").write_bytes(b"half")
    monkeypatch.setattr(Path, "unlink", _fail)
    Archive(tmp_path, 0).start(position=5)
    assert read(tmp_path) == written


def _fail(*_args: object, **_kwargs: object) -> None:
    raise OSError(30, "Read-only file system")


def test_an_owner_that_stood_still_sets_nothing_aside(tmp_path: Path) -> None:
    """It read a checkpoint with nothing behind it; those after it have written since."""
    written = fill(tmp_path, 3, random.Random(8))

    def check_owner() -> None:
        raise LeaseLost("another owns the partition now")

    with pytest.raises(LeaseLost):
        Archive(tmp_path, 0).start(0, check_owner)
    assert read(tmp_path) == written


@pytest.mark.parametrize("missed", range(8))
def test_a_part_that_a_listing_misses_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missed: int
) -> None:
    """The part of the owner after came while the folder was listed, and the one behind it was seen: none is lost."""
    written = fill(tmp_path, PARTS_MIN + 4, random.Random(9))
    list_names = streaming.archive._names

    def miss_once() -> None:
        listings = count()

        def names(folder: Path, partition: int) -> list[str]:
            found = sorted(list_names(folder, partition))
            return found if next(listings) else found[:missed] + found[missed + 1 :]

        monkeypatch.setattr(streaming.archive, "_names", names)

    miss_once()
    assert len(live_parts(tmp_path, 0)) == PARTS_MIN + 4

    def cover_none(*_args: object) -> list[Path]:
        miss_once()
        return []

    monkeypatch.setattr(streaming.merging, "covered_parts", cover_none)
    assert merge_parts(tmp_path, 0)
    assert read(tmp_path) == written


def test_what_a_frozen_owner_writes_into_merged_positions_is_not_read(tmp_path: Path) -> None:
    """It is covered the moment it comes, and the next merge removes it."""
    written = fill(tmp_path, PARTS_MIN + 4, random.Random(10))
    merge_parts(tmp_path, 0)
    write(tmp_path, written[2:6])
    assert read(tmp_path) == written
    merge_parts(tmp_path, 0)
    assert len(list(tmp_path.glob("live-*.parquet"))) == 1


def test_a_merged_part_outlives_the_machine_before_any_other_goes(tmp_path: Path) -> None:
    """File, name, and only then what it stands for; the name of a new folder too."""
    folder = tmp_path / "archive" / "shop"
    steps: list[str] = []

    def note(kind: str, path: Path) -> None:
        steps.append(f"{kind} {path.relative_to(tmp_path)}".partition("-")[0])

    with pytest.MonkeyPatch.context() as patch:
        _noted(patch, note)
        write(folder, [1])
    assert steps == [
        "sync .",
        "sync archive",
        "sync archive/shop/.live",
        "replace archive/shop/.live",
        "sync archive/shop",
    ]
    for at in range(2, PARTS_MIN + 2):
        write(folder, [at])
    steps.clear()
    with pytest.MonkeyPatch.context() as patch:
        _noted(patch, note)
        merge_parts(folder, 0)
    begin = ["sync archive/shop/.merged", "replace archive/shop/.merged", "sync archive/shop"]
    assert steps == [*begin, *["unlink archive/shop/live"] * PARTS_MIN]


def _noted(patch: pytest.MonkeyPatch, note: Callable[[str, Path], None]) -> None:
    for owner, name in ((streaming.sink, "sync"), (Path, "replace"), (Path, "unlink")):
        original = getattr(owner, name)

        def step(
            path: Path,
            *args: object,
            original: Callable[..., object] = original,
            name: str = name,
            **named: object,
        ) -> object:
            if path.exists():
                note(name, path)
            return original(path, *args, **named)

        patch.setattr(owner, name, step)


def test_a_full_disk_costs_nothing_but_the_merge(tmp_path: Path) -> None:
    """Wherever it fills; nothing half written stays to keep it full."""
    written = fill(tmp_path, PARTS_MIN + 4, random.Random(11))

    def write_table(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", write_table)
        with pytest.raises(OSError, match="No space left"):
            merge_parts(tmp_path, 0)
    assert not list(tmp_path.glob(".*.tmp"))
    assert read(tmp_path) == written
    assert merge_parts(tmp_path, 0)


def test_a_merge_holds_so_many_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with what is merged."""
    written = fill(tmp_path, 4 * PARTS_MIN, random.Random(12))
    sizes: list[int] = []
    original = pq.ParquetWriter.write_table

    def write_table(writer: pq.ParquetWriter, table: pa.Table, *args: object) -> None:
        sizes.append(len(table))
        original(writer, table, *args)

    monkeypatch.setattr(streaming.merging, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_table)
    assert merge_parts(tmp_path, 0)
    assert len(sizes) > 5
    assert max(sizes) < 10 + 4
    assert read(tmp_path) == written
