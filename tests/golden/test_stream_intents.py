"""Intents as they stand in the journal: what an owner before left, another version of Waypost perhaps, is read.

`WAYPOST_UPDATE_GOLDEN=1 pytest tests/golden/test_stream_intents.py` writes `packed.json` anew, to be read in review:
the version before must not have written the same mark for other bytes. `arrow.json` is what earlier versions left; it
stays as it is.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decision.schema import Feature, ValueType
from streaming.advance import SegmentChange
from streaming.journal import WHOLE, Intent
from streaming.packed import tables
from streaming.sink import OfflineSink
from tests.support.offline_rows import (
    EXAMPLE,
    EXAMPLE_ROWS,
    MARKS,
    MIXED,
    column_of,
    plan_of,
    values_of,
)

FOLDER = Path(__file__).parent / "intents"
AT_US, LATER_US, CREATED_US = 1_700_000_100_000_000, 1_700_000_200_000_001, 1_700_000_123_456_789
MIXED_PLAN, MARKS_PLAN = plan_of(MIXED), plan_of(MARKS)
ENTITIES = [MIXED_PLAN.keys.encode(row) for row in EXAMPLE_ROWS]
USERS = [MARKS_PLAN.keys.encode(row) for row in EXAMPLE_ROWS]


def _intent() -> Intent:
    """Rows of every type at two logical times, of columns and of plain values; a change; and what is void."""
    batch = OfflineSink([MIXED, MARKS], 0).batch(CREATED_US)
    whole = {f.name: column_of(f.value_type, EXAMPLE[f.value_type]) for f in MIXED.features}
    batch.add(values_of(MIXED_PLAN, whole, 3), np.arange(3), ENTITIES, AT_US)
    some = {f.name: EXAMPLE[f.value_type] for f in MIXED.features}
    batch.add(values_of(MIXED_PLAN, some, 3), np.array([0, 2]), [ENTITIES[0], ENTITIES[2]], LATER_US)
    batch.add(values_of(MARKS_PLAN, {"good": [True, None, False]}, 3), np.arange(3), USERS, AT_US)
    return Intent(
        number=7,
        rows=batch.packed,
        changes=(SegmentChange(USERS[0], "good", True, AT_US, "user"),),
        void={6: frozenset({(USERS[1], WHOLE), (ENTITIES[2], "mixed")})},
        time_us=LATER_US,
        created_us=CREATED_US,
    )


def _stored(name: str) -> dict[bytes, bytes]:
    fields = json.loads((FOLDER / name).read_text())
    return {field.encode(): base64.b64decode(data) for field, data in fields.items()}


def _tables(intent: Intent) -> dict[str, pa.Table]:
    return {view: pa.concat_tables(tables(parts)) for view, parts in intent.rows.items()}


def _shown(rows: dict[str, pa.Table]) -> str:
    """Schemas and values; NaN is as good as NaN."""
    return repr([(view, table.schema, table.to_pydict()) for view, table in sorted(rows.items())])


def test_intents_are_written_as_they_were() -> None:
    """An owner reads what one before left under the same mark, so its bytes stay."""
    fields = _intent().to_fields()
    if os.environ.get("WAYPOST_UPDATE_GOLDEN"):
        texts = {field.decode(): base64.b64encode(data).decode() for field, data in fields.items()}
        (FOLDER / "packed.json").write_text(json.dumps(texts, indent=1) + "\n")
    assert fields == _stored("packed.json")
    assert Intent.from_fields(7, fields) == _intent()


def test_intents_that_earlier_versions_left_are_read() -> None:
    """Arrow streams: the same rows, whose they are, what is left of them, and what the intent says besides."""
    fields = _stored("arrow.json")
    before, now = Intent.from_fields(7, fields), _intent()
    written = {
        name[2:].decode(): pa.ipc.open_stream(data).read_all()
        for name, data in fields.items()
        if name[:2] == b"v:"
    }
    plain = {view: table.drop_columns(["__entity"]) for view, table in written.items()}
    assert _shown(_tables(before)) == _shown(plain) == _shown(_tables(now))
    assert before.entities == now.entities == {*ENTITIES, *USERS}
    assert (before.changes, before.void, before.time_us, before.created_us) == (
        now.changes, now.void, now.time_us, now.created_us,
    )  # fmt: skip
    hidden = [(ENTITIES[2], "mixed"), (USERS[0], WHOLE), (USERS[1], "mixed")]
    assert _shown(_tables(before.without(hidden))) == _shown(_tables(now.without(hidden)))
    assert [len(table) for table in _tables(now.without(hidden)).values()] == [3, 2]
    again = Intent.from_fields(7, before.to_fields())
    assert _shown(_tables(again)) == _shown(plain), "whoever takes over may write it down anew"


def test_rows_of_both_versions_go_to_one_file(tmp_path: Path) -> None:
    """Upgraded after a crash: what the owner before left and what comes since have the same columns."""
    view = replace(MIXED, offline_path=str(tmp_path / "*.parquet"))
    sink = OfflineSink([view], 0)
    for intent in (Intent.from_fields(7, _stored("arrow.json")), _intent()):
        sink.extend(intent.rows)
    assert sink.row_count == 10
    sink.write(sink.take(), 7, 1)
    (part,) = tmp_path.glob("*.parquet")
    rows = pq.read_table(part)
    assert _shown({"mixed": rows[:5]}) == _shown({"mixed": rows[5:]})


def test_rows_of_before_a_segment_was_added_go_to_the_same_file(tmp_path: Path) -> None:
    """The repo changed after a crash: nothing of either is lost, and nobody stands still for it."""
    view = replace(
        MARKS,
        features=(Feature(name="loyal", value_type=ValueType.BOOL), *MARKS.features),
        offline_path=str(tmp_path / "*.parquet"),
    )
    sink = OfflineSink([view], 0)
    batch = sink.batch(CREATED_US)
    values = values_of(plan_of(view), {"loyal": [True, True, False], "good": [False, True, None]}, 3)
    batch.add(values, np.arange(3), USERS, AT_US)
    sink.extend(_intent().rows)
    sink.extend(batch.packed)
    sink.write(sink.take(), 7, 1)
    (part,) = tmp_path.glob("*.parquet")
    rows = pq.read_table(part)
    assert rows["good"].to_pylist() == [True, None, False, False, True, None]
    assert rows["loyal"].to_pylist() == [None, None, None, True, True, False]
