"""Feature values and event timestamps as Feast stores them: serialized `feast.types.Value` and `Timestamp`.

NULL is the empty byte string. `unix_timestamp_val` holds seconds: timestamps, microseconds everywhere in Waypost, are
floored on the way in. Bytes written here are those of protobuf's own deterministic serialization; any valid encoding
is read.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from functools import cache

from decision.schema import Scalar, Value, ValueType
from online.errors import ValueDecodeError, ValueEncodeError
from online.shown import short
from online.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    encode_varint,
    fields,
    read_varint,
    signed,
    whole_varint,
)

Encoder = Callable[[Value], bytes]
Decoder = Callable[[bytes], Value]

US_PER_SECOND = 1_000_000
_MOST_SECONDS = 9_223_372_036_854
_NULL_ARM = 19
NULL_SECONDS = -(2**63)
"""What Feast's SDK stores as the seconds of an instant that is missing (pandas' NaT)."""
NULL_INSTANT = b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"
"""A `feast.types.Value` with that."""
_LAST_ARM = 48
_NO_ARM = frozenset({9, 10, 30, 31})
_INT64_RANGE = range(-(1 << 63), 1 << 63)
_INT32_RANGE = range(-(1 << 31), 1 << 31)
_TAGGED_DOUBLE = struct.Struct("<Bd")
_TAGGED_FLOAT = struct.Struct("<Bf")
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")

_ELEMENT = {
    ValueType.BYTES_LIST: ValueType.BYTES,
    ValueType.STRING_LIST: ValueType.STRING,
    ValueType.INT32_LIST: ValueType.INT32,
    ValueType.INT64_LIST: ValueType.INT64,
    ValueType.DOUBLE_LIST: ValueType.DOUBLE,
    ValueType.FLOAT_LIST: ValueType.FLOAT,
    ValueType.BOOL_LIST: ValueType.BOOL,
    ValueType.UNIX_TIMESTAMP_LIST: ValueType.UNIX_TIMESTAMP,
}
_WIRE = {
    ValueType.BYTES: LENGTH,
    ValueType.STRING: LENGTH,
    ValueType.INT32: VARINT,
    ValueType.INT64: VARINT,
    ValueType.DOUBLE: FIXED64,
    ValueType.FLOAT: FIXED32,
    ValueType.BOOL: VARINT,
    ValueType.UNIX_TIMESTAMP: VARINT,
}
_WIDENS = {
    ValueType.INT64: ValueType.INT32,
    ValueType.DOUBLE: ValueType.FLOAT,
    ValueType.INT64_LIST: ValueType.INT32_LIST,
    ValueType.DOUBLE_LIST: ValueType.FLOAT_LIST,
}
"""What a view whose type was widened may still find stored."""


def encode_value(value_type: ValueType, value: Value) -> bytes:
    """Serialize one value; None gives b"".

    Raises:
        ValueEncodeError: The value does not fit the type. Ints are taken for floats, bools only for BOOL; a double
            beyond float32 becomes infinite, as in protobuf.
    """
    return encoder(value_type)(value)


def decode_value(value_type: ValueType, data: bytes) -> Value:
    """Read one stored value; b"" and a value with nothing set give None.

    Raises:
        ValueDecodeError: The bytes are malformed, or hold another type that does not widen to this one.
    """
    return decoder(value_type)(data)


def encode_timestamp(event_us: int, rest_ns: int = 0) -> bytes:
    """Serialize microseconds since the epoch, and 0 to 999 nanoseconds beyond, as `google.protobuf.Timestamp`.

    The epoch itself gives b"".
    """
    seconds, rest_us = divmod(event_us, US_PER_SECOND)
    nanos = rest_us * 1_000 + rest_ns
    encoded = b"\x08" + encode_varint(seconds) if seconds else b""
    return encoded + b"\x10" + encode_varint(nanos) if nanos else encoded


def decode_timestamp(data: bytes) -> int:
    """Read a `google.protobuf.Timestamp` as microseconds, nanoseconds floored; ValueDecodeError where malformed."""
    seconds = nanos = 0
    offset, end = 0, len(data)
    while offset < end:
        tag = data[offset]
        if tag == 0x08:
            seconds, offset = read_varint(data, offset + 1)
        elif tag == 0x10:
            nanos, offset = read_varint(data, offset + 1)
        else:
            return _decode_any_timestamp(data)
    return _micros(signed(seconds, 64), signed(nanos, 32))


def _decode_any_timestamp(data: bytes) -> int:
    found = {1: 0, 2: 0}
    for number, _, value in fields(data):
        if number in found and isinstance(value, int):
            found[number] = value
    return _micros(signed(found[1], 64), signed(found[2], 32))


def _micros(seconds: int, nanos: int = 0) -> int:
    """An instant in microseconds; what lies beyond 64 bits of them (the year 294,246) is malformed."""
    if not -_MOST_SECONDS < seconds < _MOST_SECONDS:
        raise ValueDecodeError(f"an instant of {seconds} seconds is beyond the range of timestamps")
    return seconds * US_PER_SECOND + nanos // 1_000


# Encoding


@cache
def encoder(value_type: ValueType) -> Encoder:
    """Return the function that serializes values of one type; see `encode_value`."""
    element_type = _ELEMENT.get(value_type)
    if element_type is not None:
        return _list_encoder(value_type, element_type)
    if value_type.opaque:
        raise ValueEncodeError(
            f"{value_type.name} is passed through as stored; there is no encoder of it here"
        )
    tag = encode_varint(value_type << 3 | _WIRE[value_type])
    payload = _PAYLOADS[value_type]

    def encode(value: Value) -> bytes:
        return b"" if value is None else tag + payload(value)

    return encode


def _list_encoder(value_type: ValueType, element_type: ValueType) -> Encoder:
    tag = encode_varint(value_type << 3 | LENGTH)
    payload = _PAYLOADS[element_type]
    repeated = _repeat if _WIRE[element_type] == LENGTH else _pack

    def encode(value: Value) -> bytes:
        if value is None:
            return b""
        if not isinstance(value, tuple | list):
            raise ValueEncodeError(f"{short(value)} is not a list; {value_type.name} takes a tuple")
        message = repeated([payload(element) for element in value])
        return tag + encode_varint(len(message)) + message

    return encode


def _repeat(payloads: list[bytes]) -> bytes:
    return b"".join([b"\x0a" + payload for payload in payloads])


def _pack(payloads: list[bytes]) -> bytes:
    packed = b"".join(payloads)
    return b"\x0a" + encode_varint(len(packed)) + packed if packed else b""


def _bytes_payload(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueEncodeError(f"{short(value)} is not bytes")
    return encode_varint(len(value)) + value


def _text_payload(value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueEncodeError(f"{short(value)} is not text")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise ValueEncodeError(f"{short(value)} is not valid Unicode text") from error
    return encode_varint(len(encoded)) + encoded


def _int32_payload(value: Value) -> bytes:
    return encode_varint(_integer(value, _INT32_RANGE))


def _int64_payload(value: Value) -> bytes:
    return encode_varint(_integer(value, _INT64_RANGE))


def _timestamp_payload(value: Value) -> bytes:
    number = value if type(value) is int else _integer(value, _INT64_RANGE)
    return encode_varint(_integer(number // US_PER_SECOND, _INT64_RANGE))


def _integer(value: object, allowed: range) -> int:
    if isinstance(value, bool):
        raise ValueEncodeError(f"{value} is a bool, not an integer")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueEncodeError(f"{short(value)} is not an integer") from error
    if number not in allowed:
        raise ValueEncodeError(f"{number} is outside {allowed.start} … {allowed.stop - 1}")
    return number


def _bool_payload(value: Value) -> bytes:
    if not isinstance(value, bool):
        raise ValueEncodeError(f"{short(value)} is not a bool")
    return b"\x01" if value else b"\x00"


def _double_payload(value: Value) -> bytes:
    return _DOUBLE.pack(_real(value))


def _float_payload(value: Value) -> bytes:
    number = _real(value)
    try:
        return _FLOAT.pack(number)
    except OverflowError:
        return _FLOAT.pack(math.copysign(math.inf, number))


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise ValueEncodeError(f"{short(value)} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueEncodeError(f"{short(value)} is too large for a double") from error


_PAYLOADS: dict[ValueType, Callable[[Value], bytes]] = {
    ValueType.BYTES: _bytes_payload,
    ValueType.STRING: _text_payload,
    ValueType.INT32: _int32_payload,
    ValueType.INT64: _int64_payload,
    ValueType.DOUBLE: _double_payload,
    ValueType.FLOAT: _float_payload,
    ValueType.BOOL: _bool_payload,
    ValueType.UNIX_TIMESTAMP: _timestamp_payload,
}


# Decoding: a fast path for the one encoding that protobuf writes, the general parser for every other


@cache
def decoder(value_type: ValueType) -> Decoder:
    """Return the function that reads values of one type; see `decode_value`. An opaque type's stay bytes."""
    if value_type.opaque:
        return _as_stored
    if value_type in _ELEMENT:
        return lambda data: _decode_any(value_type, data)
    return _FAST_DECODERS[value_type]


