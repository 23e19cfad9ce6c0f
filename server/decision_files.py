"""Decision records as Parquet files: written whole or not at all, merged as they grow many, found by id.

A file `L<level>-<first decision id>-<random>.parquet` appears by rename. A merge writes the next level's file before
it deletes its sources, so a crash leaves repeats, never gaps; readers drop repeats.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import structlog

from streaming.sink import sync
from waypost.decision.v1 import decision_pb2

SCHEMA = pa.schema(
    [
        ("decision_id", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("placement", pa.string()),
        ("customer_id", pa.string()),
        ("bundle_version", pa.string()),
        ("model_version", pa.string()),
        ("degraded", pa.list_(pa.string())),
        ("record", pa.binary()),
    ]
)
_log = structlog.get_logger("server")

TOP_LEVEL = 3
MERGED_FILE_BYTES = 128 << 20
LIST_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a file: the record's bytes beside what people filter by."""

    decision_id: str
    decided_at_us: int
    placement: str
    customer_id: str
    bundle_version: str
    model_version: str
    degraded: tuple[str, ...]
    record: bytes


def write_rows(folder: Path, rows: Sequence[Row]) -> Path:
    """Write rows to a new file of level 0; it is durable when this returns."""
    table = pa.Table.from_pydict(
        {
            "decision_id": [row.decision_id for row in rows],
            "decided_at": pa.array([row.decided_at_us for row in rows], type=pa.int64()).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "placement": [row.placement for row in rows],
            "customer_id": [row.customer_id for row in rows],
            "bundle_version": [row.bundle_version for row in rows],
            "model_version": [row.model_version for row in rows],
            "degraded": [list(row.degraded) for row in rows],
            "record": [row.record for row in rows],
        },
        schema=SCHEMA,
    )
    return _publish(folder, 0, min(row.decision_id for row in rows), [table])


def merge(folder: Path, fan_in: int) -> int:
    """Merge each level that has `fan_in` files or more into one file of the next; returns how many it merged."""
    merged = 0
    for level in range(TOP_LEVEL):
        small = [path for path in _level(folder, level) if path.stat().st_size < MERGED_FILE_BYTES]
        if len(small) >= fan_in:
            small = [path for path in small if readable(path)]
        if len(small) >= fan_in:
            first = min(path.name.split("-", 1)[1].rsplit("-", 1)[0] for path in small)
            _publish(folder, level + 1, first, (pq.read_table(path, schema=SCHEMA) for path in small))
            for path in small:
                path.unlink(missing_ok=True)
            merged += len(small)
    return merged


def find(folder: Path, decision_id: str) -> decision_pb2.DecisionRecord | None:
    """The record of a decision, or None where there is none."""
    for attempt in range(LIST_ATTEMPTS):
        try:
            return _find(folder, decision_id)
        except FileNotFoundError:  # a merge removed a file between listing and reading
            if attempt == LIST_ATTEMPTS - 1:
                raise
    return None


def _find(folder: Path, decision_id: str) -> decision_pb2.DecisionRecord | None:
    paths = [path for level in range(TOP_LEVEL + 1) for path in _level(folder, level)]
    files = [str(path) for path in paths if readable(path)]
    if not files:
        return None
    found = ds.dataset(files, schema=SCHEMA, format="parquet").to_table(
        columns=["record"], filter=ds.field("decision_id") == decision_id
    )
    records = found.column("record").to_pylist()
    return decision_pb2.DecisionRecord.FromString(records[0]) if records else None


def readable(path: Path) -> bool:
    """Whether a file is whole; one that is damaged is set aside under another name, and said so."""
    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        _log.warning("decision_log.file_damaged", file=str(path), error=str(error))
        path.rename(path.with_suffix(".damaged"))
        return False
    return True


def _level(folder: Path, level: int) -> list[Path]:
    return sorted(folder.glob(f"L{level}-*.parquet"))


def _publish(folder: Path, level: int, first_id: str, tables: Iterable[pa.Table]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"L{level}-{first_id}-{secrets.token_hex(4)}.parquet"
    part = folder / f".{name}.part"
    try:
        with pq.ParquetWriter(part, SCHEMA, compression="zstd", coerce_timestamps="us") as writer:
            for table in tables:
                writer.write_table(table)
        sync(part)
        part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)
    sync(folder)
    return folder / name
