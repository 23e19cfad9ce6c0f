"""Whole numbers of entity columns are those that protobuf reads, whatever bytes arrive."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from decision.schema import ValueType
from server.feast.kernels import WHOLE, whole_numbers
from server.feast.protos import RepeatedValue, Value

ARMS = {
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.UNIX_TIMESTAMP: "unix_timestamp_val",
}
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(
    st.builds(Value, int64_val=INT64),
    st.builds(Value, int32_val=INT32),
    st.builds(Value, unix_timestamp_val=INT64),
    st.builds(Value, string_val=st.text(max_size=3)),
    st.builds(Value, double_val=st.floats()),
    st.just(Value()),
)
COLUMNS = st.one_of(
    st.lists(st.builds(Value, int64_val=INT64)),
    st.lists(st.builds(Value, int32_val=INT32)),
    st.lists(st.builds(Value, unix_timestamp_val=INT64)),
    st.lists(VALUES, max_size=3),
)


@given(COLUMNS, st.sampled_from(sorted(WHOLE)))
def test_columns_are_read_as_protobuf_reads_them(values: list[Value], value_type: ValueType) -> None:
    """All values of the type, in order; nothing where one is of another."""
    data = RepeatedValue(val=values).SerializeToString()
    arm = ARMS[value_type]
    expected = [getattr(value, arm) for value in values]
    fits = all(value.WhichOneof("val") == arm for value in values)
    found = whole_numbers(value_type, data, len(values))
    assert (found is not None) == fits
    if found is not None:
        assert found.tolist() == expected


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A column with a byte changed, or cut off."""
    values = draw(st.lists(st.builds(Value, int64_val=INT64), min_size=1, max_size=4))
    data = bytearray(RepeatedValue(val=values).SerializeToString())
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@given(st.one_of(broken(), st.binary(max_size=40)), st.integers(0, 4))
@example(b"\x0a\x0b\x20" + b"\xff" * 9 + b"\x7f", 1)
@example(b"\x0a\x00", 1)
def test_whatever_bytes_are_read_as_protobuf_reads_them_or_not_at_all(data: bytes, count: int) -> None:
    """No bytes are taken for other numbers than protobuf takes them for."""
    found = whole_numbers(ValueType.INT64, data, count)
    if found is None:
        return
    try:
        message = RepeatedValue.FromString(data)
    except DecodeError:
        raise AssertionError("protobuf refuses what was read") from None
    assert [value.int64_val for value in message.val] == found.tolist()
    assert all(value.WhichOneof("val") == "int64_val" for value in message.val)
