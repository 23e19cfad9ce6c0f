from __future__ import annotations

import math
import struct

import pytest
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Value, ValueType
from online.errors import ValueDecodeError, ValueEncodeError
from online.values import decode_timestamp, decode_value, encode_timestamp, encode_value
from tests.support.feast_value import load_value_pb2

Value_pb2 = load_value_pb2()
US = 1_000_000
ELEMENTS: dict[str, st.SearchStrategy[object]] = {
    "BYTES": st.binary(max_size=300),
    "STRING": st.text(max_size=150),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "DOUBLE": st.floats(),
    "FLOAT": st.floats(width=32),
    "BOOL": st.booleans(),
    "UNIX_TIMESTAMP": st.integers(-(2**40), 2**40),
}


def arm(value_type: ValueType) -> str:
    """Name the message's field that holds a type."""
    return f"{value_type.name.lower()}_val"


def values(value_type: ValueType) -> st.SearchStrategy[object]:
    """Draw values as Feast keeps them."""
    name = value_type.name
    if name.endswith("_LIST"):
        return st.lists(ELEMENTS[name.removesuffix("_LIST")], max_size=6).map(tuple)
    return ELEMENTS[name]


TYPES = [value_type for value_type in ValueType if not value_type.opaque]
typed_values = st.sampled_from(TYPES).flatmap(lambda t: st.tuples(st.just(t), values(t)))


def feast_value(value_type: ValueType, stored: object) -> Message:
    """Build Feast's own message; timestamps are in seconds, as it keeps them."""
    message: Message = Value_pb2.Value()
    if isinstance(stored, tuple):
        inner = getattr(message, arm(value_type))
        inner.SetInParent()
        inner.val.extend(stored)
    else:
        setattr(message, arm(value_type), stored)
    return message


def ours(value_type: ValueType, stored: object) -> Value:
    """Turn what Feast keeps into what Waypost's Python sees."""
    if value_type == ValueType.UNIX_TIMESTAMP:
        return stored * US  # type: ignore[operator]
    if value_type == ValueType.UNIX_TIMESTAMP_LIST:
        return tuple(item * US for item in stored)  # type: ignore[attr-defined]
    return stored  # type: ignore[return-value]


def same(left: object, right: object) -> bool:
    """Compare bit for bit; all NaN are one."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    return type(left) is type(right) and left == right


@settings(max_examples=300, deadline=None)
@given(typed_values)
def test_values_encode_to_the_bytes_of_feast(case: tuple[ValueType, object]) -> None:
    """Every value of every type is encoded to exactly the bytes Feast's message serializes to."""
    value_type, stored = case
    assert (
        encode_value(value_type, ours(value_type, stored))
        == feast_value(value_type, stored).SerializeToString()
    )


@settings(max_examples=300, deadline=None)
@given(typed_values)
def test_values_decode_what_feast_wrote(case: tuple[ValueType, object]) -> None:
    """Every value that Feast's message serializes comes back, bit for bit."""
    value_type, stored = case
    decoded = decode_value(value_type, feast_value(value_type, stored).SerializeToString())
    assert same(decoded, ours(value_type, stored))


def varint(number: int) -> bytes:
    """Encode a varint without the code under test."""
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes(encoded) + bytes((number,))


unknown_fields = st.one_of(
    st.builds(lambda n, v: varint(n << 3) + varint(v), st.integers(49, 2**20), st.integers(0, 2**64 - 1)),
    st.builds(
        lambda n, v: varint(n << 3 | 2) + varint(len(v)) + v, st.integers(49, 5000), st.binary(max_size=9)
    ),
    st.builds(lambda n, v: varint(n << 3 | 1) + v, st.integers(49, 5000), st.binary(min_size=8, max_size=8)),
    st.builds(lambda n, v: varint(n << 3 | 5) + v, st.integers(49, 5000), st.binary(min_size=4, max_size=4)),
    st.builds(lambda n: varint(n << 3 | 3) + b"\x08\x01" + varint(n << 3 | 4), st.integers(49, 5000)),
)
pieces = st.lists(
    st.one_of(unknown_fields, typed_values.map(lambda case: feast_value(*case).SerializeToString())),
    max_size=4,
)


def oracle(value_type: ValueType, data: bytes) -> tuple[str, Value]:
    """Say what protobuf makes of the bytes: a value, null, another arm, or malformed."""
    message = Value_pb2.Value()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return "malformed", None
    which = message.WhichOneof("val")
    if which is None or which == "null_val":
        return "value", None
    if which != arm(value_type):
        return "other", None
    stored = getattr(message, which)
    value = ours(value_type, tuple(stored.val) if which.endswith("list_val") else stored)
    return ("malformed", None) if beyond_microseconds(value_type, value) else ("value", value)


def beyond_microseconds(value_type: ValueType, value: Value) -> bool:
    """Say whether an instant does not fit 64 bits of microseconds, and cannot be read."""
    if value_type not in (ValueType.UNIX_TIMESTAMP, ValueType.UNIX_TIMESTAMP_LIST):
        return False
    most_us = 9_223_372_036_854 * US
    return any(not -most_us < item < most_us for item in (value if isinstance(value, tuple) else (value,)))  # type: ignore[operator]


