"""The archive: every event that was applied or put aside, for good, as Parquet beside the offline rows.

The log is trimmed behind the checkpoint; what was applied is in the archive from then on. A part holds the records that
one checkpoint moved past and is named by the position before the first of them, so what is written again after a crash
takes the place of what an owner before wrote. Where an owner was frozen in the moment of its rename there are two parts
of one name but for the fence, and the later owner's holds. What lies behind no checkpoint yet is not read. Many small
parts become a large one (`streaming/merging.py`), which is read in their place as soon as it is there.

Parts of a store before, which was emptied and left its folder, are set aside in `earlier-…`.

`live-PARTITION-AFTER-FENCE.parquet` and `merged-PARTITION-AFTER-UNTIL.parquet` have the columns of `SCHEMA`.
`backfill-NNNNN.parquet` holds what a backfill brought, with a column for each property.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from decision.schema import ValueType
from streaming.file_locks import check_locked, lock_parts, outlast_writers, writing_files
from streaming.log import Records
from streaming.packed import Field, Layout, tables
from streaming.pile import Pile
from streaming.sink import earlier, move_parts, remove_unfinished, unfinished, write_part
from streaming.windows.read import Column

IntArray = npt.NDArray[np.int64]

_LAYOUT = Layout(
    [
        Field("position", ValueType.INT64),
        Field("logical_time", ValueType.UNIX_TIMESTAMP),
        Field("event", ValueType.BYTES),
        Field("reason", ValueType.STRING),
    ]
)
SCHEMA = _LAYOUT.schema
"""`logical_time` is when the record was appended; `event` is the log's JSON, null once its customer is erased;
`reason` is why it was put aside, null where it counted."""
_PART = re.compile(r"(live|merged)-(\d+)-(\d+)-(\d+)\.parquet")
LAST_POSITION = int(np.iinfo(np.int64).max)
_BACKFILL = "backfill-*.parquet"
PIECE_BYTES = 16 * 2**20
"""About as much of a part is read at once where it may be large."""
_BUFFER_BYTES = 2**20

log = structlog.get_logger()


def archive_folder(data_dir: Path, project: str) -> Path:
    """Where a project's archive lies."""
    return data_dir / "archive" / project


class Archive:
    """Collects the events of one partition, until they are taken. Not thread-safe, but for `write`.

    Args:
        folder: The project's archive.
        partition: Whose records they are.
    """

    def __init__(self, folder: Path, partition: int) -> None:
        self._folder = folder
        self._partition = partition
        self._pile = Pile()
        self._is_alone = False

    @property
    def row_count(self) -> int:
        """Records collected."""
        return self._pile.row_count

    @property
    def weight(self) -> int:
        """As `Pile.weight`."""
        return self._pile.weight

    def start(self, position: int, check_owner: Callable[[], None] = lambda: None) -> None:
        """Begin at a checkpoint: remove what an owner before was killed while it wrote.

        Where nothing is behind the checkpoint, what is there is of an earlier store, and is set aside.

        Args:
            position: Of the checkpoint.
            check_owner: Raises where another owner has come since that was read.

        Raises:
            FilesHeld: Somebody who merges parts of the earlier store stands still.
        """
        self._remove_unfinished()
        if position or not _names(self._folder, self._partition):
            return
        with lock_parts(self._folder) as locked:
            check_locked(self._folder, "merges", locked=locked)
            names = _names(self._folder, self._partition)
            # One that stood still since it read the checkpoint must not take what owners after it wrote: none had
            # come when this was listed.
            check_owner()
            aside = self._folder / earlier()
            move_parts(self._folder, names, aside)
        log.warning("archive.set_aside", partition=self._partition, parts=len(names), folder=str(aside))

    def _remove_unfinished(self) -> None:
        prefixes = [f"{kind}-{self._partition}-" for kind in ("live", "merged")]
        if not any(True for prefix in prefixes for _ in unfinished(self._folder, prefix)):
            return
        try:
            with lock_parts(self._folder, wait_s=0) as locked:
                # Whoever holds the lock is at work on one of them; the next start finds what stays.
                for prefix in prefixes if locked else ():
                    remove_unfinished(self._folder, prefix)
        except OSError as error:
            log.warning("archive.unfinished_stays", partition=self._partition, error=str(error))

    def ahead(self, position: int, fence: int, log_end: int) -> list[Path]:
        """Parts that no owner before `fence` can have left: they hold what a later checkpoint or no log has before it.

        Args:
            position: Of the checkpoint.
            fence: The owner's number.
            log_end: Position of the last record that the log ever had.
        """
        names = _names(self._folder, self._partition)
        found = [self._folder / name for name in names if _is_ahead(name, position, fence)]
        # What an owner wrote that died before the checkpoint moved, the log still has.
        left = (
            name for name in names if _is_ahead(name, position, -1) and not _is_ahead(name, position, fence)
        )
        return found + [path for path in map(self._folder.joinpath, left) if _last_position(path) > log_end]

    def extend(self, records: Records, events: IntArray, reason: str | None = None) -> None:
        """Take records, by number of the event among the records' events.

        Args:
            records: As they were read.
            events: Of those that count, in order, or of others.
            reason: Why those are put aside.
        """
        if not len(events):
            return
        rows = records.event_rows[events]
        texts = records.events.texts
        none = np.zeros(len(rows), dtype=np.bool_)
        columns = (
            Column(records.positions[rows], none),
            Column(records.time_us[rows], none),
            [texts[event] for event in events.tolist()],
            [reason] * len(rows),
        )
        self._pile.add([_LAYOUT.pack(len(rows), columns)])

    def take(self) -> list[bytes]:
        """Everything collected; others come from now on."""
        return self._pile.take()

    def give_back(self, parts: Sequence[bytes]) -> None:
        """Have what was taken last before all that came since."""
        self._pile.give_back(parts)

    def writing(self) -> AbstractContextManager[None]:
        """What the owner writes to files is written within this, offline rows too."""
        return writing_files(self._folder, self._partition)

    def write(self, records: Sequence[bytes], after: int, fence: int) -> None:
        """Write what was taken; one write at a time, in any thread.

        Args:
            records: As they were taken; what is written again takes the place of what was written of it.
            after: Position of the checkpoint that has none of it behind it.
            fence: The owner's number.

        Raises:
            OSError: If the part cannot be written.
        """
        if not records:
            return
        stem = self._stem(after)
        # Positions of one column differ little and texts repeat nowhere: dictionaries would cost and save nothing.
        write_part(
            self._folder,
            f"{stem}-{fence}",
            _in_log_order(pa.concat_tables(tables(records))),
            use_dictionary=False,
            level=1,
            durable=True,
        )
        if self._is_alone:
            return
        # Only where this owner began can one before it have left a part; a folder of many parts is slow to list.
        for part in self._folder.glob(f"{stem}-*.parquet"):
            if int(part.stem.rpartition("-")[2]) < fence:
                part.unlink(missing_ok=True)
        self._is_alone = True

    def discard(self, after: int, fence: int) -> None:
        """Take back what was written: another owner has come, who writes it anew."""
        (self._folder / f"{self._stem(after)}-{fence}.parquet").unlink(missing_ok=True)

    def _stem(self, after: int) -> str:
        return f"live-{self._partition}-{after:020d}"