def _as_stored(data: bytes) -> Value:
    return data or None


def _decode_int64(data: bytes) -> Value:
    if data[:1] == b"\x20" and (number := whole_varint(data, 1)) is not None:
        return signed(number, 64) if number >> 63 else number
    return _decode_any(ValueType.INT64, data)


def _decode_int32(data: bytes) -> Value:
    if data[:1] == b"\x18" and (number := whole_varint(data, 1)) is not None:
        return signed(number, 32)
    return _decode_any(ValueType.INT32, data)


def _decode_unix_timestamp(data: bytes) -> Value:
    if data == NULL_INSTANT:
        return None
    if data[:1] == b"\x40" and (number := whole_varint(data, 1)) is not None:
        return _micros(signed(number, 64))
    return _decode_any(ValueType.UNIX_TIMESTAMP, data)


def _decode_bool(data: bytes) -> Value:
    if data == b"\x38\x01":
        return True
    if data == b"\x38\x00":
        return False
    return _decode_any(ValueType.BOOL, data)


def _decode_double(data: bytes) -> Value:
    if len(data) == 9 and data[0] == 0x29:
        number: float = _TAGGED_DOUBLE.unpack(data)[1]
        return number
    return _decode_any(ValueType.DOUBLE, data)


def _decode_float(data: bytes) -> Value:
    if len(data) == 5 and data[0] == 0x35:
        number: float = _TAGGED_FLOAT.unpack(data)[1]
        return number
    return _decode_any(ValueType.FLOAT, data)


