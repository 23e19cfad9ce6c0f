"""Primitives of the state's bytes: varints, floats, strings. Every value has one form."""

from __future__ import annotations

import struct

from decision.schema import Scalar
from streaming.windows.errors import StateCorrupt
from streaming.windows.plan import Carrier

_DOUBLE = struct.Struct("<d")


def put_unsigned(out: bytearray, value: int) -> None:
    """Append a non-negative integer, seven bits a byte, low bits first."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_signed(out: bytearray, value: int) -> None:
    """Append an integer, small magnitudes short."""
    put_unsigned(out, value << 1 if value >= 0 else ~(value << 1))


def put_bytes(out: bytearray, value: bytes) -> None:
    """Append a length and bytes."""
    put_unsigned(out, len(value))
    out += value


def put_scalar(out: bytearray, value: Scalar) -> None:
    """Append a value; its type is known to the reader."""
    match value:
        case str():
            put_bytes(out, value.encode())
        case bytes():
            put_bytes(out, value)
        case float():
            out += _DOUBLE.pack(value)
        case _:
            put_signed(out, int(value))


class Reader:
    """Reads what the functions above wrote.

    Raises:
        StateCorrupt: Where the bytes end early or run on too long, or a text is not UTF-8.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def unsigned(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise StateCorrupt(f"integer at byte {self.at} runs on too long")

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 if value & 1 == 0 else ~(value >> 1)

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if len(piece) != size:
            raise StateCorrupt(f"chunk ends at byte {len(self.data)}, {size} more expected at {self.at}")
        self.at += size
        return piece

    def text(self) -> str:
        data = self.take(self.unsigned())
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise StateCorrupt(f"text before byte {self.at} is not UTF-8") from error

    def scalar(self, carrier: Carrier) -> Scalar:
        match carrier:
            case Carrier.STRING:
                return self.text()
            case Carrier.BYTES:
                return self.take(self.unsigned())
            case Carrier.FLOAT:
                return float(_DOUBLE.unpack(self.take(8))[0])
            case Carrier.BOOL:
                return self.signed() != 0
            case _:
                return self.signed()

    def finish(self) -> None:
        if self.at != len(self.data):
            raise StateCorrupt(f"{len(self.data) - self.at} bytes too many")
