"""Python, JSON and text values as stored `feast.types.Value` bytes, by the type that the registry declares.

Taken where the meaning is plain: integers for floats, whole floats for integers, canonical decimal text for numbers,
ISO 8601 text or seconds for instants, JSON text for lists, maps and structs. NULL (None, NaN, NaT) is stored as no
bytes. Everything else is refused.
"""

from __future__ import annotations

import base64
import json
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from decision.schema import ValueType
from online.errors import ValueEncodeError
from online.values import NULL_SECONDS
from server.feast.plain import python_of
from server.feast.protos import Map, MapKey, RepeatedValue, Value
from server.values import EARLIEST_US, LATEST_US

MAX_DEPTH = 32
_INT32, _INT64 = 1 << 31, 1 << 63
_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 60
_NAN_TEXTS = frozenset({"nan", "-nan", "+nan"})


def encode(value_type: ValueType, value: Any) -> bytes:
    """Serialize a value; NULL gives no bytes.

    Raises:
        ValueEncodeError: The value is not one of the type.
    """
    if is_null(value) or _says_nan(value_type, value) or _is_no_instant(value_type, value):
        return b""
    message = Value()
    try:
        _FILL[value_type](message, value)
    except ValueEncodeError:
        raise
    except (TypeError, ValueError, OverflowError, AttributeError, InvalidOperation, RecursionError) as error:
        raise ValueEncodeError(f"{_short(value)} is not {_an(value_type)}") from error
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def encode_message(value_type: ValueType, message: Any) -> bytes:
    """The stored bytes of a value that came as a message; another arm than the type's is cast where that is plain.

    Raises:
        ValueEncodeError: The value is not one of the type.
    """
    arm = message.WhichOneof("val")
    if arm is None or arm == "null_val":
        return b""
    if arm == arm_of(value_type):
        value = getattr(message, arm)
        if is_null(value) or _is_no_instant(value_type, value):
            return b""
        python_of(message)  # or whoever reads it would find out
        data: bytes = message.SerializeToString(deterministic=True)
        return data
    return encode(value_type, python_of(message))


def arm_of(value_type: ValueType) -> str:
    """The field of `feast.types.Value` that holds a type."""
    names = {ValueType.VALUE_LIST: "list_val", ValueType.VALUE_SET: "set_val"}
    return names.get(value_type) or f"{value_type.name.lower()}_val"


def is_null(value: Any) -> bool:
    """Whether a value stands for nothing: None, a NaN, a NaT."""
    return value is None or (value != value and not _sized(value))  # noqa: PLR0124 - only NaN and NaT differ from themselves


def _says_nan(value_type: ValueType, value: Any) -> bool:
    """Whether a text is a NaN, as clients write it that have no other way to."""
    numbers = (ValueType.DOUBLE, ValueType.FLOAT, ValueType.DECIMAL)
    return value_type in numbers and isinstance(value, str) and value.strip().lower() in _NAN_TEXTS


def _is_no_instant(value_type: ValueType, value: Any) -> bool:
    """Whether a value is what Feast's SDK sends for a missing instant."""
    return value_type is ValueType.UNIX_TIMESTAMP and type(value) is int and value == NULL_SECONDS


def _sized(value: Any) -> bool:
    return hasattr(value, "__len__")


