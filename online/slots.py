"""Redis Cluster slots, and a tag for each of them."""

from __future__ import annotations

import binascii
import itertools
import string
from functools import cache

SLOTS = 16_384
TAG_BYTES = 3
_TAG_ALPHABET = (string.digits + string.ascii_uppercase + string.ascii_lowercase).encode()


def slot_of(key: bytes) -> int:
    """Return the Cluster slot of a key, 0 to 16,383.

    As Redis: CRC16 (XMODEM) modulo 16,384 over what stands between the first `{` and the first `}` after it, or over
    the whole key where that is empty or absent.
    """
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return binascii.crc_hqx(key, 0) & (SLOTS - 1)


@cache
def slot_tags() -> tuple[bytes, ...]:
    """Return for every slot the first three-character alphanumeric tag, in ASCII order, that hashes to it.

    Stored keys depend on this table: it must never change.
    """
    tags: dict[int, bytes] = {}
    for characters in itertools.product(_TAG_ALPHABET, repeat=TAG_BYTES):
        tag = bytes(characters)
        tags.setdefault(binascii.crc_hqx(tag, 0) & (SLOTS - 1), tag)
    return tuple(tags[slot] for slot in range(SLOTS))
