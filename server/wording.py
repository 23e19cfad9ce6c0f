"""Numbers with the words that follow them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 error`, `2 errors`; `plural` where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def sized(count_bytes: float) -> str:
    """Bytes in the unit that suits them, three digits of it: `686 B`, `5.33 KB`."""
    value, units = float(count_bytes), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
