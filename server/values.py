"""Values between protobuf (`waypost.features.v1.Value`) and Python (`decision.schema.Value`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from decision.schema import DType, Scalar, Value, ValueType
from server.errors import InvalidRequestError
from waypost.features.v1 import features_pb2

SECOND_US = 1_000_000
EARLIEST_US = -62_135_596_800 * SECOND_US
LATEST_US = 253_402_300_800 * SECOND_US - 1

_LIST_OFFSET = ValueType.BYTES_LIST - ValueType.BYTES
_INT_BITS = {ValueType.INT32: 32, ValueType.INT64: 64}


def timestamp(micros: int) -> Timestamp:
    """An instant; what lies outside of the years 1 to 9999 is moved to their edge, as protobuf demands."""
    clipped = min(max(micros, EARLIEST_US), LATEST_US)
    return Timestamp(seconds=clipped // SECOND_US, nanos=clipped % SECOND_US * 1_000)


def micros(instant: Timestamp) -> int:
    """Microseconds since the epoch; finer parts are dropped."""
    return instant.seconds * SECOND_US + instant.nanos // 1_000


def to_proto(value: Value, value_type: ValueType | DType) -> features_pb2.Value:
    """A typed value as a message; None is an unset kind."""
    if value is None:
        return features_pb2.Value()
    element, is_list = _element_type(value_type)
    if not is_list:
        return _scalar_to_proto(cast("Scalar", value), element)
    elements = (_scalar_to_proto(item, element) for item in cast("tuple[Scalar, ...]", value))
    return features_pb2.Value(list_value=features_pb2.ValueList(values=elements))


def from_proto(message: features_pb2.Value) -> Value:
    """The value in a message; instants are microseconds."""
    kind = message.WhichOneof("kind")
    match kind:
        case None:
            return None
        case "timestamp_value":
            return micros(message.timestamp_value)
        case "list_value":
            return tuple(cast("Scalar", from_proto(item)) for item in message.list_value.values)
        case _:
            return cast("Value", getattr(message, kind))


def context_value(message: features_pb2.Value, dtype: DType, field: str) -> Value:
    """A context value, checked against its declared type; an integer is taken for a float.

    Raises:
        InvalidRequestError: The message holds another type.
    """
    element, is_list = _element_type(dtype)
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if is_list != (kind == "list_value"):
        raise _mismatch(field, dtype, kind)
    if not is_list:
        return _context_scalar(message, element, field)
    items = message.list_value.values
    return tuple(_context_scalar(item, element, f"{field}[{index}]") for index, item in enumerate(items))


def key_value(message: features_pb2.Value, value_type: ValueType, field: str) -> Scalar:
    """A join key's value, cast to the type it has in the repo; integers may come as decimal text.

    Raises:
        InvalidRequestError: The value is missing, of another type or out of the type's range.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", field, "give the join key a value")
    if value_type in _INT_BITS:
        return _integer_key(message, kind, value_type, field)
    if kind != _KINDS[value_type]:
        raise _mismatch(field, value_type, kind)
    return cast("Scalar", from_proto(message))


def _integer_key(message: features_pb2.Value, kind: str, value_type: ValueType, field: str) -> int:
    if kind == "string_value" and message.string_value.removeprefix("-").isdecimal():
        number = int(message.string_value)
    elif kind == "int64_value":
        number = message.int64_value
    else:
        raise _mismatch(field, value_type, kind)
    bound = 1 << _INT_BITS[value_type] - 1
    if not -bound <= number < bound:
        raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", field, f"send an {value_type.name.lower()}")
    return number


def _context_scalar(message: features_pb2.Value, element: ValueType, field: str) -> Scalar:
    kind = message.WhichOneof("kind")
    if kind == "int64_value" and element is ValueType.DOUBLE:
        return float(message.int64_value)
    if kind != _KINDS[element]:
        raise _mismatch(field, element, kind)
    return cast("Scalar", from_proto(message))


def _mismatch(field: str, wanted: ValueType | DType, kind: str | None) -> InvalidRequestError:
    wanted_name = wanted.value if isinstance(wanted, DType) else wanted.name.lower()
    got = kind or "nothing"
    description = f"send a value of type {wanted_name}, not {got}"
    return InvalidRequestError.of(
        "FIELD_TYPE_MISMATCH", field, description, wantedType=wanted_name, sentKind=got
    )


def _element_type(value_type: ValueType | DType) -> tuple[ValueType, bool]:
    """The type of a scalar, or of a list's elements; and whether it is a list."""
    if isinstance(value_type, DType):
        name = value_type.value
        return _DTYPE_ELEMENTS[DType(name.removesuffix("_list"))], name.endswith("_list")
    if value_type >= ValueType.BYTES_LIST:
        return ValueType(value_type - _LIST_OFFSET), True
    return value_type, False


def _scalar_to_proto(value: Scalar, element: ValueType) -> features_pb2.Value:
    match element:
        case ValueType.BOOL:
            return features_pb2.Value(bool_value=bool(value))
        case ValueType.INT32 | ValueType.INT64:
            return features_pb2.Value(int64_value=int(value))
        case ValueType.DOUBLE | ValueType.FLOAT:
            return features_pb2.Value(double_value=float(value))
        case ValueType.UNIX_TIMESTAMP:
            return features_pb2.Value(timestamp_value=timestamp(int(value)))
        case ValueType.BYTES:
            return features_pb2.Value(bytes_value=cast("bytes", value))
        case _:
            return features_pb2.Value(string_value=cast("str", value))


def column_to_proto(values: Iterable[Value], value_type: ValueType) -> list[features_pb2.Value]:
    """Values of one feature as messages."""
    return [to_proto(value, value_type) for value in values]


_DTYPE_ELEMENTS = {
    DType.BOOL: ValueType.BOOL,
    DType.INT64: ValueType.INT64,
    DType.FLOAT64: ValueType.DOUBLE,
    DType.STRING: ValueType.STRING,
    DType.TIMESTAMP: ValueType.UNIX_TIMESTAMP,
}
_KINDS = {
    ValueType.BYTES: "bytes_value",
    ValueType.STRING: "string_value",
    ValueType.INT32: "int64_value",
    ValueType.INT64: "int64_value",
    ValueType.DOUBLE: "double_value",
    ValueType.FLOAT: "double_value",
    ValueType.BOOL: "bool_value",
    ValueType.UNIX_TIMESTAMP: "timestamp_value",
}
