"""Decision ids: sortable by time, unique without coordination."""

from __future__ import annotations

import uuid

RANDOM_BYTES = 10


def decision_id(now_us: int, random: bytes) -> str:
    """A UUID of version 7: 48 bits of milliseconds of `now_us`, then 74 of the bits of `random` (10 bytes)."""
    milliseconds = (now_us // 1_000) & ((1 << 48) - 1)
    low = int.from_bytes(random[:RANDOM_BYTES], "big")
    number = milliseconds << 80 | 0x7 << 76 | (low >> 62 & 0xFFF) << 64 | 0b10 << 62 | low & ((1 << 62) - 1)
    return str(uuid.UUID(int=number))
