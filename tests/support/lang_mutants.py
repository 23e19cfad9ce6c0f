"""Wrong meanings, one at a time: what the interpreter or the SQL generator must not be mistaken for.

A mutant of the interpreter replaces one of its leaves; a mutant of the generator rewrites the text that leaves it.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from decision.lang import calendar, interpreter, values
from decision.lang.calendar import DAY_US, HOUR_US, SECOND_US
from decision.lang.syntax import UTC

Leaf = Callable[..., Any]
TRUE_LEAVES: Final[dict[str, Leaf]] = {
    "arithmetic_float": values.arithmetic_float,
    "compare": values.compare,
    "like": values.like,
    "member": values.member,
    "date_part": calendar.date_part,
    "binary": interpreter.binary,
    "apply": interpreter.apply,
    "unary": interpreter.unary,
}


def _but(name: str, wrong: Callable[..., Any], when: Callable[..., bool]) -> Leaf:
    """The true leaf but where the condition on its arguments holds."""
    return lambda *args: wrong(*args) if when(*args) else TRUE_LEAVES[name](*args)


def _wrapped(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def _nothing(*_args: object) -> None:
    return None


def _fold_all(operands: Any, of: Callable[[Any], bool]) -> bool:
    return of([value is True for value in operands])


def _member_without_null(value: Any, items: Any) -> bool:
    return value is not None and value in [item for item in items if item is not None]


def _hash(unit: object, salt: str, count: int, *, gap: bytes, order: Any, part: slice) -> int:
    digest = hashlib.sha256(salt.encode() + gap + str(unit).encode()).digest()
    return int.from_bytes(digest[part], order) % count


def _bytes_like(text: str, pattern: str) -> bool:
    return TRUE_LEAVES["like"](text.encode().decode("latin-1"), pattern.encode().decode("latin-1"))  # type: ignore[no-any-return]


def _cut(at_us: int) -> int:
    """The instant rounded towards the epoch to whole seconds."""
    return int(math.copysign(abs(at_us) // SECOND_US * SECOND_US, at_us))


def _part(
    at: Callable[[int], int] = lambda at_us: at_us, zone: Callable[[Any], Any] = lambda zone: zone
) -> Leaf:
    return lambda part, at_us, of: TRUE_LEAVES["date_part"](part, at(at_us), zone(of))


def _shifted(part: str, by: int) -> Leaf:
    true = TRUE_LEAVES["date_part"]
    return lambda name, at_us, zone: true(name, at_us, zone) + by * (name == part)


def _late_zone(zone: Any) -> Any:
    """Changes hold from the microsecond after."""
    later = tuple(at_us + 1 for at_us in zone.transitions_us)
    return type(zone)(name=zone.name, transitions_us=later, offsets_s=zone.offsets_s)


def _truth(op: str, left: Any, right: Any) -> bool:
    return TRUE_LEAVES["compare"](op, left, right)  # type: ignore[no-any-return]


def _texts_as(change: Callable[[str], str]) -> Leaf:
    return _but(
        "compare",
        lambda op, left, right: _truth(op, change(left), change(right)),
        lambda _op, left, _right: isinstance(left, str),
    )


def _instead(op: str, other: str) -> Leaf:
    return _but("compare", lambda _op, left, right: _truth(other, left, right), lambda given, *_: given == op)


def _call(function: str, wrong: Callable[[list[Any]], Any], when: Callable[[list[Any]], bool]) -> Leaf:
    return _but(
        "apply", lambda _expr, args: wrong(args), lambda expr, args: expr.function == function and when(args)
    )


def _first_shown(args: list[Any]) -> Any:
    return next((value for value in args if value), None)


def _any_null(args: list[Any]) -> bool:
    return None in args


def _divided_by_zero(op: str) -> Callable[..., bool]:
    return lambda given, _left, right: given == op and right == 0


_FLOAT: Final = TRUE_LEAVES["arithmetic_float"]

INTERPRETER: Final[dict[str, tuple[Any, str, Leaf]]] = {
    "the remainder of int64 takes the divisor's sign": (
        values,
        "_remainder",
        lambda left, right: left % right if right else None,
    ),
    "the remainder of float64 takes the divisor's sign": (
        values,
        "arithmetic_float",
        _but(
            "arithmetic_float",
            lambda _op, left, right: left % right,
            lambda op, left, right: op == "%" and right != 0 and math.isfinite(left),
        ),
    ),
    "int64 overflow wraps around": (values, "int64", _wrapped),
    "int64 overflow saturates": (values, "int64", lambda value: max(-(2**63), min(2**63 - 1, value))),
    "the end of int64 counts as overflow": (
        values,
        "int64",
        lambda value: value if abs(value) < 2**63 else None,
    ),
    "division by zero is infinite": (
        values,
        "arithmetic_float",
        _but("arithmetic_float", lambda *_: math.inf, _divided_by_zero("/")),
    ),
    "the remainder by zero is the dividend": (
        values,
        "arithmetic_float",
        _but("arithmetic_float", lambda _op, left, _right: left, _divided_by_zero("%")),
    ),
    "NaN stays": (values, "float64", lambda value: value),
    "infinity is NULL": (values, "float64", lambda value: value if math.isfinite(value) else None),
    "NULL in AND is FALSE": (interpreter, "conjunction", partial(_fold_all, of=all)),
    "NULL in OR is FALSE": (interpreter, "disjunction", partial(_fold_all, of=any)),
    "NOT NULL is TRUE": (interpreter, "negation", lambda value: not value),
    "a comparison with NULL is FALSE": (
        interpreter,
        "binary",
        _but(
            "binary",
            lambda *_: False,
            lambda expr, *sides: not hasattr(expr, "dtype") or (expr.dtype == "bool" and None in sides),
        ),
    ),
    "IN and contains ignore NULL": (values, "member", _member_without_null),
    "contains in an empty list is NULL": (
        values,
        "member",
        lambda value, items: TRUE_LEAVES["member"](value, held) if (held := list(items)) else None,
    ),
    "int64 compares as float64": (
        values,
        "compare",
        _but(
            "compare",
            lambda op, left, right: _truth(op, float(left), float(right)),
            lambda _op, left, _right: type(left) is int,
        ),
    ),
    "minus zero is less than zero": (
        values,
        "compare",
        _but(
            "compare",
            lambda op, left, right: _truth(op, math.copysign(1, left), math.copysign(1, right)),
            lambda _op, left, right: isinstance(left, float) and left == right == 0,
        ),
    ),
    "<= leaves out the end": (values, "compare", _instead("<=", "<")),
    ">= leaves out the end": (values, "compare", _instead(">=", ">")),
    "strings compare without case": (values, "compare", _texts_as(str.casefold)),
    "strings compare without spaces around": (values, "compare", _texts_as(str.strip)),
    "strings compare in normal form": (values, "compare", _texts_as(partial(unicodedata.normalize, "NFC"))),
    "LIKE does not look at case": (
        values,
        "like",
        lambda text, pattern: TRUE_LEAVES["like"](text.lower(), pattern.lower()),
    ),
    "LIKE counts bytes": (values, "like", _bytes_like),
    "LIKE finds the pattern anywhere": (
        values,
        "like",
        lambda text, pattern: TRUE_LEAVES["like"](text, f"%{pattern}%"),
    ),
    "_ in LIKE is itself": (
        values,
        "like",
        lambda text, pattern: text == pattern if "%" not in pattern else TRUE_LEAVES["like"](text, pattern),
    ),
    "round goes to even": (
        values,
        "round_half_away",
        lambda value: float(round(value)) if math.isfinite(value) else value,
    ),
    "round goes up": (
        values,
        "round_half_away",
        lambda value: float(math.floor(value + 0.5)) if math.isfinite(value) else value,
    ),
    "floor goes to zero": (
        values,
        "floor",
        lambda value: float(math.trunc(value)) if math.isfinite(value) else value,
    ),
    "least is NULL beside NULL": (interpreter, "apply", _call("least", _nothing, _any_null)),
    "greatest is NULL beside NULL": (interpreter, "apply", _call("greatest", _nothing, _any_null)),
    "coalesce passes over zero and the empty string": (
        interpreter,
        "apply",
        _call("coalesce", _first_shown, lambda _args: True),
    ),
    "abs of the smallest int64 is itself": (
        interpreter,
        "_signed",
        lambda value: _wrapped(value) if isinstance(value, int) else value,
    ),
    "bucket reads the bytes backwards": (
        values,
        "bucket",
        partial(_hash, gap=b"\0", order="little", part=slice(8)),
    ),
    "bucket hashes no gap after the salt": (
        values,
        "bucket",
        partial(_hash, gap=b"", order="big", part=slice(8)),
    ),
    "bucket takes the last bytes": (
        values,
        "bucket",
        partial(_hash, gap=b"\0", order="big", part=slice(24, 32)),
    ),
    "bucket takes four bytes": (values, "bucket", partial(_hash, gap=b"\0", order="big", part=slice(4))),
    "a zone is off by an hour": (interpreter, "date_part", _part(at=lambda at_us: at_us + HOUR_US)),
    "zones are not looked at": (interpreter, "date_part", _part(zone=lambda _zone: UTC)),
    "a zone keeps its first offset": (
        interpreter,
        "date_part",
        _part(zone=lambda zone: type(zone)(name=zone.name, offsets_s=zone.offsets_s[:1])),
    ),
    "a zone changes a microsecond late": (interpreter, "date_part", _part(zone=_late_zone)),
    "instants before 1970 round up": (interpreter, "date_part", _part(at=_cut)),
    "Monday is 0": (interpreter, "date_part", _shifted("weekday", -1)),
    "days of the year count from 0": (interpreter, "date_part", _shifted("day_of_year", -1)),
    "leap days are not known": (
        interpreter,
        "date_part",
        _part(at=lambda at_us: at_us - DAY_US * (TRUE_LEAVES["date_part"]("day_of_year", at_us, UTC) == 366)),
    ),
}
"""Name: module, leaf, and what stands in for it."""


def _replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda sql: sql.replace(old, new)


def _rewritten(pattern: str, new: str) -> Callable[[str], str]:
    return lambda sql: re.sub(pattern, new, sql)


GENERATOR: Final[dict[str, Callable[[str], str]]] = {
    "NaN stays": _replaced("'NaN'", "'-1e-307'"),
    "int64 overflow raises": _replaced("TRY_CAST", "CAST"),
    "int64 arithmetic in float64": _replaced("AS HUGEINT", "AS DOUBLE"),
    "int64 arithmetic in int64": _replaced("AS HUGEINT", "AS BIGINT"),
    "float64 in single precision": _replaced("AS DOUBLE", "AS FLOAT"),
    "division by zero is IEEE's": _rewritten(r"(/|%) nullif\((.*?), 0\)", r"\1 nullif(\2, 7777777)"),
    "floor goes to zero": _replaced("floor(", "trunc("),
    "round goes up": _replaced("round(", "floor(0.5 + "),
    "least is greatest": _replaced("least(", "greatest("),
    "LIKE does not look at case": _replaced(" LIKE ", " ILIKE "),
    "bucket hashes no gap after the salt": _replaced("|| chr(0) ||", "||"),
    "bucket takes the last bytes": _replaced("left(sha256", "right(sha256"),
    "contains ignores NULL in the list": _replaced("list_count(", "len("),
    "contains in an empty list may be NULL": _replaced(") = 0 THEN FALSE", ") = -1 THEN FALSE"),
    "instants before 1970 round up": _replaced(" >> 6)", " // 64)"),
    "a zone changes an hour late": _rewritten(r"< (\d{13,16}) THEN", r"< (\1 + 3600000000) THEN"),
    "a zone changes a microsecond late": _rewritten(r"< (\d{13,16}) THEN", r"<= \1 THEN"),
    "weeks begin on Sunday as 0": _replaced("isodow(", "dayofweek("),
    "AND and OR change places": _replaced(" AND ", " OR "),
    "NULL in a condition is FALSE": _rewritten(r"\(NOT ", "(TRUE IS DISTINCT FROM "),
    "<= leaves out the end": _replaced(" <= ", " < "),
}
"""Name: what happens to the text."""
