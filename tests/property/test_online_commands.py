"""Packed commands against the keys they are made of."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Value, ValueType, View
from online.errors import KeyEncodingError, MissingJoinKeyError
from online.keys import EntityKeys
from online.plan import ReadGroup, ReadPlan
from online.rows import KeyColumns, Row

KEY_TYPES = (ValueType.INT64, ValueType.INT32, ValueType.STRING, ValueType.BYTES, ValueType.UNIX_TIMESTAMP)
FEATURES = tuple(Feature(name=f"f{number}", value_type=ValueType.INT64) for number in range(12))
FITTING: dict[ValueType, st.SearchStrategy[Value]] = {
    ValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    ValueType.STRING: st.text(max_size=300),
    ValueType.BYTES: st.binary(max_size=20),
    ValueType.UNIX_TIMESTAMP: st.integers(-(2**60), 2**60),
}
ODD: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.sampled_from(["7", "-12", "007", "", "\ud800", "x" * 70_000]),
    st.integers(-(2**70), 2**70),
    st.binary(max_size=3),
    st.just([1]),
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[tuple[JoinKey, ...], bool, list[Row]]:
    """Join keys, whether all features are read, and rows that may not fit them."""
    types = draw(st.lists(st.sampled_from(KEY_TYPES), max_size=3))
    keys = tuple(JoinKey(name=f"k{number}", value_type=kind) for number, kind in enumerate(types))
    fits, repeats = draw(st.booleans()), draw(st.booleans())
    row: st.SearchStrategy[dict[str, Value]] = st.fixed_dictionaries(
        {key.name: FITTING[key.value_type] if fits else FITTING[key.value_type] | ODD for key in keys}
    )
    rows: list[Row] = [*draw(st.lists(row, max_size=6))]
    if rows and repeats:
        rows.append(rows[0])
    return keys, draw(st.booleans()), rows


def group_of(keys: tuple[JoinKey, ...], whole: bool) -> ReadGroup:
    """The one group of a plan over one view, or over one feature of it."""
    view = View(name="v", join_keys=keys, features=FEATURES)
    refs = [FeatureRef(view="v", feature=f.name) for f in (FEATURES if whole else FEATURES[:1])]
    (group,) = ReadPlan.compile(Catalog(project="demo", views=(view,)), refs).groups
    return group


def packed(words: list[bytes]) -> bytes:
    """A command as RESP has it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def expected(keys: tuple[JoinKey, ...], group: ReadGroup, rows: Sequence[Row]) -> list[bytes | None]:
    """The commands, row by row."""
    commands: list[bytes | None] = []
    for row in rows:
        try:
            key = EntityKeys("demo", keys).encode(row)
        except MissingJoinKeyError:
            commands.append(None)
        else:
            commands.append(packed([b"HGETALL", key] if group.whole else [b"HMGET", key, *group.fields]))
    return commands


@given(asked())
def test_commands_name_the_keys_of_their_rows(drawn: tuple[tuple[JoinKey, ...], bool, list[Row]]) -> None:
    """Rows, and columns of them, give the commands of their keys, none where one is missing, or the same refusal."""
    keys, whole, rows = drawn
    group = group_of(keys, whole)
    assert group.whole == whole
    columns = KeyColumns({key.name: [row[key.name] for row in rows] for key in keys}, len(rows))
    try:
        wanted = expected(keys, group, rows)
    except KeyEncodingError:
        for given_rows in (rows, columns):
            with pytest.raises(KeyEncodingError):
                group.packer.commands(given_rows)
        return
    assert group.packer.commands(rows) == wanted
    assert group.packer.commands(columns) == wanted
    assert group.packer.commands([*rows, *rows]) == wanted + wanted


@given(
    st.lists(st.sampled_from(["a", "b", "é", "", None, "x" * 200]), max_size=12),
    st.sampled_from([5, b"a", ["a"]]),
)
def test_commands_that_are_remembered_are_those_of_their_texts(texts: list[str | None], odd: Value) -> None:
    """Asked again, in any order, beside what is not there or was never asked for; what is no text is refused still."""
    keys = (JoinKey(name="k", value_type=ValueType.STRING),)
    group = group_of(keys, whole=False)
    for rows in ([{"k": text} for text in texts[:6]], [{"k": text} for text in texts]):
        assert group.packer.commands(rows) == expected(keys, group, rows)
        with pytest.raises(KeyEncodingError):
            group.packer.commands([*rows, {"k": odd}])


def test_commands_of_more_texts_than_are_remembered() -> None:
    """What has to be forgotten is packed again."""
    keys = (JoinKey(name="k", value_type=ValueType.STRING),)
    group = group_of(keys, whole=True)
    for first in (0, 19_000, 0, 0):
        rows: list[Row] = [{"k": f"text {number}"} for number in range(first, first + 20_000)]
        assert group.packer.commands(rows) == expected(keys, group, rows)


@pytest.mark.parametrize("filling", ["", "\U0001f3d4" * 50], ids=["short", "long"])
def test_remembered_texts_stay_within_their_bound(filling: str) -> None:
    """Counted with the texts themselves, their commands and what holds them."""
    group = group_of((JoinKey(name="k", value_type=ValueType.STRING),), whole=True)
    gc.collect()
    tracemalloc.start()
    try:
        for first in range(0, 20_000, 500):
            group.packer.commands([{"k": f"{number}{filling}"} for number in range(first, first + 500)])
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 5 << 20


def test_commands_of_rows_without_a_column_are_none() -> None:
    """A column that nobody gave is missing in every row."""
    group = group_of((JoinKey(name="k", value_type=ValueType.INT64),), whole=True)
    assert group.packer.commands(KeyColumns({}, 2)) == [None, None]
    assert group.packer.commands([{}, {"other": 1}]) == [None, None]
