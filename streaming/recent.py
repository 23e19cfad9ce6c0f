"""The event ids that a customer brought lately, each with the position that first brought it.

A busy customer has many, so they are kept as hashes and written in chunks to which new ids are only added. Two ids of
one customer are taken for one with a probability of n² / 2⁶⁵: for the most ids that are kept, below 2·10⁻⁹.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import mmh3
import numpy as np
import numpy.typing as npt

from streaming.recent_kernels import CROWDED, FREE, NEW, REPEATED, SAME, note_id, note_ids

__all__ = ["CROWDED", "MAX_RECENT_IDS", "NEW", "PREFIX", "REPEATED", "SAME", "RecentIds", "id_hashes"]

MAX_RECENT_IDS = 262_144
"""Most ids of one customer; whoever brings more within the lateness bound is no customer."""
PREFIX = b"r:"
_RECORD = struct.Struct("<qq")
CHUNK_BYTES = 127 * _RECORD.size
_LEAST_PLACES = 8
_OWN_BYTES = 800
_NO_BUCKET = 2**63

IntArray = npt.NDArray[np.int64]


def id_hashes(event_ids: Sequence[str]) -> IntArray:
    """What stands for event ids: the first 64 bits, signed, of murmur3 of their UTF-8 bytes."""
    hash64 = mmh3.hash64
    return np.array([hash64(event_id)[0] for event_id in event_ids], dtype=np.int64)


class RecentIds:
    """Recent ids in buckets of event time, packed in the order in which they came.

    Attributes:
        oldest: The earliest bucket; beyond all numbers where there is none.
    """

    __slots__ = ("_added", "_dropped", "_packed", "_table", "_used", "_written", "oldest")

    def __init__(self) -> None:
        self._table = _free(_LEAST_PLACES)
        self._used = 0
        self._packed: dict[int, bytearray] = {}
        self._written: dict[int, int] = {}
        self._added: tuple[int, ...] = ()
        self._dropped: list[bytes] = []
        self.oldest = _NO_BUCKET

    def __len__(self) -> int:
        return self._used

    @property
    def size_bytes(self) -> int:
        """About the memory that it takes."""
        return _OWN_BYTES + 16 * len(self._table) + sum(map(len, self._packed.values()))

    def note(self, buckets: IntArray, hashes: IntArray, positions: IntArray) -> npt.NDArray[np.uint8]:
        """Note ids, one after the other, each with the position that brought it.

        Returns:
            For each `NEW`, or `SAME` or `REPEATED` where it was known by this or another position, which it keeps, or
            `CROWDED` where as many are known as are kept.
        """
        marks = np.empty(len(hashes), dtype=np.uint8)
        self._make_room(len(hashes))
        before = self._used
        self._used = note_ids(self._table, before, MAX_RECENT_IDS, hashes, positions, marks)
        count = self._used - before
        if count < len(marks):
            new = marks == NEW
            buckets, hashes, positions = buckets[new], hashes[new], positions[new]
        records = np.empty((count, 2), dtype="<i8")
        records[:, 0], records[:, 1] = hashes, positions
        owners = dict.fromkeys(buckets.tolist())
        for bucket in owners:
            own = records if len(owners) == 1 else records[buckets == bucket]
            self._add(bucket, own.tobytes())
        return marks

    def note_one(self, bucket: int, hashed: int, position: int) -> int:
        """As `note`, of one id."""
        if len(self._table) < 2 * (self._used + 1):
            self._make_room(1)
        mark: int = note_id(self._table, self._used, MAX_RECENT_IDS, hashed, position)
        if mark == NEW:
            self._used += 1
            self._add(bucket, _RECORD.pack(hashed, position))
        return mark

    def look_up(self, hashed: int, position: int) -> int:
        """What `note` would say of an id if it came next; it is not noted."""
        mark: int = note_id(self._table, self._used, 0, hashed, position)
        return NEW if mark == CROWDED and self._used < MAX_RECENT_IDS else mark

    def _add(self, bucket: int, records: bytes) -> None:
        packed = self._packed.get(bucket)
        if packed is None:
            packed = self._packed[bucket] = bytearray()
            self.oldest = min(self.oldest, bucket)
        packed += records
        if bucket not in self._added:
            self._added += (bucket,)

    def forget(self, first_bucket: int) -> None:
        """Drop the buckets before one."""
        gone = [bucket for bucket in self._packed if bucket < first_bucket]
        if not gone:
            return
        for bucket in gone:
            del self._packed[bucket]
            stored = self._written.pop(bucket, 0)
            self._dropped += [_name(bucket, number) for number in range(-(-stored // CHUNK_BYTES))]
        self._added = tuple(bucket for bucket in self._added if bucket in self._packed)
        self._index()

    def take_changes(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """What the next write must set and drop; counts as written from now on."""
        changed: dict[bytes, bytes] = {}
        for bucket in self._added:
            packed, stored = self._packed[bucket], self._written.get(bucket, 0)
            for number in range(stored // CHUNK_BYTES, -(-len(packed) // CHUNK_BYTES)):
                changed[_name(bucket, number)] = bytes(
                    packed[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
                )
            self._written[bucket] = len(packed)
        self._added = ()
        dropped, self._dropped = self._dropped, []
        return changed, dropped

    def load(self, chunks: dict[bytes, bytes]) -> None:
        """Take up what is stored."""
        places = {tuple(map(int, name[len(PREFIX) :].split(b":"))): data for name, data in chunks.items()}
        for (bucket, _), data in sorted(places.items()):
            self._packed.setdefault(bucket, bytearray()).extend(data)
        self._written = {bucket: len(packed) for bucket, packed in self._packed.items()}
        self._index()

    def _index(self) -> None:
        """Make the table anew from what is packed."""
        self.oldest = min(self._packed, default=_NO_BUCKET)
        records = np.frombuffer(b"".join(self._packed.values()), dtype="<i8").reshape(-1, 2)
        self._table, self._used = _free(_LEAST_PLACES), 0
        self._fill(records[:, 0].copy(), records[:, 1].copy())

    def _make_room(self, count: int) -> None:
        places = len(self._table)
        while places < 2 * (self._used + count):
            places *= 2
        if places > len(self._table):
            held = self._table[self._table[:, 1] != FREE]
            self._table, self._used = _free(places), 0
            self._fill(held[:, 0].copy(), held[:, 1].copy())

    def _fill(self, hashes: IntArray, positions: IntArray) -> None:
        if len(hashes):
            self._make_room(len(hashes))
            marks = np.empty(len(hashes), dtype=np.uint8)
            self._used = note_ids(self._table, 0, len(hashes), hashes, positions, marks)


def _free(places: int) -> IntArray:
    return np.full((places, 2), FREE, dtype=np.int64)


def _name(bucket: int, number: int) -> bytes:
    return PREFIX + b"%d:%d" % (bucket, number)
