"""What is read of requests without protobuf is what protobuf reads, whatever bytes arrive."""

from __future__ import annotations

import pytest
from feast.protos.feast.serving.ServingService_pb2 import FeatureList
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decision.schema import ValueType
from server.feast.entities import GivenColumns, GivenMessages
from server.feast.kernels import WHOLE, whole_numbers
from server.feast.online_request import RequestReader
from server.feast.protos import GetOnlineFeaturesRequest, RepeatedValue, Value
from server.feast.selection import Asked

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
    assert message.SerializeToString() == data


@given(INT64)
def test_a_narrow_number_that_is_too_wide_is_left_to_protobuf(number: int) -> None:
    """Protobuf cuts it to 32 bits, so it would not be sent back as it came."""
    data = RepeatedValue(val=[Value(int64_val=number)]).SerializeToString().replace(b"\x20", b"\x18", 1)
    found = whole_numbers(ValueType.INT32, data, 1)
    assert (found is not None) == (-(1 << 31) <= number < 1 << 31)


NAMES = st.sampled_from(["user_id", "item", "", "größe"])
SCALARS = st.one_of(
    VALUES.filter(lambda value: value.WhichOneof("val") is not None),
    st.builds(Value, bytes_val=st.binary(max_size=3)),
    st.builds(Value, bool_val=st.booleans()),
)
MAPS = st.dictionaries(NAMES, st.builds(RepeatedValue, val=st.lists(SCALARS, max_size=3)), max_size=3)
HEADS = st.one_of(
    st.builds(GetOnlineFeaturesRequest, feature_service=st.text(max_size=4)),
    st.builds(
        GetOnlineFeaturesRequest,
        features=st.builds(FeatureList, val=st.lists(st.sampled_from(["a:b", "c:d"]), max_size=3)),
        full_feature_names=st.booleans(),
        include_feature_view_version_metadata=st.booleans(),
    ),
)


@st.composite
def requests(draw: st.DrawFn, maps: st.SearchStrategy[dict[str, RepeatedValue]] = MAPS) -> bytes:
    """A request, its fields in whatever order, some twice."""
    parts = [draw(HEADS).SerializeToString()]
    for field in ("entities", "request_context", "entities"):
        for name, column in draw(maps).items():
            message = GetOnlineFeaturesRequest()
            getattr(message, field)[name].CopyFrom(column)
            parts.append(message.SerializeToString())
    return b"".join(draw(st.permutations(parts)))


def check_request(data: bytes, reader: RequestReader) -> None:
    """A request is what protobuf reads, and where that reads none there is none."""
    try:
        expected = GetOnlineFeaturesRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            reader.read(data)
        return
    request = reader.read(data)
    assert request.asked == Asked(
        service=expected.feature_service,
        features=tuple(expected.features.val),
        full_names=expected.full_feature_names,
        view_versions=expected.include_feature_view_version_metadata,
    )
    for field, found, columns in (
        ("entities", request.entities, expected.entities),
        ("request_context", request.context, expected.request_context),
    ):
        known = GivenMessages(field, columns)
        assert set(found.names()) == set(columns)
        assert found.place("else", 1) == known.place("else", 1)
        for name in columns:
            assert found.count(name) == known.count(name)
            assert repr(found.plain(name)) == repr(known.plain(name))
            assert found.place(name, 2) == known.place(name, 2)
            for value_type in (*ARMS, ValueType.STRING, ValueType.BYTES):
                wanted = known.typed(name, value_type)
                assert found.typed(name, value_type) in (wanted, None)
    reader.keep(request)


@given(requests())
def test_requests_of_scalars_are_read_without_protobuf(data: bytes) -> None:
    """Whatever the order of their fields, and the same when they come again."""
    reader = RequestReader()
    for _ in range(2):
        check_request(data, reader)
    assert isinstance(reader.read(data).entities, GivenColumns)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request of any values with bytes changed, put in or left out."""
    lists = st.builds(RepeatedValue, val=st.lists(VALUES, max_size=2))
    data = bytearray(draw(requests(st.dictionaries(NAMES, lists, max_size=2))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@settings(max_examples=500)
@given(st.lists(damaged() | st.binary(max_size=12), min_size=1, max_size=4))
@example([b"\x1a\x06\x0a\x00\x12\x02\x0a\x00"])
@example([b"\x1a\x09\x0a\x01\xff\x12\x04\x0a\x02\x20\x01"])
def test_requests_of_whatever_bytes_are_read_as_by_protobuf(requests_drawn: list[bytes]) -> None:
    """Also where those before them were read by the same reader."""
    reader = RequestReader()
    for data in requests_drawn:
        check_request(data, reader)
