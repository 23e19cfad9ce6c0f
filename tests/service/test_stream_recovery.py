"""What a new owner makes of the intents it finds: what came true is delivered, what did not never will be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from decision.schema import ValueType
from online.store import connect
from online.write import EntityWrite, EntityWriter
from streaming.advance import SegmentChange
from streaming.entity import POSITIONS, EntityState, positions_field
from streaming.journal import WHOLE, Intent
from streaming.lease import Leases
from streaming.owner import PartitionOwner
from streaming.packed import Field, Layout, entities_of
from streaming.recovery import Settled, settle_intents

LAYOUT = Layout([Field("value", ValueType.INT64)], has_entities=True)
ADA, BOB = b"\x01ada", b"\x01bob"


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as client:
        client.flushall()
        yield client


def _owner(client: redis.Redis) -> PartitionOwner:
    lease = Leases(client, "p", "test", 60_000).acquire(0)
    assert lease is not None
    return PartitionOwner(client, lease)


def _intent(number: int, *keys: bytes) -> Intent:
    rows = [LAYOUT.pack(len(keys), [[number] * len(keys)], entities=keys)]
    changes = tuple(SegmentChange(key, "s", True, number, "customer_id") for key in keys)
    return Intent(number, rows={"view": rows}, changes=changes)


def _write(key: bytes, revision: int, mark: int) -> EntityWrite:
    state = EntityState()
    state.position, state.mark = 7, mark
    return EntityWrite(key=key, revision=revision, views=(), state={POSITIONS: positions_field(state, 0)})


def _settle(client: redis.Redis, owner: PartitionOwner) -> Settled:
    return settle_intents(client, EntityWriter(client), 0, owner.undelivered(owner.checkpoint()))


def _said(settled: Settled) -> list[tuple[int, list[bytes], list[bytes]]]:
    return [
        (
            intent.number,
            [key for parts in intent.rows.values() for part in parts for key in entities_of(part)],
            [change.key for change in intent.changes],
        )
        for intent in settled.intents
    ]


def test_recovery_keeps_what_was_written_and_locks_out_what_was_not(client: redis.Redis) -> None:
    """An owner asleep between its intent and one of its writes finds that write refused for ever."""
    asleep, writer = _owner(client), EntityWriter(client)
    asleep.intend(_intent(1, ADA, BOB), {})
    assert writer.apply([_write(ADA, 0, 1)]) != [None]
    settled = _settle(client, _owner(client))
    assert _said(settled) == [(1, [ADA], [ADA])]
    assert settled.void == {1: frozenset({(BOB, WHOLE)})}
    assert writer.apply([_write(BOB, 0, 1)]) == [None]
    assert writer.apply([_write(BOB, 1, 2)]) != [None], "whoever reads again can write"


def test_recovery_after_a_recovery_does_not_revive_what_is_void(client: redis.Redis) -> None:
    """What one owner found void stays so for the next, though the entity has been written since."""
    first, writer = _owner(client), EntityWriter(client)
    first.intend(_intent(1, BOB), {})
    second = _owner(client)
    settled = _settle(client, second)
    second.intend(Intent(2, void=settled.void), {})
    second.intend(_intent(3, BOB), {})
    assert writer.apply([_write(BOB, 1, 3)]) != [None]
    again = _settle(client, _owner(client))
    assert _said(again) == [(1, [], []), (2, [], []), (3, [BOB], [BOB])]
    assert not again.void


def test_recovery_of_a_refused_attempt_counts_the_one_that_succeeded(client: redis.Redis) -> None:
    """A write that was refused and made again under the next number is there once."""
    owner, writer = _owner(client), EntityWriter(client)
    owner.intend(_intent(1, ADA, BOB), {})
    assert writer.apply([_write(ADA, 0, 1)]) != [None]
    retried = _intent(2, BOB)
    owner.intend(Intent(2, retried.rows, retried.changes, {1: frozenset({(BOB, WHOLE)})}), {})
    assert writer.apply([_write(BOB, 0, 2)]) != [None]
    assert _said(_settle(client, _owner(client))) == [(1, [ADA], [ADA]), (2, [BOB], [BOB])]


def test_recovery_of_one_hidden_view_keeps_the_entity_s_others(client: redis.Redis) -> None:
    """A row that was never readable is left out by itself."""
    owner, writer = _owner(client), EntityWriter(client)
    owner.intend(_intent(1, ADA), {})
    assert writer.apply([_write(ADA, 0, 1)]) != [None]
    owner.intend(Intent(2, void={1: frozenset({(ADA, "view")})}), {})
    assert _said(_settle(client, _owner(client))) == [(1, [], [ADA]), (2, [], [])]
