"""What an owner finds when it takes a partition over: which intents of the owner before it came true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import redis

from online.exchange import exchange
from online.keys import state_key
from online.write import REVISION_FIELD, EntityWrite, EntityWriter
from streaming.entity import POSITIONS, decode_mark
from streaming.errors import StreamingError
from streaming.journal import WHOLE, Intent, Part

MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class _Standing:
    """How an entity stands in the store."""

    revision: int
    mark: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Intents as far as they came true.

    Attributes:
        intents: Without what did not happen.
        void: What did not happen and was not known to, by number; to be written down before anything else is.
    """

    intents: tuple[Intent, ...]
    void: Mapping[int, frozenset[Part]]


def settle_intents(
    client: redis.Redis, writer: EntityWriter, partition: int, intents: Sequence[Intent]
) -> Settled:
    """Find out which parts of intents came true, and see to it that the others never do.

    A part of an intent whose entity was not written has not happened, and must not happen any more: the owner before
    may only be asleep. So the entity's revision is raised, and its write will be refused.

    Args:
        client: Connection to the store.
        writer: The conditional write.
        partition: Whose intents they are.
        intents: In order.

    Raises:
        StreamingError: If entities are written by others faster than they can be settled.
    """
    claimed = _claims(intents)
    marks: dict[bytes, int] = {}
    open_keys = list(claimed)
    for _ in range(MAX_ATTEMPTS):
        if not open_keys:
            break
        standing = _standing(client, partition, open_keys)
        marks |= {key: entry.mark for key, entry in standing.items()}
        hollow = [key for key in open_keys if marks[key] < claimed[key]]
        replies = writer.apply([_raise(key, standing[key].revision) for key in hollow])
        open_keys = [key for key, reply in zip(hollow, replies, strict=True) if reply is None]
    if open_keys:
        raise StreamingError(
            f"{len(open_keys)} entities changed {MAX_ATTEMPTS} times while they were settled"
        )
    known: dict[int, set[Part]] = {intent.number: set() for intent in intents}
    for intent in intents:
        for number, parts in intent.void.items():
            known.setdefault(number, set()).update(parts)
    void = {
        intent.number: frozenset((key, WHOLE) for key in intent.entities if marks[key] < intent.number)
        for intent in intents
    }
    true = tuple(intent.without(known[intent.number] | void[intent.number]) for intent in intents)
    new = {number: parts - known[number] for number, parts in void.items() if parts - known[number]}
    return Settled(true, new)


def _claims(intents: Sequence[Intent]) -> dict[bytes, int]:
    """Number of the last intent that says anything of an entity, voided or not."""
    claims: dict[bytes, int] = {}
    for intent in intents:
        claims |= dict.fromkeys(intent.entities, intent.number)
    return claims


def _standing(client: redis.Redis, partition: int, keys: Sequence[bytes]) -> dict[bytes, _Standing]:
    replies = exchange(client, ((b"HMGET", state_key(key), REVISION_FIELD, POSITIONS) for key in keys))
    found = {}
    for key, reply in zip(keys, replies, strict=True):
        if not isinstance(reply, list):
            raise StreamingError(f"the state of {key!r} cannot be read: {reply}")
        revision, positions = reply
        found[key] = _Standing(int(revision or 0), decode_mark(positions, partition))
    return found


def _raise(key: bytes, revision: int) -> EntityWrite:
    return EntityWrite(key=key, revision=revision, views=(), state={})