def _decode_string(data: bytes) -> Value:
    if len(data) > 1 and data[0] == 0x12 and data[1] == len(data) - 2 < 128:
        return _text(data[2:])
    return _decode_any(ValueType.STRING, data)


def _decode_bytes(data: bytes) -> Value:
    if len(data) > 1 and data[0] == 0x0A and data[1] == len(data) - 2 < 128:
        return data[2:]
    return _decode_any(ValueType.BYTES, data)


_FAST_DECODERS: dict[ValueType, Decoder] = {
    ValueType.BYTES: _decode_bytes,
    ValueType.STRING: _decode_string,
    ValueType.INT32: _decode_int32,
    ValueType.INT64: _decode_int64,
    ValueType.DOUBLE: _decode_double,
    ValueType.FLOAT: _decode_float,
    ValueType.BOOL: _decode_bool,
    ValueType.UNIX_TIMESTAMP: _decode_unix_timestamp,
}


def _decode_any(value_type: ValueType, data: bytes) -> Value:
    arm, payload = _set_arm(data)
    if arm in (0, _NULL_ARM):
        return None
    if arm not in (value_type, _WIDENS.get(value_type)):
        raise ValueDecodeError(f"stored value is {_arm_name(arm)}, not {value_type.name}")
    stored_type = ValueType(arm)
    element_type = _ELEMENT.get(stored_type)
    if element_type is not None and isinstance(payload, bytes):
        return _elements(element_type, payload)
    return _scalar(stored_type, payload)


def _set_arm(data: bytes) -> tuple[int, int | bytes]:
    """Return the arm of the oneof that is set (0 for none): the last one, a repeated list message being merged."""
    arm: int = 0
    payload: int | bytes = b""
    for number, wire, value in fields(data):
        if number > _LAST_ARM or number in _NO_ARM or wire != _arm_wire(number):
            continue
        merges = number == arm and number in _LIST_ARMS
        payload = payload + value if merges else value  # type: ignore[operator]
        arm = number
    return arm, payload


_LIST_ARMS = frozenset(int(value_type) for value_type in _ELEMENT)
_ARM_NAMES = {int(value_type): value_type.name for value_type in ValueType}
_ARM_WIRES = {int(value_type): wire for value_type, wire in _WIRE.items()} | {_NULL_ARM: VARINT}


def _arm_wire(number: int) -> int:
    return _ARM_WIRES.get(number, LENGTH)


def _arm_name(arm: int) -> str:
    return _ARM_NAMES.get(arm, f"arm {arm} of feast.types.Value")


def _elements(element_type: ValueType, message: bytes) -> tuple[Scalar, ...]:
    wire = _WIRE[element_type]
    elements: list[Scalar] = []
    for number, stored_wire, value in fields(message):
        if number != 1:
            continue
        if stored_wire == wire:
            elements.append(_scalar(element_type, value))
        elif stored_wire == LENGTH and isinstance(value, bytes):
            elements += [_scalar(element_type, item) for item in _unpack(wire, value)]
    return tuple(elements)


def _unpack(wire: int, packed: bytes) -> list[int | bytes]:
    if wire != VARINT:
        width = 8 if wire == FIXED64 else 4
        if len(packed) % width:
            raise ValueDecodeError(f"packed list of {len(packed)} bytes is not a multiple of {width}")
        return [packed[offset : offset + width] for offset in range(0, len(packed), width)]
    numbers: list[int | bytes] = []
    offset = 0
    while offset < len(packed):
        number, offset = read_varint(packed, offset)
        numbers.append(number)
    return numbers


def _scalar(value_type: ValueType, payload: int | bytes) -> Scalar:
    return _SCALARS[value_type](payload)  # type: ignore[arg-type]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueDecodeError("stored text is not UTF-8") from error


_SCALARS: dict[ValueType, Callable[[int], Scalar] | Callable[[bytes], Scalar]] = {
    ValueType.BYTES: bytes,
    ValueType.STRING: _text,
    ValueType.INT32: lambda number: signed(number, 32),
    ValueType.INT64: lambda number: signed(number, 64),
    ValueType.DOUBLE: lambda data: float(_DOUBLE.unpack(data)[0]),
    ValueType.FLOAT: lambda data: float(_FLOAT.unpack(data)[0]),
    ValueType.BOOL: bool,
    ValueType.UNIX_TIMESTAMP: lambda number: _micros(signed(number, 64)),
}