def _in_log_order(table: pa.Table) -> pa.Table:
    """Events that are put aside come beside the others of their batch."""
    positions = table["position"].to_numpy()
    return (
        table if (positions[1:] >= positions[:-1]).all() else table.take(np.argsort(positions, kind="stable"))
    )


class Part(NamedTuple):
    """A part and the positions it holds: behind `after`, up to `until`."""

    path: Path
    after: int
    until: int


def merged_name(partition: int, after: int, until: int) -> str:
    """What a part is called that takes the place of those behind `after`, up to `until`."""
    return f"merged-{partition}-{after:020d}-{until:020d}"


def _names(folder: Path, partition: int) -> list[str]:
    """The files of a partition's parts, as one listing has them."""
    own = re.compile(rf"(live|merged)-{partition}-.*")
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if own.match(entry.name) and _PART.fullmatch(entry.name)]
    except FileNotFoundError:
        return []


def _names_at_once(folder: Path, partition: int) -> list[str]:
    """The files of a partition's parts as they were at one moment, though a listing takes its time.

    A listing may miss what comes or is replaced meanwhile, and yet show what came later. What the next one shows as
    well was there between the two, and what both miss was not: a part stays longer than a listing takes.
    """
    names = _names(folder, partition)
    while True:
        later = _names(folder, partition)
        if set(names) == set(later):
            return names
        names = later


def _is_ahead(name: str, position: int, fence: int) -> bool:
    match = _PART.fullmatch(name)
    assert match is not None
    after, last = int(match[3]), int(match[4])
    if match[1] == "merged":
        return last > position
    return after > position or (after == position and last > fence)


def _last_position(path: Path) -> int:
    last: int | None = pc.max(pq.read_table(path, columns=["position"])["position"]).as_py()
    return last or 0


def _merged(names: Sequence[str]) -> list[tuple[int, int]]:
    """Where merged parts begin and end, without those that lie within others."""
    found = [_PART.fullmatch(name) for name in names if name.startswith("merged")]
    spans = sorted((int(match[3]), -int(match[4])) for match in found if match)
    outermost: list[tuple[int, int]] = []
    for after, negative_until in spans:
        if not outermost or -negative_until > outermost[-1][1]:
            outermost.append((after, -negative_until))
    return outermost


