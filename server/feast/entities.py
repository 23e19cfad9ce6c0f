"""The columns that a request gives: checked, and cast to the types that the registry declares.

An int32 for an int64 key, decimal text for a number, a number for text: cast, because Feast would look under another
key and find nothing. What has no plain meaning is refused with the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, methodcaller
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from decision.schema import JoinKey, Scalar, ValueType
from online.errors import ValueEncodeError
from online.keys import US_PER_SECOND
from online.values import encoder
from server.bounds import NAME_SHOWN
from server.errors import InvalidRequestError
from server.feast import vectors
from server.feast.encoding import from_base64, micros_of
from server.feast.kernels import WHOLE, whole_numbers
from server.feast.plain import python_of
from server.feast.protos import RepeatedValue


class TypedColumn(NamedTuple):
    """A column of join key values.

    Attributes:
        values: As `online.keys` takes them: instants in microseconds.
        serialized: As `repeated feast.types.Value values = 1`.
    """

    values: list[Scalar]
    serialized: bytes


class Given(Protocol):
    """Columns of a request by name, as one of the two doors brought them."""

    def names(self) -> Iterable[str]:
        """The columns there are."""

    def count(self, name: str) -> int:
        """How many rows a column has."""

    def plain(self, name: str) -> list[Any]:
        """A column's values in Python; None is NULL."""

    def values(self, name: str) -> list[Any]:
        """A column's values as on-demand functions take them."""

    def typed(self, name: str, value_type: ValueType) -> TypedColumn | None:
        """A column whose every value is of the type already; None where that is not plain to see."""

    def place(self, name: str, row: int | None = None) -> str:
        """The field path of a column or of one value, for messages."""


class GivenMessages:
    """Columns of a gRPC request: `map<string, RepeatedValue>`."""

    def __init__(self, field: str, columns: Mapping[str, Any]) -> None:
        self._field = field
        self._columns = columns

    def names(self) -> Iterable[str]:
        return self._columns

    def count(self, name: str) -> int:
        return len(self._columns[name].val)

    def plain(self, name: str) -> list[Any]:
        return [plain_key(message) for message in self._columns[name].val]

    def values(self, name: str) -> list[Any]:
        return [python_of(message) for message in self._columns[name].val]

    def typed(self, name: str, value_type: ValueType) -> TypedColumn | None:
        column = self._columns[name]
        # A RepeatedValue has its values in the same field as a FeatureVector.
        serialized: bytes = column.SerializeToString()
        if value_type in WHOLE:
            numbers = whole_numbers(value_type, serialized, len(column.val))
            return None if numbers is None else TypedColumn(_key_values(value_type, numbers), serialized)
        arm, get = _EXACT[value_type]
        if set(map(_ARM, column.val)) != {arm}:
            return None
        return TypedColumn(list(map(get, column.val)), serialized)

    def place(self, name: str, row: int | None = None) -> str:
        path = f"{self._field}.{name[:NAME_SHOWN]}"
        return path if row is None else f"{path}.val[{row}]"


class GivenColumns:
    """Columns of a gRPC request as they were sent: serialized `RepeatedValue` of scalars.

    Args:
        field: The request's field.
        columns: By name, with the number of values.
    """

    def __init__(self, field: str, columns: Mapping[str, tuple[bytes, int]]) -> None:
        self._field = field
        self._columns = columns

    def names(self) -> Iterable[str]:
        return self._columns

    def count(self, name: str) -> int:
        return self._columns[name][1]

    def plain(self, name: str) -> list[Any]:
        return self._messages(name).plain(name)

    def values(self, name: str) -> list[Any]:
        return self._messages(name).values(name)

    def typed(self, name: str, value_type: ValueType) -> TypedColumn | None:
        if value_type not in WHOLE:
            return self._messages(name).typed(name, value_type)
        data, count = self._columns[name]
        # A RepeatedValue has its values in the same field as a FeatureVector.
        numbers = whole_numbers(value_type, data, count)
        return None if numbers is None else TypedColumn(_key_values(value_type, numbers), data)

    def place(self, name: str, row: int | None = None) -> str:
        return self._messages(name).place(name, row)

    def _messages(self, name: str) -> GivenMessages:
        known = {name: RepeatedValue.FromString(self._columns[name][0])} if name in self._columns else {}
        return GivenMessages(self._field, known)


