"""What an owner is about to write, written down before it is written (docs/adr/0015).

There is no transaction over an entity's hash, the log of segment changes and a Parquet file. So each batch first leaves
an intent: the offline rows and the segment changes that its entity writes will bring. An entity's state keeps the
number of the intent it was last written under; after a crash that tells which rows of an intent came true.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pyarrow as pa

from streaming.advance import SegmentChange
from streaming.arrow import plain_values, value_type_of
from streaming.packed import Field, Layout, entities_of, row_count, split, without

Part = tuple[bytes, str]
"""An entity's key and a view of it, or `WHOLE`."""
WHOLE = ""
_HEAD = b"h"
_VIEW = b"v:"
_ARROW = b"\xff\xff\xff\xff"
"""What a stream of Arrow's begins with."""
_ARROW_ENTITY = "__entity"


@dataclass(frozen=True, slots=True)
class Intent:
    """What one round of entity writes is to bring.

    Attributes:
        number: Grows by one with every intent of the partition.
        rows: Offline rows by view, packed with whose they are (`streaming/packed.py`).
        changes: Segments entered and left.
        void: What was to be written under an earlier number and was not, by that number.
        time_us: Logical time of the batch.
        created_us: Wall time of the rows; grows with every intent.
    """

    number: int
    rows: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    changes: tuple[SegmentChange, ...] = ()
    void: Mapping[int, frozenset[Part]] = field(default_factory=dict)
    time_us: int = 0
    created_us: int = 0

    @property
    def entities(self) -> set[bytes]:
        """Entities that the intent says anything of."""
        keys = {change.key for change in self.changes}
        for part in chain.from_iterable(self.rows.values()):
            keys.update(entities_of(part))
        return keys

    def without(self, parts: Collection[Part]) -> Intent:
        """The intent as it holds where some parts of it did not happen."""
        if not parts:
            return self
        whole = {key for key, view in parts if view == WHOLE}
        rows = {}
        for view, own in self.rows.items():
            gone = whole.union(key for key, hidden in parts if hidden == view)
            kept = [without(part, gone) for part in own]
            rows[view] = [part for part in kept if row_count(part)]
        changes = tuple(change for change in self.changes if change.key not in whole)
        return replace(self, rows={view: own for view, own in rows.items() if own}, changes=changes)

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
        rows = {_VIEW + view.encode(): b"".join(parts) for view, parts in self.rows.items()}
        return {_HEAD: json.dumps(head).encode(), **rows}

    @staticmethod
    def from_fields(number: int, fields: Mapping[bytes, bytes]) -> Intent:
        """Read what `to_fields` wrote."""
        head: Any = json.loads(fields[_HEAD])
        return Intent(
            number=number,
            rows={
                name.removeprefix(_VIEW).decode(): _parts(data)
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


def _parts(data: bytes) -> list[bytes]:
    return [_from_arrow(data)] if data.startswith(_ARROW) else split(data)


def _from_arrow(data: bytes) -> bytes:
    """Rows as they were once written down, as a stream of Arrow's: the owner before may be an older version."""
    table = pa.ipc.open_stream(data).read_all()
    columns = table.drop_columns([_ARROW_ENTITY])
    layout = Layout(
        [Field(column.name, value_type_of(column.type)) for column in columns.schema], has_entities=True
    )
    entities = table[_ARROW_ENTITY].to_pylist()
    return layout.pack(len(table), map(plain_values, columns.columns), entities=entities)
