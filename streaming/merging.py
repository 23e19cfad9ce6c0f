"""Merging the archive's parts: few large files in the place of one for every checkpoint, whatever dies meanwhile.

A merged part is written whole beside the parts that it holds; from the moment on at which its name is there it is read
in their place, and only then are they removed. What dies between leaves them behind, covered, for the next to remove.
The events in parts before the last are final, so anybody may merge them; a lock of the folder keeps two from doing so
at once, and an erasure from passing over a part whose copy is being written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.archive import SCHEMA, Part, covered_parts, live_parts, merged_name, read_pieces
from streaming.file_locks import lock_parts
from streaming.sink import new_part

PARTS_MIN = 16
TIERS_ROWS = tuple(PARTS_MIN**power for power in range(1, 5))
"""Below these, parts are merged: 16 of one tier are one of the next, so that each event is copied once a tier."""
PARTS_MAX = 1_024
ROWS_MAX = 1_000_000
ROWS_PER_GROUP = 100_000
BYTES_PER_GROUP = 64 * 2**20


def merge_parts(folder: Path, partition: int) -> int:
    """Merge one run of neighbouring small parts of a partition.

    Returns:
        How many parts there were; 0 where none are to be merged now, or somebody else is at it.

    Raises:
        OSError: A part cannot be read or written; nothing is lost.
    """
    with lock_parts(folder, wait_s=0) as locked:
        if not locked:
            return 0
        _remove(covered_parts(folder, partition))
        run = _run_of_small(live_parts(folder, partition)[:-1])
        if not run:
            return 0
        with new_part(folder, merged_name(partition, run[0].after, run[-1].until), durable=True) as file:
            _copy(run, file)
        _remove(covered_parts(folder, partition))
        return len(run)


def _run_of_small(parts: Sequence[Part]) -> list[Part]:
    """The first run of neighbours of a tier, with smaller ones among them; those behind have their time."""
    counts = [_row_count(part.path) for part in parts]
    for least, limit in pairwise((0, *TIERS_ROWS)):
        first = stop = own = rows = 0
        for number, count in enumerate([*counts, limit]):
            if count >= limit or number - first == PARTS_MAX or rows + count > ROWS_MAX:
                if own >= PARTS_MIN:
                    break
                first, own, rows = number + (count >= limit), 0, 0
            if least <= count < limit:
                stop, own = number + 1, own + 1
            rows += count if count < limit else 0
        if own >= PARTS_MIN:
            return list(parts[first:stop])
    return []


@lru_cache(65_536)
def _row_count(path: Path) -> int:
    """Of a part that is final; an erasure blanks rows and leaves their number."""
    count: int = pq.read_metadata(path).num_rows
    return count


def _copy(run: Sequence[Part], file: Path) -> None:
    with pq.ParquetWriter(
        file, SCHEMA, compression="zstd", use_dictionary=False, coerce_timestamps="us"
    ) as writer:
        for table in _grouped(run):
            writer.write_table(table)


def _grouped(run: Sequence[Part]) -> Iterator[pa.Table]:
    """The parts' rows, about so many at a time, so that memory does not grow with the archive."""
    tables: list[pa.Table] = []
    for part in run:
        for table in read_pieces(part, part.after, part.until):
            tables.append(table)
            if sum(map(len, tables)) >= ROWS_PER_GROUP or sum(t.nbytes for t in tables) >= BYTES_PER_GROUP:
                yield pa.concat_tables(tables)
                tables.clear()
    if tables:
        yield pa.concat_tables(tables)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
