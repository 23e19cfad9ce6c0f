"""The protobuf wire format, as far as stored values need it.

Errors are `ValueDecodeError` with the byte offset; no protobuf object is built anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from online.errors import ValueDecodeError

VARINT, FIXED64, LENGTH, START_GROUP, END_GROUP, FIXED32 = range(6)
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_TAG_BYTES = 5
_MAX_VARINT_BYTES = 10
_MAX_DEPTH = 100
_MASK64 = (1 << 64) - 1
_SINGLE_BYTES = tuple(bytes((number,)) for number in range(128))


def encode_varint(number: int) -> bytes:
    """Encode an int64 (negative ones as two's complement, ten bytes) or uint64."""
    if 0 <= number < 128:
        return _SINGLE_BYTES[number]
    number &= _MASK64
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, offset: int, limit: int = _MAX_VARINT_BYTES) -> tuple[int, int]:
    """Read an unsigned varint of at most `limit` bytes; return it, cut to 64 bits, and the offset behind it."""
    number = shift = 0
    for position in range(offset, min(offset + limit, len(data))):
        byte = data[position]
        number |= (byte & 127) << shift
        if byte < 128:
            return number & _MASK64, position + 1
        shift += 7
    raise ValueDecodeError(f"varint at byte {offset} is cut short or too long")


def whole_varint(data: bytes, start: int) -> int | None:
    """Return the unsigned varint that fills `data[start:]` exactly, or None where it holds something else."""
    last = len(data) - 1
    if not start <= last < start + _MAX_VARINT_BYTES or data[last] >= 128:
        return None
    number = shift = 0
    for byte in data[start:last]:
        if byte < 128:
            return None
        number |= (byte & 127) << shift
        shift += 7
    return (number | data[last] << shift) & _MASK64


def signed(number: int, bits: int) -> int:
    """Read the low `bits` of an unsigned number as two's complement."""
    sign = 1 << (bits - 1)
    return ((number & ((1 << bits) - 1)) ^ sign) - sign


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (field number, wire type, value) in stored order; groups are skipped.

    The value is an unsigned int for varints and the raw bytes otherwise.
    """
    offset = 0
    while offset < len(data):
        number, wire, offset = _read_tag(data, offset)
        if wire == VARINT:
            value, offset = read_varint(data, offset)
            yield number, wire, value
        elif wire == START_GROUP:
            offset = _skip_group(data, offset, number, depth=1)
        else:
            start, offset = _payload(data, offset, wire)
            yield number, wire, data[start:offset]


def _read_tag(data: bytes, offset: int) -> tuple[int, int, int]:
    tag, behind = read_varint(data, offset, _MAX_TAG_BYTES)
    if tag >> 3 == 0 or tag >> 32:
        raise ValueDecodeError(f"tag at byte {offset} is not a field number")
    return tag >> 3, tag & 7, behind


def _payload(data: bytes, offset: int, wire: int) -> tuple[int, int]:
    """Return where the payload of a fixed-width or length-delimited field starts and ends."""
    length = _FIXED_BYTES.get(wire)
    if length is None:
        if wire != LENGTH:
            raise ValueDecodeError(f"wire type {wire} before byte {offset} is not expected there")
        length, offset = read_varint(data, offset)
    if offset + length > len(data):
        raise ValueDecodeError(f"field at byte {offset} is cut short: {length} bytes announced")
    return offset, offset + length


def _skip_group(data: bytes, offset: int, group: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise ValueDecodeError(f"groups at byte {offset} are nested deeper than {_MAX_DEPTH}")
    while offset < len(data):
        number, wire, offset = _read_tag(data, offset)
        if wire == END_GROUP:
            if number != group:
                raise ValueDecodeError(f"group {group} is closed as {number} before byte {offset}")
            return offset
        if wire == START_GROUP:
            offset = _skip_group(data, offset, number, depth + 1)
        elif wire == VARINT:
            _, offset = read_varint(data, offset)
        else:
            _, offset = _payload(data, offset, wire)
    raise ValueDecodeError(f"group {group} is not closed")
