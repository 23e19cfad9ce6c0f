"""Instants written as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time, or None; a time without a zone is none."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if instant.tzinfo is None else (instant - EPOCH) // timedelta(microseconds=1)


def format_instant(at_us: int) -> str | None:
    """The RFC 3339 text of an instant in UTC, or None outside of the years 1 to 9999."""
    try:
        return (EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return None
