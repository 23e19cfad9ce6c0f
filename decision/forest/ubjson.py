"""A bounded decoder of Universal Binary JSON (draft 12), the format XGBoost saves models in.

Typed arrays become NumPy arrays without a Python object per element. Memory stays proportional to the input:
every element of every container occupies at least one byte of it.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from decision.forest.errors import ModelFormatError

MAX_DEPTH: Final = 64
"""Containers inside containers; XGBoost's models nest eight deep."""

_SCALARS: Final = {
    ord("i"): struct.Struct(">b"),
    ord("U"): struct.Struct(">B"),
    ord("I"): struct.Struct(">h"),
    ord("l"): struct.Struct(">i"),
    ord("L"): struct.Struct(">q"),
    ord("d"): struct.Struct(">f"),
    ord("D"): struct.Struct(">d"),
}
_INTEGERS: Final = frozenset(b"iUIlL")
_DTYPES: Final[dict[int, np.dtype[Any]]] = {
    ord("i"): np.dtype(">i1"),
    ord("U"): np.dtype(">u1"),
    ord("I"): np.dtype(">i2"),
    ord("l"): np.dtype(">i4"),
    ord("L"): np.dtype(">i8"),
    ord("d"): np.dtype(">f4"),
    ord("D"): np.dtype(">f8"),
}
_CONSTANTS: Final[dict[int, object]] = {ord("Z"): None, ord("T"): True, ord("F"): False}


def decode_ubjson(data: bytes) -> object:
    """Decode one UBJSON value.

    Args:
        data: The whole document; bytes after its one value are an error.

    Returns:
        Dicts, lists, str, int, float, bool, None, and big-endian NumPy arrays for typed arrays.

    Raises:
        ModelFormatError: Cut short, malformed or nested deeper than `MAX_DEPTH`; names the byte offset.
    """
    reader = _Reader(data)
    value = reader.value(depth=0)
    if reader.at != len(data):
        raise reader.error(f"{len(data) - reader.at} bytes follow the document")
    return value


class _Reader:
    """A cursor over the bytes."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def error(self, what: str) -> ModelFormatError:
        return ModelFormatError(f"UBJSON, byte {self.at}: {what}")

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise self.error(
                f"{count} bytes expected, {len(self.data) - self.at} left; is the file cut short?"
            )
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def marker(self) -> int:
        return self.take(1)[0]

    def peek(self) -> int:
        if self.at >= len(self.data):
            raise self.error("a marker expected; is the file cut short?")
        return self.data[self.at]

    def skip(self, marker: bytes) -> bool:
        found = self.peek() == marker[0]
        self.at += found
        return found

    def value(self, depth: int) -> object:
        return self.value_of(self.marker(), depth)

    def value_of(self, marker: int, depth: int) -> object:
        if (scalar := _SCALARS.get(marker)) is not None:
            return scalar.unpack(self.take(scalar.size))[0]
        match chr(marker):
            case "{":
                return self.mapping(self.deeper(depth))
            case "[":
                return self.array(self.deeper(depth))
            case "S":
                return self.text()
            case "C":
                return self.take(1).decode("latin-1")
            case _:
                return self.constant(marker)

    def deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH}")
        return depth + 1

    def constant(self, marker: int) -> object:
        if marker not in _CONSTANTS:
            raise self.error(f"unknown marker {bytes([marker])!r}")
        return _CONSTANTS[marker]

    def length(self) -> int:
        marker = self.marker()
        if marker not in _INTEGERS:
            raise self.error(f"a length expected, not marker {bytes([marker])!r}")
        scalar = _SCALARS[marker]
        (count,) = scalar.unpack(self.take(scalar.size))
        if not 0 <= count <= len(self.data):
            raise self.error(f"length {count} is more than the document holds")
        return int(count)

    def text(self) -> str:
        try:
            return self.take(self.length()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("a string is not UTF-8") from error

    def array(self, depth: int) -> object:
        if self.skip(b"$"):
            return self.typed_array()
        if self.skip(b"#"):
            return [self.value(depth) for _ in range(self.length())]
        items: list[object] = []
        while not self.skip(b"]"):
            items.append(self.value(depth))
        return items

    def typed_array(self) -> NDArray[np.generic]:
        dtype = _DTYPES.get(self.marker())
        if dtype is None or not self.skip(b"#"):
            raise self.error("a typed array needs a number type and a count")
        items: NDArray[np.generic] = np.frombuffer(self.take(self.length() * dtype.itemsize), dtype)
        return items

    def mapping(self, depth: int) -> dict[str, object]:
        if self.peek() == ord("$"):
            raise self.error("typed objects are not used by XGBoost")
        fields: dict[str, object] = {}
        if self.skip(b"#"):
            for _ in range(self.length()):
                self.field(fields, depth)
            return fields
        while not self.skip(b"}"):
            self.field(fields, depth)
        return fields

    def field(self, fields: dict[str, object], depth: int) -> None:
        name = self.text()
        if name in fields:
            raise self.error(f"field {name!r} occurs twice")
        fields[name] = self.value(depth)