def verdict(value_type: ValueType, data: bytes) -> tuple[str, Value]:
    """Say what this codec makes of the bytes, in the oracle's words."""
    try:
        return "value", decode_value(value_type, data)
    except ValueDecodeError as error:
        return ("other" if "stored value is" in str(error) else "malformed"), None


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TYPES), pieces)
def test_values_read_any_valid_encoding_as_protobuf_does(value_type: ValueType, parts: list[bytes]) -> None:
    """Unknown fields, repeated arms and merged lists are read the way protobuf reads them."""
    data = b"".join(parts)
    expected, value = oracle(value_type, data)
    found, decoded = verdict(value_type, data)
    if expected == "other" and found == "value":
        message = Value_pb2.Value.FromString(data)
        assert (value_type.name, message.WhichOneof("val").removesuffix("_val").upper()) in {
            ("INT64", "INT32"),
            ("DOUBLE", "FLOAT"),
            ("INT64_LIST", "INT32_LIST"),
            ("DOUBLE_LIST", "FLOAT_LIST"),
        }
        return
    assert found == expected
    assert same(decoded, value)


@settings(max_examples=400, deadline=None)
@given(typed_values, st.data())
def test_values_survive_damaged_bytes(case: tuple[ValueType, object], data: st.DataObject) -> None:
    """Flipped, cut and inserted bytes give protobuf's value or a ValueDecodeError, never another exception."""
    value_type, stored = case
    damaged = bytearray(feast_value(value_type, stored).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged)))
        damaged[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    found, decoded = verdict(value_type, bytes(damaged))
    expected, value = oracle(value_type, bytes(damaged))
    if found == expected == "value":
        assert same(decoded, value)
    elif expected == "value":
        pytest.fail(f"protobuf reads {bytes(damaged)!r}, this codec says {found}")


@settings(max_examples=400, deadline=None)
@given(st.integers(-62_135_596_800 * US, 253_402_300_799 * US))
def test_timestamps_agree_with_protobuf(event_us: int) -> None:
    """Event timestamps have protobuf's bytes and come back to the microsecond, before the epoch too."""
    message = Timestamp(seconds=event_us // US, nanos=event_us % US * 1_000)
    assert encode_timestamp(event_us) == message.SerializeToString()
    assert decode_timestamp(message.SerializeToString()) == event_us


def test_timestamps_with_unknown_fields_are_read() -> None:
    """A timestamp with fields of a later version, or its own in another order, is read."""
    assert decode_timestamp(b"\x10\xe8\x07\x1a\x01x\x08\x02") == 2 * US + 1


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        (ValueType.INT64, True),
        (ValueType.INT64, 2**63),
        (ValueType.INT32, 2**31),
        (ValueType.INT64, 1.0),
        (ValueType.STRING, 5),
        (ValueType.STRING, "\ud800"),
        (ValueType.BYTES, "text"),
        (ValueType.BOOL, 1),
        (ValueType.DOUBLE, "1"),
        (ValueType.DOUBLE, 10**400),
        (ValueType.INT64_LIST, 5),
        (ValueType.INT64_LIST, (1, None)),
    ],
)
def test_values_of_another_type_are_refused(value_type: ValueType, value: Value) -> None:
    """A value that does not fit its type is refused, not bent."""
    with pytest.raises(ValueEncodeError):
        encode_value(value_type, value)


def test_values_null_is_the_empty_string() -> None:
    """None is stored as no bytes in every type, and read back as None."""
    for value_type in ValueType:
        assert value_type.opaque or encode_value(value_type, None) == b""
        assert decode_value(value_type, b"") is None


def test_values_an_instant_that_feast_stored_as_missing_is_null() -> None:
    """Pandas' NaT, as the SDK stores it."""
    data = load_value_pb2().Value(unix_timestamp_val=-(2**63)).SerializeToString()
    assert decode_value(ValueType.UNIX_TIMESTAMP, data) is None


def test_values_opaque_types_pass_through() -> None:
    """A type that no rule reads is read as the bytes that are stored, and has no encoder."""
    opaque = [value_type for value_type in ValueType if value_type.opaque]
    assert ValueType.UNIX_TIMESTAMP_LIST not in opaque
    for value_type in opaque:
        assert decode_value(value_type, b"\xa2\x01\x00") == b"\xa2\x01\x00"
        with pytest.raises(ValueEncodeError, match="passed through"):
            encode_value(value_type, b"")


def test_values_timestamps_are_floored_to_seconds() -> None:
    """Microseconds are floored, also before the epoch."""
    assert decode_value(ValueType.UNIX_TIMESTAMP, encode_value(ValueType.UNIX_TIMESTAMP, 1_999_999)) == US
    assert decode_value(ValueType.UNIX_TIMESTAMP, encode_value(ValueType.UNIX_TIMESTAMP, -1)) == -US


def test_values_narrow_types_are_read_where_the_view_was_widened() -> None:
    """An int32 stored before a view became int64 is still read; the other way round is refused."""
    assert decode_value(ValueType.INT64, encode_value(ValueType.INT32, -7)) == -7
    assert decode_value(ValueType.DOUBLE_LIST, encode_value(ValueType.FLOAT_LIST, (0.5,))) == (0.5,)
    with pytest.raises(ValueDecodeError, match="INT64, not INT32"):
        decode_value(ValueType.INT32, encode_value(ValueType.INT64, 7))
