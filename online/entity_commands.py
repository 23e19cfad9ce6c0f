"""Many entities' writes laid out as commands of one transaction, and what must be looked at before.

The commands do what the script of `online.write` does where all its conditions hold, which a look at the entities tells
beforehand. The server carries them out three times as fast: the script has every word made anew twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from online.command_kernels import lay_commands, lay_looks
from online.entity_calls import (
    KEY_ROOM,
    NUMBER_ROOM,
    VIEWS,
    EntityWrites,
    gathered,
    side_by_side,
    slot_tables,
)
from online.words import IntArray, flat, word

BoolArray = npt.NDArray[np.bool_]

_UNSEEN: Seen = b"unseen", ()
"""Of no revision that is one."""
_NAMES_ROOM = 128
"""For the names of an entity's commands, and what is not keys or words in them."""


class Wanted(NamedTuple):
    """Entities that may be written.

    Attributes:
        keys: Entity keys, each once among all.
        stamps: Fields of the timestamps of their views, in the order of `EntityWrites.views`; one at least.
    """

    keys: Sequence[bytes]
    stamps: tuple[bytes, ...]


Seen = tuple[bytes | None, Sequence[bytes | None]]
"""What the store has of an entity: its state's revision and the timestamps of its views, None where there is none."""


class Commands(NamedTuple):
    """Commands that write entities.

    Attributes:
        data: In the store's protocol.
        size: How many.
        written: By part and then by entity and view: which views they write.
        state_bytes: As `EntityCalls.state_bytes`.
    """

    data: memoryview
    size: int
    written: list[BoolArray]
    state_bytes: IntArray


def look_commands(guard: bytes, wanted: Sequence[Wanted]) -> bytes:
    """Commands that watch a key and entities, and then read what a write hangs on.

    Their replies are one for the watching, two for each entity (revision, timestamps), and what the key holds.
    """
    keys = [key for some in wanted for key in some.keys]
    blob, key_at = side_by_side(keys)
    fields, kinds = [_words(some.stamps) for some in wanted], []
    start = 0
    for some, own in zip(wanted, fields, strict=True):
        kinds.append((len(some.keys), start, start + len(own), len(some.stamps)))
        start += len(own)
    room = 4 * len(blob) + len(keys) * (4 * KEY_ROOM + _NAMES_ROOM)
    room += sum(len(some.keys) * len(own) for some, own in zip(wanted, fields, strict=True))
    out = np.empty(room, dtype=np.uint8)
    middle, stop = lay_looks(blob, key_at, np.array(kinds), flat(fields), *slot_tables(), out)
    data, key = out.data, word(guard)
    head = b"*%d\r\n$5\r\nWATCH\r\n" % (2 + 2 * len(keys))
    return b"".join((head, key, data[:middle], data[middle:stop], b"*2\r\n$3\r\nGET\r\n", key))


@cache
def _words(stamps: tuple[bytes, ...]) -> bytes:
    return b"".join(map(word, stamps))


def entity_commands(
    parts: Sequence[EntityWrites], ttls_s: Sequence[int], ttl_s: int, seen: Mapping[bytes, Seen]
) -> Commands | None:
    """Lay writes out; None where not all of them are certain to be carried out as they are.

    Args:
        parts: What to write, one entity at least.
        ttls_s: How long the states of each part live; 0 is for ever.
        ttl_s: How long entities live.
        seen: What the store has of entities by their keys.

    Raises:
        WriteTooLargeError: As `entity_calls`.
    """
    stamps = _stamps(parts, seen)
    if stamps is None:
        return None
    words = gathered(parts, ttls_s)
    blob, at = side_by_side([stamp or b"" for stamp in stamps])
    stamp_sizes = np.array([-1 if stamp is None else len(stamp) for stamp in stamps], dtype=np.int64)
    room = (
        words.byte_count
        + 6 * words.key_bytes
        + len(words.keys) * (6 * KEY_ROOM + 8 * NUMBER_ROOM + _NAMES_ROOM)
    )
    out = np.empty(room, dtype=np.uint8)
    stop, count = lay_commands(*words.arguments, ttl_s, blob, at, stamp_sizes, out)
    if count < 0:
        return None
    written, first = [], 0
    for part in parts:
        own_sizes = words.sizes[first : first + len(part.keys), VIEWS : VIEWS + len(part.views)]
        written.append(own_sizes > 1)
        first += len(part.keys)
    return Commands(out.data[:stop], count, written, words.state_bytes)


def _stamps(parts: Sequence[EntityWrites], seen: Mapping[bytes, Seen]) -> list[bytes | None] | None:
    """Stored times of the views of all entities; None where one was not looked at, or is of another revision."""
    stamps: list[bytes | None] = []
    for part in parts:
        for key, revision in zip(part.keys, part.revisions.tolist(), strict=True):
            stored, own = seen.get(key, _UNSEEN)
            if (stored or b"0") != b"%d" % revision or len(own) != len(part.views):
                return None
            stamps += own
    return stamps
