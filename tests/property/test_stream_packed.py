"""Rows of batches as bytes: they become the tables that plain values make, whole and in part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streaming.packed
from decision.schema import Value, ValueType
from online.keys import EntityKeys
from streaming.errors import StreamingError
from streaming.packed import entities_of, row_count, split, tables, without
from streaming.plan import ViewPlan
from streaming.sink import OfflineSink
from tests.oracle.offline_rows import offline_table
from tests.support.offline_rows import KEYS, MIXED, SECOND_US, column_of, plan_of, values_of

PLAN = plan_of(MIXED)
TEXT = st.text(st.sampled_from("aö\0🜚"), max_size=4)
SECONDS = st.integers(-(2**35), 2**35).map(SECOND_US.__mul__)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "DOUBLE": st.floats(),
    "FLOAT": st.floats() | st.sampled_from([1e300, -1e39, 1e-50]),
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": SECONDS,
    "STRING": TEXT,
    "BYTES": st.binary(max_size=4),
}


def _values(kind: ValueType, *, from_windows: bool) -> st.SearchStrategy[Any]:
    """Values of a type; windows give no list that is NULL or has NULLs in it."""
    name = kind.name.removesuffix("_LIST")
    if name == kind.name:
        return st.none() | VALUES[name]
    if from_windows:
        return st.lists(VALUES[name], max_size=3).map(tuple)
    return st.none() | st.lists(st.none() | VALUES[name], max_size=3).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[dict[str, Value]], dict[str, Any], list[int], int, bool]]:
    """Batches: entities, values by feature, which rows are logged, a logical time, and whether windows made them."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        count, from_windows = draw(st.integers(1, 4)), draw(st.booleans())
        entities = [{key.name: draw(VALUES[key.value_type.name]) for key in KEYS} for _ in range(count)]
        values = {
            feature.name: [draw(_values(feature.value_type, from_windows=from_windows)) for _ in range(count)]
            for feature in MIXED.features
        }
        rows = sorted(draw(st.sets(st.integers(0, count - 1))))
        made.append((entities, values, rows, draw(st.integers(0, 2**50)), from_windows))
    return made


def _same(found: pa.Table, expected: pa.Table) -> None:
    """Equal in schema, values and order; NaN is NaN."""
    assert found.schema == expected.schema
    for name in expected.column_names:
        one, other = found[name].combine_chunks(), expected[name].combine_chunks()
        assert repr(one.to_pylist()) == repr(other.to_pylist()), name
        one.validate(full=True)


@given(batches(), st.sampled_from([1, 400, 2**20]), st.sets(st.integers(0, 3)))
def test_packed_rows_become_the_table_of_their_values(
    made: list[Any], piece_bytes: int, forgotten: set[int]
) -> None:
    """Whatever types, NULLs and rows; the rows of an entity can be left out; and whose they are is known."""
    sink = OfflineSink([MIXED], 0)
    entities, times, keys = [], [], list[bytes]()
    values: dict[str, list[Value]] = {feature.name: [] for feature in MIXED.features}
    for number, (own, columns, rows, at_us, from_windows) in enumerate(made):
        given_columns = {
            feature.name: column_of(feature.value_type, columns[feature.name])
            if from_windows
            else columns[feature.name]
            for feature in MIXED.features
        }
        batch = sink.batch(number)
        own_keys = [PLAN.keys.encode(own[row]) for row in rows]
        batch.add(values_of(PLAN, given_columns, len(own)), np.array(rows, dtype=np.int64), own_keys, at_us)
        sink.extend(batch.packed)
        entities += [own[row] for row in rows]
        for name, column in values.items():
            column += [columns[name][row] for row in rows]
        times += [(at_us, number)] * len(rows)
        keys += own_keys
    assert sink.row_count == len(keys)
    parts = sink.take().get("mixed", [])
    assert [key for part in parts for key in entities_of(part)] == keys
    assert split(b"".join(parts)) == parts
    gone = {keys[number] for number in forgotten if number < len(keys)}
    kept = [number for number, key in enumerate(keys) if key not in gone]
    rest = [without(part, gone) for part in parts]
    assert sum(map(row_count, rest)) == len(kept)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streaming.packed, "PIECE_BYTES", piece_bytes)
        for own_parts, numbers in ((parts, range(len(keys))), (rest, kept)):
            if not own_parts:
                continue
            _same(
                pa.concat_tables(tables(own_parts)),
                offline_table(
                    MIXED,
                    [entities[number] for number in numbers],
                    {name: [column[number] for number in numbers] for name, column in values.items()},
                    [times[number] for number in numbers],
                ),
            )


def test_rows_of_a_later_version_are_refused() -> None:
    """Whoever goes back to this version is told to go on with the later one, before anything is lost."""
    layout = streaming.packed.Layout([streaming.packed.Field("n", ValueType.INT64)])
    part = layout.pack(1, [[5]])
    with pytest.raises(StreamingError, match="later one"):
        split(part + b"wprows2\n" + part[8:])


def test_rows_of_a_view_without_join_keys_are_logged() -> None:
    """There is one entity, whose key holds no value."""
    view = replace(MIXED, join_keys=(), features=MIXED.features[:1])
    plan = ViewPlan(view, None, None, EntityKeys("p", ()), "customer_id", "mixed")
    batch = OfflineSink([view], 0).batch(5)
    key = plan.keys.encode({})
    batch.add(values_of(plan, {"int32": [7]}, 1), np.array([0]), [key], 4)
    assert [entities_of(part) for part in batch.packed["mixed"]] == [[key]]
    (table,) = tables(batch.packed["mixed"])
    _same(table, offline_table(view, [{}], {"int32": [7]}, [(4, 5)]))
