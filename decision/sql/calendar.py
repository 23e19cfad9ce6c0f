"""Date parts in SQL, by the transitions that the zone carries and DuckDB's calendar of days, never its time zones."""

from __future__ import annotations

from typing import Final

from decision.lang.calendar import DAY_S, SECOND_US
from decision.lang.syntax import PartName, Zone
from decision.sql.text import named

ERA_YEARS: Final = 400
ERA_S: Final = 146_097 * DAY_S
"""The Gregorian calendar, weekdays included, repeats after 400 years."""
ERAS: Final = 731
"""Eras by which instants are moved, so that int64 has none before 1970: `//` and `%` cut towards zero in DuckDB."""

_SHIFT_BITS: Final = 6
_UNITS_PER_S: Final = SECOND_US >> _SHIFT_BITS
"""Seconds are 15,625 units of 64 µs: shifting right rounds down, and leaves room to move by the eras."""

OF_DAY: Final[dict[PartName, str]] = {
    "month": "month",
    "day": "day",
    "weekday": "isodow",
    "day_of_year": "dayofyear",
}


def date_part(part: PartName, at: str, zone: Zone) -> str:
    """A part of the local time of an instant in microseconds, for every int64; NULL of NULL."""
    if not zone.transitions_us:
        return _part(part, f"({_seconds(at)} + {zone.offsets_s[0]})")
    return named(at, lambda v: _part(part, f"({_seconds(v)} + {_offset_s(zone, v, 0, len(zone.offsets_s))})"))


def _seconds(at: str) -> str:
    """Whole seconds since the epoch, rounded down and moved by the eras."""
    return f"((({at} >> {_SHIFT_BITS}) + {ERAS * ERA_S * _UNITS_PER_S}) // {_UNITS_PER_S})"


def _offset_s(zone: Zone, at: str, first: int, end: int) -> str:
    """A binary search for the offset among those from first to before end."""
    if end - first == 1:
        return str(zone.offsets_s[first])
    middle = (first + end) // 2
    earlier, later = _offset_s(zone, at, first, middle), _offset_s(zone, at, middle, end)
    return f"CASE WHEN {at} < {zone.transitions_us[middle - 1]} THEN {earlier} ELSE {later} END"


def _part(part: PartName, local_s: str) -> str:
    match part:
        case "hour":
            return f"(({local_s} % {DAY_S}) // 3600)"
        case "minute":
            return f"(({local_s} % 3600) // 60)"
        case "second":
            return f"({local_s} % 60)"
        case "year":
            return f"(year({_day(local_s)}) - {ERAS * ERA_YEARS})"
        case _:
            return f"{OF_DAY[part]}({_day(local_s)})"


def _day(local_s: str) -> str:
    return f"(DATE '1970-01-01' + CAST(({local_s} // {DAY_S}) AS INTEGER))"