def micros_of(value: Any) -> int:
    """An instant as microseconds since the epoch: a datetime (naive is UTC), ISO 8601 text, or seconds.

    Raises:
        ValueEncodeError: It is none of these, or outside of the years 1 to 9999.
    """
    try:
        micros = _micros(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueEncodeError(
            f"{_short(value)} is no instant: send ISO 8601 text or seconds since the epoch"
        ) from error
    if not EARLIEST_US <= micros <= LATEST_US:
        raise ValueEncodeError(
            f"{_short(value)} lies outside of the years 1 to 9999: send seconds since the epoch"
        )
    return micros


def _micros(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip()
        if text.removeprefix("-").isdecimal():
            return int(text) * _US
        value = datetime.fromisoformat(text)
    elif hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime(warn=False)
    elif "datetime64" in str(getattr(value, "dtype", "")):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        since = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 + since.seconds) * _US + since.microseconds
    if isinstance(value, bool):
        raise TypeError("a bool is no instant")
    return round(value * _US) if isinstance(value, float) else operator.index(value) * _US


def _whole(value: Any, bound: int) -> int:
    if isinstance(value, bool):
        raise ValueEncodeError(f"{value} is a bool, not a whole number")
    if isinstance(value, str):
        digits = value.removeprefix("-")
        if not (
            digits.isascii()
            and digits.isdecimal()
            and len(digits) < 21
            and (digits[0] != "0" or value == "0")
        ):
            raise ValueEncodeError(f"{_short(value)} is not a whole number in plain decimal digits")
        number = int(value)
    elif isinstance(value, float | Decimal):
        if value != int(value):
            raise ValueEncodeError(f"{_short(value)} is not a whole number")
        number = int(value)
    else:
        number = operator.index(
            value.item() if hasattr(value, "item") and not isinstance(value, int) else value
        )
    if not -bound <= number < bound:
        raise ValueEncodeError(f"{_short(value)} is out of range")
    return number


def _int32(value: Any) -> int:
    return _whole(value, _INT32)


def _int64(value: Any) -> int:
    return _whole(value, _INT64)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueEncodeError(f"{value} is a bool, not a number")
    return float(value)


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        found = {"true": True, "false": False}.get(value.lower())
        if found is None:
            raise ValueEncodeError(f"{_short(value)} is not true or false")
        return found
    plain = value.item() if hasattr(value, "item") else value
    if plain not in {0, 1}:
        raise ValueEncodeError(f"{_short(value)} is not true or false")
    return bool(plain)


def _text(value: Any) -> str:
    if isinstance(value, str):
        value.encode()
        return value
    if isinstance(value, bool | int | float) or hasattr(value, "item"):
        return str(value)
    raise ValueEncodeError(f"{_short(value)} is not text")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return bytes(memoryview(value))


def _unix(value: Any) -> int:
    return micros_of(value) // _US


def _uuid(value: Any) -> str:
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value)))


def _decimal(value: Any) -> str:
    return str(value if isinstance(value, Decimal) else Decimal(str(value)))


