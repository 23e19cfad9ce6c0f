"""The archive: every event that counted, for good, as Parquet beside the offline rows.

The log is trimmed behind the checkpoint; what was applied is in the archive from then on. A part holds the records that
one checkpoint moved past and is named by the position before the first of them, so what is written again after a crash
takes the place of what an owner before wrote. Where an owner was frozen in the moment of its rename there are two parts
of one name but for the fence, and the later owner's holds. What lies behind no checkpoint yet is not read.

Parts of a store before, which was emptied and left its folder, are set aside in `earlier-…`.

`live-PARTITION-AFTER-FENCE.parquet` has the columns of `SCHEMA`. `backfill-NNNNN.parquet` holds what a backfill
brought, with a column for each property.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from streaming.log import Records
from streaming.sink import TIMESTAMP, timestamp_array, write_part

IntArray = npt.NDArray[np.int64]

SCHEMA = pa.schema([("position", pa.int64()), ("logical_time", TIMESTAMP), ("event", pa.binary())])
"""`logical_time` is when the record was appended; `event` is the log's JSON, null once its customer is erased."""
ROWS_PER_PART = 1_000_000
_LIVE = re.compile(r"live-(\d+)-(\d+)-(\d+)\.parquet")
LAST_POSITION = int(np.iinfo(np.int64).max)
_BACKFILL = "backfill-*.parquet"
_EARLIER = "earlier-"

log = structlog.get_logger()


def archive_folder(data_dir: Path, project: str) -> Path:
    """Where a project's archive lies."""
    return data_dir / "archive" / project


class Archive:
    """Collects the events of one partition that counted, until the checkpoint moves past them. Not thread-safe.

    Args:
        folder: The project's archive.
        partition: Whose records they are.
    """

    def __init__(self, folder: Path, partition: int) -> None:
        self._folder = folder
        self._partition = partition
        self._tables: list[pa.Table] = []
        self._is_alone = False
        self.row_count = 0

    def start_over(self) -> None:
        """Nothing of the partition is behind a checkpoint: set aside what an earlier store left in the folder."""
        parts = list(self._folder.glob(f"live-{self._partition}-*.parquet"))
        if not parts:
            return
        aside = self._folder / f"{_EARLIER}{secrets.token_hex(4)}"
        aside.mkdir(parents=True)
        for part in parts:
            part.replace(aside / part.name)
        log.warning("archive.set_aside", partition=self._partition, parts=len(parts), folder=str(aside))

    def extend(self, records: Records, events: IntArray) -> None:
        """Take records whose event counts, by number of the event among the records' events; in order."""
        if not len(events):
            return
        rows = records.event_rows[events]
        texts = records.events.texts
        columns = [
            pa.array(records.positions[rows]),
            timestamp_array(records.time_us[rows]),
            pa.array([texts[event] for event in events.tolist()], type=pa.binary()),
        ]
        self._tables.append(pa.Table.from_arrays(columns, schema=SCHEMA))
        self.row_count += len(events)

    def write(self, after: int, fence: int) -> None:
        """Write everything collected; it stays here until `clear`, so that it can be written again with more.

        Args:
            after: Position of the checkpoint that has none of it behind it.
            fence: The owner's number.

        Raises:
            OSError: If the part cannot be written.
        """
        if not self._tables:
            return
        stem = f"live-{self._partition}-{after:020d}"
        # Positions of one column differ little and texts repeat nowhere: dictionaries would cost and save nothing.
        write_part(
            self._folder,
            f"{stem}-{fence}",
            pa.concat_tables(self._tables),
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

    def clear(self) -> None:
        """Forget what is written; the checkpoint moves past it now."""
        self._is_alone = self._is_alone or bool(self._tables)
        self._tables.clear()
        self.row_count = 0


class _Part(NamedTuple):
    """A part and the positions it holds: behind `after`, up to `until`."""

    path: Path
    after: int
    until: int


def _live_parts(folder: Path, partition: int) -> list[_Part]:
    """The parts of a partition that hold, in order.

    An owner that took over may have moved the checkpoint past records of which none counted, and then left no part in
    the place of that of the owner before. So a part holds no further than to where the next one begins.
    """
    held: dict[int, tuple[int, Path]] = {}
    for path in folder.glob(f"live-{partition}-*.parquet"):
        match = _LIVE.fullmatch(path.name)
        if match is not None:
            after, fence = int(match[2]), int(match[3])
            held[after] = max(held.get(after, (0, path)), (fence, path))
    begins = [*sorted(held), LAST_POSITION]
    return [_Part(held[after][1], after, until) for after, until in pairwise(begins)]


def read_live(folder: Path, partition: int, after: int, until: int) -> Iterator[pa.Table]:
    """Records of a partition behind position `after`, up to and including `until`, which lies behind a checkpoint.

    Yields:
        Tables of `SCHEMA`, a part each; erased events are among them, as null.
    """
    for part in _live_parts(folder, partition):
        first, last = max(after, part.after), min(until, part.until)
        if first < last:
            table = pq.read_table(part.path, schema=SCHEMA)
            position = table["position"]
            yield table.filter(pc.and_(pc.greater(position, first), pc.less_equal(position, last)))


def write_backfilled(folder: Path, events: pd.DataFrame) -> None:
    """Archive what a backfill brought in, the frame as transformations take it; what was there is replaced."""
    for path in folder.glob(_BACKFILL):
        path.unlink()
    table = pa.Table.from_pandas(events, preserve_index=False)
    for number, start in enumerate(range(0, len(table), ROWS_PER_PART)):
        write_part(folder, f"backfill-{number:05d}", table.slice(start, ROWS_PER_PART))


def read_backfilled(folder: Path) -> Iterator[pa.Table]:
    """What a backfill brought in, columns as `streaming.history` takes them."""
    for path in sorted(folder.glob(_BACKFILL)):
        yield pq.read_table(path)


def erase_archived(folder: Path, customer_id: str, *, apply: bool) -> int:
    """Blank a customer's events; returns how many there were. A part is replaced whole or not at all.

    Args:
        folder: The project's archive.
        customer_id: As events name the customer.
        apply: Whether to, or only to count.
    """
    count = 0
    for path in sorted(folder.rglob("live-*.parquet")):
        table = pq.read_table(path, schema=SCHEMA)
        own = _own(table, customer_id)
        if own.any():
            count += int(own.sum())
            blank = pa.nulls(len(table), pa.binary())
            events = pc.if_else(pa.array(own), blank, table["event"])
            if apply:
                write_part(
                    path.parent,
                    path.stem,
                    table.set_column(2, SCHEMA.field("event"), events),
                    use_dictionary=False,
                )
    for path in sorted(folder.glob(_BACKFILL)):
        table = pq.read_table(path)
        kept = table.filter(pc.not_equal(table["customer_id"], customer_id))
        count += len(table) - len(kept)
        if apply and len(kept) < len(table):
            write_part(folder, path.stem, kept)
    return count


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
