"""Stored `feast.types.Value` messages as Python objects (for on-demand views) and as JSON (for HTTP).

Both forms are those of Feast's own SDK and server, so that functions and clients written for them go on working.
"""

from __future__ import annotations

import base64
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from online.errors import ValueEncodeError
from online.values import NULL_SECONDS

_SHOWN = 60
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})")


def python_of(message: Any) -> Any:
    """A value as Feast hands it to the functions of on-demand views; None where nothing is set.

    Raises:
        ValueEncodeError: An instant lies outside of what Python's dates hold, or a text is no UUID or decimal.
    """
    arm = message.WhichOneof("val")
    if arm is None or arm == "null_val":
        return None
    value = getattr(message, arm)
    convert = _PYTHON.get(arm)
    if convert is not None:
        try:
            return convert(value)
        except (ValueError, ArithmeticError) as error:
            raise ValueEncodeError(f"{str(value)[:_SHOWN]!r} is not {arm.removesuffix('_val')}") from error
    return list(value.val) if hasattr(value, "val") else value


def json_of(message: Any) -> Any:
    """A value as Feast's HTTP server answers it: bytes in base64, non-finite floats as text."""
    arm = message.WhichOneof("val")
    if arm is None or arm == "null_val":
        return None
    value = getattr(message, arm)
    convert = _JSON.get(arm)
    if convert is not None:
        return convert(value)
    return list(value.val) if hasattr(value, "val") else value


def zone_of(name: str) -> tzinfo:
    """The zone that a stored name means; UTC where it means none."""
    if name in {"", "UTC", "GMT"}:
        return UTC
    match = _OFFSET.fullmatch(name.strip())
    if match is not None:
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-offset if sign == "-" else offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def _instant(seconds: int) -> datetime | None:
    return _at(seconds, UTC)


def _zoned(message: Any) -> datetime | None:
    return _at(message.unix_timestamp, zone_of(message.zone))


def _at(seconds: int, zone: tzinfo) -> datetime | None:
    if seconds == NULL_SECONDS:
        return None
    try:
        return datetime.fromtimestamp(seconds, tz=zone)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueEncodeError(f"{seconds} s since 1970 lies outside of the years 1 to 9999") from error


def _zoned_text(message: Any) -> str | None:
    instant = _zoned(message)
    return None if instant is None else instant.isoformat()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _map(message: Any) -> dict[str, Any]:
    return {key: python_of(value) for key, value in message.val.items()}


def _scalar_map(message: Any) -> dict[Any, Any]:
    return {_map_key(entry.key): python_of(entry.value) for entry in message.val}


def _map_key(message: Any) -> Any:
    arm = message.WhichOneof("key")
    value = getattr(message, arm) if arm else None
    convert = _KEYS.get(arm or "")
    return value if convert is None else convert(value)


def _each(convert: Callable[[Any], Any], collect: Callable[[Iterable[Any]], Any]) -> Callable[[Any], Any]:
    return lambda message: collect(convert(item) for item in message.val)


Convert = Callable[[Any], Any]
_KEYS: dict[str, Convert] = {
    "unix_timestamp_key": _instant,
    "uuid_key": uuid.UUID,
    "time_uuid_key": uuid.UUID,
    "decimal_key": Decimal,
}
_PYTHON: dict[str, Convert] = {
    "json_val": _parsed,
    "json_list_val": _each(_parsed, list),
    "map_val": _map,
    "struct_val": _map,
    "map_list_val": _each(_map, list),
    "struct_list_val": _each(_map, list),
    "list_val": _each(python_of, list),
    "set_val": _each(python_of, list),
    "scalar_map_val": _scalar_map,
    "zoned_timestamp_val": _zoned,
    "unix_timestamp_val": _instant,
    "unix_timestamp_list_val": _each(_instant, list),
    "unix_timestamp_set_val": _each(_instant, set),
    "uuid_val": uuid.UUID,
    "time_uuid_val": uuid.UUID,
    "uuid_list_val": _each(uuid.UUID, list),
    "time_uuid_list_val": _each(uuid.UUID, list),
    "uuid_set_val": _each(uuid.UUID, set),
    "time_uuid_set_val": _each(uuid.UUID, set),
    "decimal_val": Decimal,
    "decimal_list_val": _each(Decimal, list),
    "decimal_set_val": _each(Decimal, set),
}
for _name in ("bytes", "string", "int32", "int64", "double", "float", "bool"):
    _PYTHON[f"{_name}_set_val"] = lambda message: set(message.val)


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _json_map(message: Any) -> dict[str, Any]:
    return {key: json_of(value) for key, value in message.val.items()}


_JSON: dict[str, Convert] = {
    "double_val": _number,
    "float_val": _number,
    "bytes_val": _base64,
    "bytes_list_val": _each(_base64, list),
    "bytes_set_val": _each(_base64, list),
    "map_val": _json_map,
    "struct_val": _json_map,
    "map_list_val": _each(_json_map, list),
    "struct_list_val": _each(_json_map, list),
    "list_val": _each(json_of, list),
    "set_val": _each(json_of, list),
    "scalar_map_val": lambda _: None,  # JSON has no keys but text
    "zoned_timestamp_val": _zoned_text,
}
for _name in ("double_list", "float_list", "double_set", "float_set"):
    _JSON[f"{_name}_val"] = _each(_number, list)
