"""Model bytes to a tree of plain values, and typed, located access to its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest.errors import ForestError, ModelFormatError
from decision.forest.ubjson import decode_ubjson

MAX_MODEL_BYTES: Final = 256 * 1024 * 1024


class HalfwayDecimalError(ForestError):
    """A decimal rounds to float64 exactly halfway between two float32: parse again with `exact=True`."""


def decode_document(data: bytes, *, exact: bool = False) -> Node:
    """Decode model bytes, UBJSON or JSON.

    Args:
        data: The file as XGBoost saved it; at most `MAX_MODEL_BYTES`.
        exact: Round every JSON decimal straight to float32 (slow); else via float64, and a decimal for which
            that could differ raises `HalfwayDecimalError` when it is read.

    Raises:
        ModelFormatError: Neither format, cut short or too large.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise ModelFormatError(f"the model has {len(data)} bytes, more than {MAX_MODEL_BYTES}")
    value = decode_ubjson(data) if _is_ubjson(data) else _decode_json(data, exact)
    return Node(value=value, path="model", exact=exact)


def _is_ubjson(data: bytes) -> bool:
    """UBJSON puts a length marker where JSON has whitespace, a quote or a closing brace."""
    return data[:1] == b"{" and data[1:2] in (b"L", b"l", b"I", b"i", b"U", b"#")


def _decode_json(data: bytes, exact: bool) -> object:
    parse_float = float32_of_text if exact else None
    try:
        return json.loads(data.decode("utf-8"), parse_float=parse_float, object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"neither UBJSON nor JSON: {error}") from error


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"a field occurs twice among {sorted(name for name, _ in pairs)[:9]}")
    return fields


def float32_of_text(text: str) -> float:
    """The float32 nearest to a decimal, as a Python float; ties to even, as XGBoost's parser does.

    Raises:
        ValueError: Not a decimal.
    """
    value = float(text)
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    if not _is_halfway(np.float64(value), nearest):
        return float(nearest)
    truth = Fraction(text)
    if truth == Fraction(value):
        return float(nearest)
    toward = np.float32(np.inf) if truth > Fraction(value) else np.float32(-np.inf)
    beyond = (float(nearest) - value) * (1 if truth > Fraction(value) else -1) > 0
    return float(nearest if beyond else np.nextafter(nearest, toward))


def _is_halfway(values: NDArray[np.float64] | np.float64, nearest: NDArray[np.float32] | np.float32) -> bool:
    """Whether any float64 lies exactly between two float32 (where a second rounding may go wrong)."""
    with np.errstate(over="ignore", invalid="ignore"):
        gap = values - nearest.astype(np.float64)
        toward = np.where(gap > 0, np.float32(np.inf), np.float32(-np.inf))
        neighbour = np.nextafter(nearest, toward).astype(np.float64)
        return bool(np.any((gap != 0) & (gap == neighbour - values)))


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the document and where it stands; every accessor raises `ModelFormatError` naming the place."""

    value: object
    path: str
    exact: bool

    def error(self, what: str) -> ModelFormatError:
        return ModelFormatError(f"{self.path}: {what}")

    def fields(self) -> Mapping[str, object]:
        if not isinstance(self.value, dict):
            raise self.error("an object expected")
        return self.value

    def has(self, name: str) -> bool:
        return name in self.fields()

    def __getitem__(self, name: str) -> Node:
        fields = self.fields()
        if name not in fields:
            raise self.error(f"field {name!r} is missing")
        return Node(fields[name], f"{self.path}.{name}", self.exact)

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            raise self.error("an array expected")
        return [Node(item, f"{self.path}[{index}]", self.exact) for index, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.error("a string expected")
        return self.value

    def count(self, *, most: int = 2**31 - 1) -> int:
        """A non-negative integer, which XGBoost writes as text."""
        try:
            number = int(self.text())
        except ValueError:
            raise self.error(f"a whole number expected, not {self.text()[:40]!r}") from None
        if not 0 <= number <= most:
            raise self.error(f"{number} is not in [0, {most}]")
        return number

    def int64s(self) -> NDArray[np.int64]:
        """An array of integers (booleans count as 0 and 1)."""
        raw = self._numbers()
        if raw.size and raw.dtype.kind not in "biu":
            raise self.error("an array of integers expected")
        return raw.astype(np.int64)

    def float32s(self) -> NDArray[np.float32]:
        """An array of numbers, each rounded once to float32."""
        raw = self._numbers()
        if raw.dtype.itemsize == 4 and raw.dtype.kind == "f":
            return raw.astype(np.float32)
        wide = raw.astype(np.float64)
        with np.errstate(over="ignore"):
            nearest = wide.astype(np.float32)
        if not self.exact and _is_halfway(wide, nearest):
            raise HalfwayDecimalError(self.path)
        return nearest

    def _numbers(self) -> NDArray[np.generic]:
        if isinstance(self.value, np.ndarray):
            return self.value
        if not isinstance(self.value, list):
            raise self.error("an array of numbers expected")
        if not set(map(type, self.value)) <= {int, float, bool}:
            raise self.error("an array of numbers expected")
        try:
            raw = np.array(self.value)
        except (OverflowError, ValueError):
            raise self.error("a number is out of range") from None
        if raw.dtype.kind not in "biuf":
            raise self.error("a number is out of range")
        return raw
