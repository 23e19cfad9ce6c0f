"""Values between Python, JSON and stored bytes, as Feast's own type map converts them."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from feast.feature_server_utils import _value_to_native
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType as FeastType

from decision.schema import ValueType
from online.errors import ValueEncodeError
from server.feast.encoding import encode, encode_message, micros_of
from server.feast.plain import json_of, python_of
from server.feast.protos import Value
from tests.support.feast_world import some_kind

KINDS = list(ValueType)
NULL = Value.FromString(b"\x98\x01\x00")
"""A value that says it is null."""
SETS = [kind for kind in KINDS if kind.name.endswith("_SET")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_values_are_encoded_and_read_as_feast_does(kind: ValueType) -> None:
    """Random values of a type: the bytes, the Python value and the JSON are Feast's."""
    rng = random.Random(kind)
    for _ in range(50):
        value = some_kind(kind.name, rng)
        if value == b"":  # alone, Feast takes it for nothing; among other bytes it does not
            continue
        (theirs,) = python_values_to_proto_values([value], FeastType[kind.name])
        ours = Value.FromString(encode(kind, value))
        assert normal(ours) == normal(theirs), value
        assert same(python_of(theirs), feast_value_type_to_python_type(theirs))
        assert same(json_of(theirs), _value_to_native(theirs))
        assert normal(Value.FromString(encode_message(kind, theirs))) == normal(theirs)


def normal(message: Any) -> Any:
    """Sets in one order."""
    copy = Value()
    copy.CopyFrom(message)
    arm = copy.WhichOneof("val")
    if arm is not None and arm.endswith("_set_val"):
        items = sorted(getattr(copy, arm).val)
        del getattr(copy, arm).val[:]
        getattr(copy, arm).val.extend(items)
    return copy


def same(ours: Any, theirs: Any) -> bool:
    """Equal, NaN to NaN, of one type."""
    if isinstance(ours, float) and math.isnan(ours):
        return isinstance(theirs, float) and math.isnan(theirs)
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize(
    ("kind", "value", "arm"),
    [
        (ValueType.INT64, "-12", {"int64_val": -12}),
        (ValueType.INT32, 3.0, {"int32_val": 3}),
        (ValueType.DOUBLE, "1e3", {"double_val": 1000.0}),
        (ValueType.BOOL, "True", {"bool_val": True}),
        (ValueType.UNIX_TIMESTAMP, "2023-11-14T22:13:20Z", {"unix_timestamp_val": 1_700_000_000}),
        (ValueType.UNIX_TIMESTAMP, 1_700_000_000, {"unix_timestamp_val": 1_700_000_000}),
        (ValueType.STRING_LIST, '["a"]', {"string_list_val": {"val": ["a"]}}),
        (ValueType.STRING, 7, {"string_val": "7"}),
    ],
    ids=map(str, range(8)),
)
def test_text_and_numbers_are_cast_where_the_meaning_is_plain(kind: ValueType, value: Any, arm: Any) -> None:
    """What a push as text, or JSON, brings."""
    assert Value.FromString(encode(kind, value)) == Value(**arm)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ValueType.INT64, "1.5"),
        (ValueType.INT64, "007"),
        (ValueType.INT64, 1.5),
        (ValueType.INT64, True),
        (ValueType.INT32, 2**31),
        (ValueType.INT64, 2**63),
        (ValueType.DOUBLE, "high"),
        (ValueType.DOUBLE, True),
        (ValueType.BOOL, "yes"),
        (ValueType.BOOL, 2),
        (ValueType.STRING, ["a"]),
        (ValueType.STRING, "\ud800"),
        (ValueType.UUID, "no"),
        (ValueType.DECIMAL, "no"),
        (ValueType.JSON, "{"),
        (ValueType.MAP, [1]),
        (ValueType.SCALAR_MAP, {"text": 1}),
        (ValueType.INT64_LIST, 5),
        (ValueType.INT64_LIST, [1, None]),
        (ValueType.UNIX_TIMESTAMP, "soon"),
        (ValueType.UNIX_TIMESTAMP, 1_700_000_000_000),
        (ValueType.ZONED_TIMESTAMP, 5),
    ],
    ids=map(str, range(22)),
)
def test_what_has_no_plain_meaning_is_refused(kind: ValueType, value: Any) -> None:
    """Refused, not bent; nanoseconds or milliseconds for seconds too."""
    with pytest.raises(ValueEncodeError):
        encode(kind, value)


def test_nothing_is_stored_as_no_bytes() -> None:
    """None, NaN and an unset message, in every type."""
    for kind in KINDS:
        assert encode(kind, None) == encode(kind, math.nan) == b""
        assert encode_message(kind, Value()) == encode_message(kind, NULL) == b""


def test_instants_keep_microseconds() -> None:
    """Naive is UTC, an offset counts."""
    assert micros_of("2024-01-01T00:00:00.000001") == 1_704_067_200_000_001
    assert micros_of("2024-01-01T01:00:00+01:00") == 1_704_067_200_000_000
    assert micros_of(datetime(2024, 1, 1, tzinfo=UTC)) == 1_704_067_200_000_000
    assert micros_of(1_704_067_200) == 1_704_067_200_000_000


def test_a_nan_in_words_is_nothing_too() -> None:
    """JSON and the texts of a push have no other way to write one; a text that says so stays a text."""
    for kind in (ValueType.DOUBLE, ValueType.FLOAT, ValueType.DECIMAL):
        assert encode(kind, "NaN") == encode(kind, " nan") == b""
    assert Value.FromString(encode(ValueType.STRING, "nan")).string_val == "nan"
    assert Value.FromString(encode(ValueType.DOUBLE, "Infinity")).double_val == math.inf


def test_feasts_own_word_for_no_instant_is_nothing() -> None:
    """The SDK turns a NaT into the least int64, in messages and in JSON."""
    column = np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]")
    _, theirs = python_values_to_proto_values(column, FeastType.UNIX_TIMESTAMP)
    assert theirs.unix_timestamp_val == -(1 << 63)
    assert encode_message(ValueType.UNIX_TIMESTAMP, theirs) == b""
    assert encode(ValueType.UNIX_TIMESTAMP, theirs.unix_timestamp_val) == b""
    assert Value.FromString(encode(ValueType.INT64, -(1 << 63))).int64_val == -(1 << 63)
