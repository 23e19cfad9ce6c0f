"""What an owner is about to write, written down before it is written (docs/adr/0015).

There is no transaction over an entity's hash, the log of segment changes and a Parquet file. So each batch first leaves
an intent: the offline rows and the segment changes that its entity writes will bring. An entity's state keeps the
number of the intent it was last written under; after a crash that tells which rows of an intent came true.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streaming.advance import SegmentChange
from streaming.sink import ENTITY

Part = tuple[bytes, str]
"""An entity's key and a view of it, or `WHOLE`."""
WHOLE = ""
_HEAD = b"h"
_VIEW = b"v:"


@dataclass(frozen=True, slots=True)
class Intent:
    """What one round of entity writes is to bring.

    Attributes:
        number: Grows by one with every intent of the partition.
        rows: Offline rows by view, with the column `ENTITY`.
        changes: Segments entered and left.
        void: What was to be written under an earlier number and was not, by that number.
        time_us: Logical time of the batch.
        created_us: Wall time of the rows; grows with every intent.
    """

    number: int
    rows: Mapping[str, pa.Table] = field(default_factory=dict)
    changes: tuple[SegmentChange, ...] = ()
    void: Mapping[int, frozenset[Part]] = field(default_factory=dict)
    time_us: int = 0
    created_us: int = 0

    @property
    def entities(self) -> set[bytes]:
        """Entities that the intent says anything of."""
        keys = {change.key for change in self.changes}
        for table in self.rows.values():
            keys.update(table[ENTITY].to_pylist())
        return keys

    def without(self, parts: Collection[Part]) -> Intent:
        """The intent as it holds where some parts of it did not happen."""
        if not parts:
            return self
        whole = {key for key, view in parts if view == WHOLE}
        rows = {}
        for view, table in self.rows.items():
            gone = pa.array([*whole, *(key for key, hidden in parts if hidden == view)], type=pa.binary())
            rows[view] = table.filter(pc.invert(pc.is_in(table[ENTITY], value_set=gone)))
        changes = tuple(change for change in self.changes if change.key not in whole)
        return replace(
            self, rows={view: table for view, table in rows.items() if len(table)}, changes=changes
        )

    def to_fields(self) -> dict[bytes, bytes]:
        """The intent as fields of a stream entry."""
        head = {
            "void": {
                number: [(key.hex(), view) for key, view in sorted(parts)]
                for number, parts in self.void.items()
            },
            "changes": [(c.kind, c.key.hex(), c.segment, c.entered, c.at_us) for c in self.changes],
            "time_us": self.time_us,
            "created_us": self.created_us,
        }
        tables = {_VIEW + view.encode(): _table_bytes(table) for view, table in self.rows.items()}
        return {_HEAD: json.dumps(head).encode(), **tables}

    @staticmethod
    def from_fields(number: int, fields: Mapping[bytes, bytes]) -> Intent:
        """Read what `to_fields` wrote."""
        head: Any = json.loads(fields[_HEAD])
        return Intent(
            number=number,
            rows={
                name.removeprefix(_VIEW).decode(): pa.ipc.open_stream(data).read_all()
                for name, data in fields.items()
                if name.startswith(_VIEW)
            },
            changes=tuple(
                SegmentChange(bytes.fromhex(key), segment, entered, at_us, kind)
                for kind, key, segment, entered, at_us in head["changes"]
            ),
            void={
                int(number): frozenset((bytes.fromhex(key), view) for key, view in parts)
                for number, parts in head["void"].items()
            },
            time_us=head.get("time_us", 0),
            created_us=head.get("created_us", 0),
        )


def _table_bytes(table: pa.Table) -> bytes:
    """Rows as a stream of Arrow's: its schema, and what follows."""
    messages = (batch.serialize().to_pybytes() for batch in table.to_batches())
    return b"".join((_schema_bytes(table.schema), *messages))


@lru_cache(1024)
def _schema_bytes(schema: pa.Schema) -> bytes:
    data: bytes = schema.serialize().to_pybytes()
    return data