class GivenJson:
    """Columns of an HTTP request: lists of JSON values, bytes in base64."""

    def __init__(self, field: str, columns: Mapping[str, Sequence[Any]]) -> None:
        self._field = field
        self._columns = columns

    def names(self) -> Iterable[str]:
        return self._columns

    def count(self, name: str) -> int:
        return len(self._columns[name])

    def plain(self, name: str) -> list[Any]:
        return list(self._columns[name])

    def values(self, name: str) -> list[Any]:
        return list(self._columns[name])

    def typed(self, name: str, value_type: ValueType) -> TypedColumn | None:  # noqa: ARG002 - JSON has no types
        return None

    def place(self, name: str, row: int | None = None) -> str:
        path = f"{self._field}.{name[:NAME_SHOWN]}"
        return path if row is None else f"{path}[{row}]"


def _key_values(value_type: ValueType, numbers: NDArray[np.int64]) -> list[Scalar]:
    values: list[Scalar] = numbers.tolist()
    if value_type is ValueType.UNIX_TIMESTAMP:
        return [value * US_PER_SECOND for value in numbers.tolist()]
    return values


def plain_key(message: Any) -> Any:
    """The value of a message; instants stay seconds, nothing set is None."""
    arm = message.WhichOneof("val")
    value = None if arm is None or arm == "null_val" else getattr(message, arm)
    return value if value is None or not hasattr(value, "val") else list(value.val)


def entity_column(given: Given, name: str, key: JoinKey) -> TypedColumn:
    """A column of join key values with its form in the response; see `key_column`."""
    typed = given.typed(name, key.value_type)
    if typed is not None:
        return typed
    values = key_column(given, name, key)
    encode_key = encoder(key.value_type)
    return TypedColumn(values, vectors.values_field([encode_key(value) for value in values]))


class Keyed(Protocol):
    """Columns that hold join keys."""

    def plain(self, name: str) -> list[Any]:
        """A column's values in Python; None is NULL."""

    def place(self, name: str, row: int | None = None) -> str:
        """The field path of a column or of one value, for messages."""


def key_column(given: Keyed, name: str, key: JoinKey) -> list[Scalar]:
    """A column of join key values, in the types that `online.keys` takes (instants in microseconds).

    Raises:
        InvalidRequestError: A value is missing or has no plain meaning in the join key's type.
    """
    cast = _CASTS[key.value_type]
    values = given.plain(name)
    try:
        return [cast(value) for value in values]
    except (ValueEncodeError, TypeError, ValueError):
        raise _first_refusal(given, name, key, cast, values) from None


def _first_refusal(
    given: Keyed, name: str, key: JoinKey, cast: Callable[[Any], Scalar], values: list[Any]
) -> InvalidRequestError:
    wanted = key.value_type.name.lower()
    for row, value in enumerate(values):
        place = given.place(name, row)
        if value is None:
            return InvalidRequestError.of("REQUIRED_FIELD_MISSING", place, "give the join key a value")
        try:
            cast(value)
        except (ValueEncodeError, TypeError, ValueError):
            kind = type(value).__name__
            description = (
                f"is {repr(value)[:NAME_SHOWN]}, which is no {wanted}: the registry declares {name} so"
            )
            return InvalidRequestError.of(
                "FIELD_TYPE_MISMATCH", place, description, wantedType=wanted, sentKind=kind
            )
    raise AssertionError("one of the values was refused")


def _integer(bits: int) -> Callable[[Any], Scalar]:
    bound = 1 << (bits - 1)

    def cast(value: Any) -> int:
        number = value if type(value) is int else _whole(value)
        if -bound <= number < bound:
            return number
        raise ValueError

    return cast


def _whole(value: Any) -> int:
    """Text must be canonical, so that `007` and `7` cannot name one entity twice."""
    if isinstance(value, str) and len(value) <= 20 and str(int(value)) == value:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise TypeError


def _text(value: Any) -> str:
    if isinstance(value, str):
        value.encode()
        return value
    if type(value) is int:
        return str(value)
    raise TypeError


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return bytes(from_base64(value)) if isinstance(value, str) else _refuse()


def _refuse() -> bytes:
    raise TypeError


def _instant(value: Any) -> int:
    if value is None:
        raise TypeError
    return micros_of(value)


_ARM = methodcaller("WhichOneof", "val")
_EXACT: Mapping[ValueType, tuple[str, Callable[[Any], Any]]] = {
    value_type: (f"{value_type.name.lower()}_val", attrgetter(f"{value_type.name.lower()}_val"))
    for value_type in (ValueType.STRING, ValueType.BYTES)
}
_CASTS: Mapping[ValueType, Callable[[Any], Scalar]] = {
    ValueType.INT32: _integer(32),
    ValueType.INT64: _integer(64),
    ValueType.STRING: _text,
    ValueType.BYTES: _bytes,
    ValueType.UNIX_TIMESTAMP: _instant,
}
