"""The smallest pieces of SQL text: types, constants, and naming a value that is used more than once.

Every piece that leaves this package is closed: an operator's text stands in parentheses, so pieces combine without a
thought for precedence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from decision.schema import DType, Value
from decision.sql.errors import SqlError

TYPES: Final = {
    DType.BOOL: "BOOLEAN",
    DType.INT64: "BIGINT",
    DType.FLOAT64: "DOUBLE",
    DType.STRING: "VARCHAR",
    DType.TIMESTAMP: "BIGINT",
    DType.INTERVAL: "BIGINT",
    DType.BOOL_LIST: "BOOLEAN[]",
    DType.INT64_LIST: "BIGINT[]",
    DType.FLOAT64_LIST: "DOUBLE[]",
    DType.STRING_LIST: "VARCHAR[]",
    DType.TIMESTAMP_LIST: "BIGINT[]",
}
"""How DuckDB holds a value of each type; timestamps and intervals are microseconds."""

SHORT_CHARS: Final = 80
"""Text up to this length is repeated where its value is used again; longer text is computed once and named.

Repeating everything would make the text, and DuckDB's work on it, exponential in the depth of the condition.
"""


def cast_to(dtype: DType, text: str) -> str:
    """The text as a value of the type."""
    return f"CAST({text} AS {TYPES[dtype]})"


def constant(value: Value, dtype: DType) -> str:
    """A literal of the type. Floats are written as text, since DuckDB reads 0.1 as a decimal number."""
    if value is None:
        return cast_to(dtype, "NULL")
    match dtype:
        case DType.BOOL:
            return "TRUE" if value else "FALSE"
        case DType.STRING:
            return quoted(cast("str", value))
        case DType.FLOAT64:
            return cast_to(dtype, f"'{cast('float', value)!r}'")
        case _:
            return cast_to(dtype, str(value))


def quoted(text: str) -> str:
    """A string literal. NUL ends the text of a query in some clients, so it is written as a call."""
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        raise SqlError("the condition holds half a surrogate pair, which is no text: write whole characters")
    pieces = ("'" + piece.replace("'", "''") + "'" for piece in text.split("\0"))
    joined = " || chr(0) || ".join(pieces)
    return f"({joined})" if "\0" in text else joined


def named(text: str, body: Callable[[str], str]) -> str:
    """The body around a value, which it may use many times though it is computed once.

    The body may read nothing but the value, so that the name `v` can hide nothing.
    """
    if len(text) <= SHORT_CHARS:
        return body(text)
    return f"list_transform([{text}], lambda v: {body('v')})[1]"
