"""The event ids that a customer brought lately, each with the position that first brought it.

A busy customer has many, so they are kept as hashes and written in chunks to which new ids are only added. Two ids of
one customer are taken for one with a probability of n² / 2⁶⁵: for the most ids that are kept, below 2·10⁻⁹.
"""

from __future__ import annotations

import struct

import mmh3

MAX_RECENT_IDS = 262_144
"""Most ids of one customer; whoever brings more within the lateness bound is no customer."""
PREFIX = b"r:"
_RECORD = struct.Struct("<qq")
CHUNK_BYTES = 127 * _RECORD.size


def id_hash(event_id: str) -> int:
    """What stands for an event id: the first 64 bits, signed, of murmur3 of its UTF-8 bytes."""
    return mmh3.hash64(event_id)[0]


class RecentIds:
    """Recent ids in buckets of event time, packed in the order in which they came."""

    __slots__ = ("_dropped", "_packed", "_positions", "_written")

    def __init__(self) -> None:
        self._positions: dict[int, int] = {}
        self._packed: dict[int, bytearray] = {}
        self._written: dict[int, int] = {}
        self._dropped: list[bytes] = []

    def __len__(self) -> int:
        return len(self._positions)

    def position(self, hashed: int) -> int | None:
        """The position that first brought an id, or None."""
        return self._positions.get(hashed)

    def note(self, bucket: int, hashed: int, position: int) -> None:
        """Note which position brought an id; one that is known keeps the position it has."""
        if hashed in self._positions:
            return
        self._positions[hashed] = position
        packed = self._packed.get(bucket)
        if packed is None:
            packed = self._packed[bucket] = bytearray()
        packed += _RECORD.pack(hashed, position)

    def forget(self, first_bucket: int) -> None:
        """Drop the buckets before one."""
        for bucket in [bucket for bucket in self._packed if bucket < first_bucket]:
            for hashed, _ in _RECORD.iter_unpack(self._packed.pop(bucket)):
                del self._positions[hashed]
            stored = self._written.pop(bucket, 0)
            self._dropped += [_name(bucket, number) for number in range(-(-stored // CHUNK_BYTES))]

    def take_changes(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """What the next write must set and drop; counts as written from now on."""
        changed: dict[bytes, bytes] = {}
        for bucket, packed in self._packed.items():
            stored = self._written.get(bucket, 0)
            if len(packed) == stored:
                continue
            for number in range(stored // CHUNK_BYTES, -(-len(packed) // CHUNK_BYTES)):
                changed[_name(bucket, number)] = bytes(
                    packed[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
                )
            self._written[bucket] = len(packed)
        dropped, self._dropped = self._dropped, []
        return changed, dropped

    def load(self, chunks: dict[bytes, bytes]) -> None:
        """Take up what is stored."""
        places = {tuple(map(int, name[len(PREFIX) :].split(b":"))): data for name, data in chunks.items()}
        for (bucket, _), data in sorted(places.items()):
            self._packed.setdefault(bucket, bytearray()).extend(data)
            self._positions.update(_RECORD.iter_unpack(data))
        self._written = {bucket: len(packed) for bucket, packed in self._packed.items()}


def _name(bucket: int, number: int) -> bytes:
    return PREFIX + b"%d:%d" % (bucket, number)
