"""Calendar arithmetic on int microseconds, and time zones with their transitions written out.

Evaluation is integer arithmetic on the `Zone` it is given; only `load_zone`, which runs when a policy is compiled,
reads the machine's time zone database (or the `tzdata` package where there is none).
"""

from __future__ import annotations

import functools
import zoneinfo
from bisect import bisect_right
from datetime import datetime, tzinfo
from typing import Final

from decision.lang.syntax import UTC, PartName, Zone

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
DAY_S: Final = 86_400
ZONES_UNTIL_S: Final = 4_102_444_800
"""2100-01-01: transitions are written out up to here, after it the last offset stays."""

UNITS_US: Final = {
    "second": SECOND_US,
    "minute": MINUTE_US,
    "hour": HOUR_US,
    "day": DAY_US,
    "week": 7 * DAY_US,
}


@functools.lru_cache(maxsize=256)
def load_zone(name: str) -> Zone | None:
    """The zone of an IANA name, or None where there is none."""
    if name == "UTC":
        return UTC
    try:
        info = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return _written_out(name, info)


def zone_names() -> frozenset[str]:
    """Names that `load_zone` knows."""
    return frozenset(zoneinfo.available_timezones())


def _written_out(name: str, info: tzinfo) -> Zone:
    transitions: list[int] = []
    offsets = [_offset_s(info, 0)]
    at_s = 0
    while at_s < ZONES_UNTIL_S:
        step_s = at_s + DAY_S
        if _offset_s(info, step_s) != offsets[-1]:
            step_s = _first_change_s(info, at_s, step_s, offsets[-1])
            transitions.append(step_s * SECOND_US)
            offsets.append(_offset_s(info, step_s))
        at_s = step_s
    return Zone(name=name, transitions_us=tuple(transitions), offsets_s=tuple(offsets))


def _first_change_s(info: tzinfo, low_s: int, high_s: int, offset_s: int) -> int:
    """The second in (low, high] from which the offset is no longer the given one, which holds at low."""
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if _offset_s(info, middle_s) == offset_s:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s


def _offset_s(info: tzinfo, at_s: int) -> int:
    offset = datetime.fromtimestamp(at_s, info).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def offset_us(zone: Zone, at_us: int) -> int:
    """Microseconds east of UTC that hold at an instant."""
    return zone.offsets_s[bisect_right(zone.transitions_us, at_us)] * SECOND_US


def date_part(part: PartName, at_us: int, zone: Zone) -> int:
    """A part of the local time: month and day count from 1, weekday is 1 (Monday) to 7, day_of_year from 1."""
    local_us = at_us + offset_us(zone, at_us)
    day, within_us = divmod(local_us, DAY_US)
    match part:
        case "hour":
            return within_us // HOUR_US
        case "minute":
            return within_us // MINUTE_US % 60
        case "second":
            return within_us // SECOND_US % 60
        case "weekday":
            return (day + 3) % 7 + 1
        case _:
            return _date_part(part, day)


def _date_part(part: PartName, day: int) -> int:
    year, month, day_of_month = civil(day)
    match part:
        case "year":
            return year
        case "month":
            return month
        case "day":
            return day_of_month
        case _:
            return day - days_before(year, 1, 1) + 1


def civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of a day number (0 is 1970-01-01) in the proleptic Gregorian calendar, for any int.

    Counts in eras of 400 years from 1 March of year 0, so that the leap day comes last in its year.
    """
    era, day_of_era = divmod(day + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    day_of_month = day_of_year - (153 * shifted_month + 2) // 5 + 1
    return era * 400 + year_of_era + (month <= 2), month, day_of_month


def days_before(year: int, month: int, day: int) -> int:
    """The day number of a date: the inverse of `civil`."""
    era, year_of_era = divmod(year - (month <= 2), 400)
    shifted_month = month - 3 if month > 2 else month + 9
    day_of_year = (153 * shifted_month + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


PART_UNITS_US: Final[dict[PartName, int]] = {
    "second": SECOND_US,
    "minute": MINUTE_US,
    "hour": HOUR_US,
    "day": DAY_US,
    "weekday": DAY_US,
    "day_of_year": DAY_US,
    "month": DAY_US,
    "year": DAY_US,
}


def steady_stretch(part: PartName, at_us: int, zone: Zone) -> tuple[int, int]:
    """The stretch [from, until) around an instant in which the part cannot change: one unit within one offset."""
    offset = offset_us(zone, at_us)
    unit_us = PART_UNITS_US[part]
    start_us = (at_us + offset) // unit_us * unit_us - offset
    return _within_offset(zone, at_us, start_us, start_us + unit_us)


def _within_offset(zone: Zone, at_us: int, start_us: int, end_us: int) -> tuple[int, int]:
    index = bisect_right(zone.transitions_us, at_us)
    if index > 0:
        start_us = max(start_us, zone.transitions_us[index - 1])
    if index < len(zone.transitions_us):
        end_us = min(end_us, zone.transitions_us[index])
    return start_us, end_us