def live_parts(folder: Path, partition: int) -> list[Part]:
    """The parts of a partition that hold, in order.

    An owner that took over may have moved the checkpoint past records of which none counted, and then left no part in
    the place of that of the owner before. So a part holds no further than to where the next one begins.
    """
    return _holding(folder, partition, _names_at_once(folder, partition))


def covered_parts(folder: Path, partition: int) -> list[Path]:
    """What merged parts have taken the place of and nobody has removed yet; under the lock alone."""
    names = _names(folder, partition)
    merged = _merged(names)
    return [folder / name for name in names if _is_covered(name, merged)]


def _is_covered(name: str, merged: Sequence[tuple[int, int]]) -> bool:
    match = _PART.fullmatch(name)
    assert match is not None
    after = int(match[3])
    place = bisect_right(merged, (after, LAST_POSITION)) - 1
    if place < 0 or after >= merged[place][1]:
        return False
    return match[1] == "live" or (after, int(match[4])) != merged[place]


def _holding(folder: Path, partition: int, names: Sequence[str]) -> list[Part]:
    merged = _merged(names)
    held: dict[int, tuple[int, Path]] = {}
    for name in names:
        match = _PART.fullmatch(name)
        if match is not None and match[1] == "live" and not _is_covered(name, merged):
            after, fence = int(match[3]), int(match[4])
            held[after] = max(held.get(after, (0, folder)), (fence, folder / name))
    found = [(after, path) for after, (_, path) in held.items()]
    found += [(after, folder / f"{merged_name(partition, after, until)}.parquet") for after, until in merged]
    found.sort()
    begins = [*(after for after, _ in found), LAST_POSITION]
    return [
        Part(path, after, until) for (after, path), (_, until) in zip(found, pairwise(begins), strict=True)
    ]


def read_part(part: Part, after: int, until: int) -> pa.Table:
    """Records of a part behind position `after`, up to and including `until`."""
    return _between(pq.read_table(part.path, schema=SCHEMA), after, until)


def _between(table: pa.Table, after: int, until: int) -> pa.Table:
    position = table["position"]
    return table.filter(pc.and_(pc.greater(position, after), pc.less_equal(position, until)))


def read_pieces(part: Part, after: int, until: int) -> Iterator[pa.Table]:
    """As `read_part`, some records at a time."""
    for table in _streamed(part.path):
        yield _between(_whole(table), after, until)


