"""What each operator means on plain Python values, NULL being None.

These are the leaves of the reference interpreter. Integers are int64: a result outside of its range is NULL. A NaN is
NULL, infinities stay. Nothing here raises for any value of the declared types.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

from decision.lang.syntax import ArithmeticOp, CompareOp
from decision.schema import Scalar, Value

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


def int64(value: int) -> int | None:
    """The value, or NULL where int64 cannot hold it."""
    return value if INT64_MIN <= value <= INT64_MAX else None


def float64(value: float) -> float | None:
    """The value, or NULL where it is NaN."""
    return None if math.isnan(value) else value


def arithmetic_int(op: ArithmeticOp, left: int, right: int) -> int | None:
    """`+ - * %` on int64, on timestamps and on intervals."""
    match op:
        case "+":
            return int64(left + right)
        case "-":
            return int64(left - right)
        case "*":
            return int64(left * right)
        case _:
            return _remainder(left, right)


def _remainder(left: int, right: int) -> int | None:
    """The remainder takes the dividend's sign, where Python's takes the divisor's."""
    if right == 0:
        return None
    size = abs(left) % abs(right)
    return -size if left < 0 else size


def arithmetic_float(op: ArithmeticOp, left: float, right: float) -> float | None:
    """`+ - * / %` on float64; division and remainder by either zero are NULL."""
    match op:
        case "+":
            return float64(left + right)
        case "-":
            return float64(left - right)
        case "*":
            return float64(left * right)
        case "/":
            return float64(left / right) if right != 0 else None
        case _:
            return math.fmod(left, right) if right != 0 and math.isfinite(left) else None


def compare(op: CompareOp, left: Scalar, right: Scalar) -> bool:
    """Compare two values of one type that are not NULL; -0.0 equals 0.0."""
    match op:
        case "=":
            return left == right
        case "<>":
            return left != right
        case "<":
            return left < right  # type: ignore[operator]
        case "<=":
            return left <= right  # type: ignore[operator]
        case ">":
            return left > right  # type: ignore[operator]
        case ">=":
            return left >= right  # type: ignore[operator]


def member(value: Value, items: Iterable[Value]) -> bool | None:
    """`value = item OR …` over the items, three-valued; over no items it is FALSE."""
    unknown = False
    for item in items:
        if value is None or _is_null(item):
            unknown = True
        elif value == item:
            return True
    return None if unknown else False


def _is_null(item: Value) -> bool:
    return item is None or (isinstance(item, float) and math.isnan(item))


def like(text: str, pattern: str) -> bool:
    """Whether all of the text matches, by code point and case.

    Regular expressions can take exponential time on several %, so the pieces between them are placed one after the
    other, each at its leftmost fit, which is enough because % takes anything.
    """
    first, *rest = pattern.split("%")
    if not rest:
        return len(text) == len(first) and _fits(text, 0, first)
    last = rest.pop()
    if len(text) < len(first) + len(last) or not _fits(text, 0, first):
        return False
    end = len(text) - len(last)
    return _fits(text, end, last) and _placed(text[len(first) : end], rest)


def _fits(text: str, at: int, piece: str) -> bool:
    return all(mark in ("_", text[at + offset]) for offset, mark in enumerate(piece))


def _placed(text: str, pieces: list[str]) -> bool:
    at = 0
    for piece in filter(None, pieces):
        found = _find(text, at, piece)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _find(text: str, start: int, piece: str) -> int:
    if "_" not in piece:
        return text.find(piece, start)
    for at in range(start, len(text) - len(piece) + 1):
        if _fits(text, at, piece):
            return at
    return -1


def round_half_away(value: float) -> float:
    """The nearest integral float64, halves away from zero."""
    if not math.isfinite(value):
        return value
    size = abs(value)
    whole = float(math.floor(size))
    return math.copysign(whole + 1.0 if size - whole >= 0.5 else whole, value)


def floor(value: float) -> float:
    """The largest integral float64 that is not above the value; infinities and -0.0 stay."""
    return float(math.floor(value)) if math.isfinite(value) and value != 0 else value


def bucket(unit: str | int, salt: str, count: int) -> int:
    """A stable number in [0, count): first 8 bytes, big-endian, of SHA-256(salt, 0x00, unit as text), modulo count."""
    digest = hashlib.sha256(salt.encode() + b"\0" + str(unit).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count