def _json(value: Any) -> str:
    if isinstance(value, str):
        json.loads(value)
        return value
    return json.dumps(value)


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = json.loads(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueEncodeError(f"{_short(value)} is not a list")
    return list(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        raise ValueEncodeError(f"{_short(value)} is not a map")
    return value


def _set_scalar(arm: str, convert: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        setattr(message, arm, convert(value))

    return fill


def _set_items(
    arm: str, convert: Callable[[Any], Any], distinct: Callable[[Iterable[Any]], Iterable[Any]] = list
) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        holder = getattr(message, arm)
        holder.SetInParent()
        holder.val.extend(distinct(convert(item) for item in _items(value)))

    return fill


def _set_map(arm: str) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        holder = getattr(message, arm)
        holder.SetInParent()
        _fill_map(holder, _mapping(value), 0)

    return fill


def _set_maps(arm: str) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        holder = getattr(message, arm)
        holder.SetInParent()
        for item in _items(value):
            _fill_map(holder.val.add(), _mapping(item), 0)

    return fill


def _fill_map(holder: Map, value: Mapping[str, Any], depth: int) -> None:
    for key, item in value.items():
        _guess(holder.val[str(key)], item, depth + 1)


def _guess(message: Value, value: Any, depth: int) -> None:
    """Fill a value whose type nobody declared: within maps and nested lists, as Feast infers it."""
    if depth > MAX_DEPTH:
        raise ValueEncodeError(f"nested deeper than {MAX_DEPTH}")
    if is_null(value):
        message.Clear()
    elif isinstance(value, Mapping):
        message.map_val.SetInParent()
        _fill_map(message.map_val, value, depth)
    elif isinstance(value, list | tuple | set | frozenset) or hasattr(value, "tolist"):
        _guess_list(message, _items(value), depth)
    else:
        _FILL[_guessed_type(value)](message, value)


def _guess_list(message: Value, items: list[Any], depth: int) -> None:
    first = next((item for item in items if item is not None), None)
    if first is None:
        message.Clear()
    elif isinstance(first, Mapping):
        message.map_list_val.SetInParent()
        for item in items:
            _fill_map(message.map_list_val.val.add(), _mapping(item), depth + 1)
    elif isinstance(first, list | tuple | set | frozenset):
        _fill_nested(message.list_val, items, depth)
    else:
        element = _guessed_type(first)
        if element == ValueType.INT64 and any(isinstance(item, float) for item in items):
            element = ValueType.DOUBLE
        _FILL[ValueType[f"{element.name}_LIST"]](message, items)


def _fill_nested(holder: RepeatedValue, items: list[Any], depth: int) -> None:
    holder.SetInParent()
    for item in items:
        inner = holder.val.add()
        if item is not None:
            _guess_list(inner, _items(item), depth + 1)


def _guessed_type(value: Any) -> ValueType:
    plain = value.item() if hasattr(value, "item") else value
    for kind, value_type in (
        (bool, ValueType.BOOL),
        (int, ValueType.INT64),
        (float, ValueType.DOUBLE),
        (str, ValueType.STRING),
        (bytes, ValueType.BYTES),
        (datetime, ValueType.UNIX_TIMESTAMP),
        (uuid.UUID, ValueType.UUID),
        (Decimal, ValueType.DECIMAL),
    ):
        if isinstance(plain, kind):
            return value_type
    raise ValueEncodeError(f"{_short(value)} has no type of Feast's")


def _set_nested(arm: str) -> Callable[[Any, Any], None]:
    def fill(message: Any, value: Any) -> None:
        _fill_nested(getattr(message, arm), _items(value), 0)

    return fill


def _scalar_map(message: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueEncodeError(f"{_short(value)} is not a map")
    message.scalar_map_val.SetInParent()
    for key, item in value.items():
        entry = message.scalar_map_val.val.add()
        _fill_key(entry.key, key)
        _guess(entry.value, item, 1)


def _fill_key(message: MapKey, key: Any) -> None:
    plain = key.item() if hasattr(key, "item") else key
    for kind, arm, convert in _KEYS:
        if isinstance(plain, kind):
            setattr(message, arm, convert(plain))
            return
    raise ValueEncodeError(f"{_short(key)} cannot be a key of a SCALAR_MAP; text keys go into a MAP")


_KEYS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (bool, "bool_key", bool),
    (int, "int64_key", _int64),
    (float, "double_key", float),
    (uuid.UUID, "uuid_key", str),
    (Decimal, "decimal_key", str),
    (bytes, "bytes_key", bytes),
    (datetime, "unix_timestamp_key", _unix),
)


def _zoned(message: Any, value: Any) -> None:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    if hasattr(instant, "to_pydatetime"):
        instant = instant.to_pydatetime(warn=False)
    if not isinstance(instant, datetime):
        raise ValueEncodeError(f"{_short(value)} is no instant: send ISO 8601 text with an offset")
    zone = instant.tzinfo
    message.zoned_timestamp_val.unix_timestamp = micros_of(instant) // _US
    message.zoned_timestamp_val.zone = "" if zone is None else str(getattr(zone, "key", None) or zone)


def _unique(items: Iterable[Any]) -> Iterable[Any]:
    return dict.fromkeys(items)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "bytes": _bytes,
    "string": _text,
    "int32": _int32,
    "int64": _int64,
    "double": _float,
    "float": _float,
    "bool": _bool,
    "unix_timestamp": _unix,
    "json": _json,
    "uuid": _uuid,
    "time_uuid": _uuid,
    "decimal": _decimal,
}
_FILL: dict[ValueType, Callable[[Any, Any], None]] = {
    ValueType.MAP: _set_map("map_val"),
    ValueType.MAP_LIST: _set_maps("map_list_val"),
    ValueType.STRUCT: _set_map("struct_val"),
    ValueType.STRUCT_LIST: _set_maps("struct_list_val"),
    ValueType.VALUE_LIST: _set_nested("list_val"),
    ValueType.VALUE_SET: _set_nested("set_val"),
    ValueType.SCALAR_MAP: _scalar_map,
    ValueType.ZONED_TIMESTAMP: _zoned,
}
for _name, _convert in _SCALARS.items():
    _FILL[ValueType[_name.upper()]] = _set_scalar(f"{_name}_val", _convert)
    _FILL[ValueType[f"{_name.upper()}_LIST"]] = _set_items(f"{_name}_list_val", _convert)
    if _name != "json":
        _FILL[ValueType[f"{_name.upper()}_SET"]] = _set_items(f"{_name}_set_val", _convert, _unique)


def from_base64(value: Any) -> Any:
    """JSON carries bytes in base64, alone or in lists."""
    if isinstance(value, list):
        return [from_base64(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueEncodeError(f"{_short(value)} is not base64") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _an(value_type: ValueType) -> str:
    return f"{'an' if value_type.name[0] in 'AEIOU' else 'a'} {value_type.name}"