def _streamed(path: Path) -> Iterator[pa.Table]:
    """The rows of a file, about `PIECE_BYTES` of them at a time."""
    # Without these settings a whole group of rows would be in memory.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
        known = file.metadata
        size = sum(known.row_group(number).total_byte_size for number in range(known.num_row_groups))
        for batch in file.iter_batches(max(1, known.num_rows * PIECE_BYTES // max(size, 1))):
            yield pa.Table.from_batches([batch])


def _whole(table: pa.Table) -> pa.Table:
    """With all columns of `SCHEMA`; older versions wrote fewer."""
    missing = [field for field in SCHEMA if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names)


def read_live(folder: Path, partition: int, after: int, until: int) -> Iterator[pa.Table]:
    """Records that counted behind position `after`, up to and including `until`, which lies behind a checkpoint.

    Yields:
        Tables of `SCHEMA`, some records each; erased events are among them, as null.
    """
    for table in _read_live(folder, partition, after, until):
        yield table.filter(pc.is_null(table["reason"]))


def _read_live(folder: Path, partition: int, after: int, until: int) -> Iterator[pa.Table]:
    gone: Path | None = None
    while True:
        for part in live_parts(folder, partition):
            first, last = max(after, part.after), min(until, part.until)
            if first >= last:
                continue
            try:
                yield from read_pieces(part, first, last)
            except FileNotFoundError:
                # Merged since it was listed: what takes its place is there now.
                if part.path == gone:
                    raise
                gone = part.path
                break
            after = last
        else:
            return


def read_put_aside(folder: Path, partition: int, after: int, until: int) -> Iterator[pa.Table]:
    """As `read_live`, of the records whose events were put aside, with the reason."""
    for table in _read_live(folder, partition, after, until):
        yield table.filter(pc.is_valid(table["reason"]))


def set_back(folder: Path, partition: int, position: int, aside: Path) -> tuple[int, int]:
    """Move what lies behind a checkpoint to a folder of its own; for when nobody owns the partition.

    Args:
        folder: The project's archive.
        partition: Whose parts.
        position: Of the checkpoint.
        aside: Where to; made where anything is moved.

    Returns:
        How many events that are, and the largest fencing number among the names of their parts.

    Raises:
        FilesHeld: Somebody who merges or writes parts stands still.
    """
    outlast_writers(folder, partition)
    with lock_parts(folder) as locked:
        check_locked(folder, "merges", locked=locked)
        behind = [part for part in live_parts(folder, partition) if part.until > position]
        moved = (read_part(part, max(part.after, position), LAST_POSITION) for part in behind)
        event_count = sum(table["reason"].null_count for table in moved)
        for part in behind:
            if part.after < position and part.path.name.startswith("merged"):
                # What is before the checkpoint stays, and is read from here once the whole is gone.
                kept = merged_name(partition, part.after, position)
                write_part(
                    folder, kept, read_part(part, part.after, position), use_dictionary=False, durable=True
                )
        names = [name for name in _names(folder, partition) if _is_ahead(name, position, -1)]
        matches = [match for name in names if (match := _PART.fullmatch(name)) and match[1] == "live"]
        move_parts(folder, names, aside)
        return event_count, max((int(match[4]) for match in matches), default=0)


@contextmanager
def backfilled_parts(folder: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Archive what a backfill brings in; what was there of one before is removed, and all of this one where it fails.

    Yields:
        Takes some of the events, the frame as transformations take it.
    """
    _remove_backfilled(folder)
    numbers = count()

    def add(events: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(events, preserve_index=False)
        write_part(folder, f"backfill-{next(numbers):05d}", table)

    try:
        yield add
    except BaseException:
        _remove_backfilled(folder)
        raise


def _remove_backfilled(folder: Path) -> None:
    remove_unfinished(folder, "backfill-")
    for path in folder.glob(_BACKFILL):
        path.unlink()


def backfilled_count(folder: Path) -> int:
    """How many events a backfill brought in."""
    return sum(int(pq.read_metadata(path).num_rows) for path in folder.glob(_BACKFILL))


def read_backfilled(folder: Path) -> Iterator[pa.Table]:
    """What a backfill brought in, columns as `streaming.history` takes them."""
    for path in sorted(folder.glob(_BACKFILL)):
        yield from _streamed(path)


def erase_archived(folder: Path, customer_id: str, *, apply: bool) -> int:
    """Blank a customer's events; returns how many there were. A part is replaced whole or not at all.

    Args:
        folder: The project's archive.
        customer_id: As events name the customer.
        apply: Whether to, or only to count.

    Raises:
        FilesHeld: Somebody who merges parts stands still; nothing is erased.
    """
    if not folder.is_dir():
        return 0
    with lock_parts(folder) as locked:
        check_locked(folder, "merges", locked=locked)
        if apply:
            remove_unfinished(folder, "merged-")
        return _erase(folder, customer_id, apply=apply)


def remove_unfinished_before(folder: Path, partition: int, fence: int) -> None:
    """Remove halves of parts that owners before `fence` left; none of them is at it any more."""
    for path in unfinished(folder, f"live-{partition}-"):
        _, part, *_ = path.name.split(".")
        if int(part.rpartition("-")[2]) < fence:
            path.unlink(missing_ok=True)


def _erase(folder: Path, customer_id: str, *, apply: bool) -> int:
    count = 0
    for path in sorted(path for path in folder.rglob("*.parquet") if _PART.fullmatch(path.name)):
        table = pq.read_table(path, schema=SCHEMA)
        own = _own(table, customer_id)
        if own.any():
            count += 0 if _has_been_merged(path) else int(own.sum())
            blank = pa.nulls(len(table), pa.binary())
            events = pc.if_else(pa.array(own), blank, table["event"])
            if apply:
                write_part(
                    path.parent,
                    path.stem,
                    table.set_column(2, SCHEMA.field("event"), events),
                    use_dictionary=False,
                    durable=True,
                )
    for path in sorted(folder.glob(_BACKFILL)):
        table = pq.read_table(path)
        kept = table.filter(pc.not_equal(table["customer_id"], customer_id))
        count += len(table) - len(kept)
        if apply and len(kept) < len(table):
            write_part(folder, path.stem, kept, durable=True)
    return count


def _has_been_merged(path: Path) -> bool:
    match = _PART.fullmatch(path.name)
    assert match is not None
    return path in covered_parts(path.parent, int(match[2]))


def _own(table: pa.Table, customer_id: str) -> npt.NDArray[np.bool_]:
    """Which events are a customer's; only those that have the id somewhere in their text are taken apart."""
    wanted = json.dumps(customer_id, ensure_ascii=False).encode()
    maybe = pc.fill_null(pc.match_substring(table["event"], wanted), False)
    own = np.array(maybe.to_numpy(), dtype=np.bool_)
    for row in np.flatnonzero(own).tolist():
        own[row] = json.loads(table["event"][row].as_py())[2] == customer_id
    return own


def archived_events(table: pa.Table) -> list[bytes]:
    """The events of a table of `SCHEMA` as the log has them, without what was erased."""
    texts: list[bytes] = table["event"].drop_null().to_pylist()
    return texts
