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
from online.entity_calls import KEY_ROOM, NUMBER_ROOM, VIEWS, EntityWrites, gathered, slot_tables
from online.guarded import Guard
from online.words import IntArray, flat, side_by_side, word

BoolArray = npt.NDArray[np.bool_]

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
_UNSEEN: Seen = b"unseen", ()
"""Of no revision that is one."""


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


def look_commands(guard: Guard, wanted: Sequence[Wanted]) -> bytes:
    """Commands that watch a guard, what it is for, and entities, and then read what a write hangs on.

    Their replies are one for the watching, two for each entity (revision, timestamps), what the guard's key holds, and
    the types of the keys that it is for.
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
    data = out.data
    names, reads = _guard_words(guard)
    head = b"*%d\r\n$5\r\nWATCH\r\n" % (2 + len(guard.types) + 2 * len(keys))
    return b"".join((head, names, data[:middle], data[middle:stop], reads))


@cache
def _guard_words(guard: Guard) -> tuple[bytes, bytes]:
    """The keys, and what reads them."""
    names = [word(name) for name, _ in guard.types]
    reads = [b"*2\r\n$4\r\nTYPE\r\n" + name for name in names]
    key = word(guard.key)
    return b"".join((key, *names)), b"".join((b"*2\r\n$3\r\nGET\r\n", key, *reads))


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
            if (b"0" if stored is None else stored) != b"%d" % revision or len(own) != len(part.views):
                return None
            stamps += own
    return stamps
