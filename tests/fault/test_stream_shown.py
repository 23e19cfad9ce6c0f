"""Readers are told how far features are current while a batch is applied in pieces."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from online.keys import EntityKeys
from online.write import EntityWrite, EntityWriter, revision_of
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.materializer import Materializer
from streaming.owner import PartitionOwner, Progress
from tests.support.stream_world import CUSTOMER, MINUTE_US, PROJECT, START_US, World, drain, features, publish
from tests.support.valkey import emptied

LATER_US = START_US + 40 * MINUTE_US


def _buy(name: str, customer: str, at_us: int, amount: float = 1.0) -> tuple[int, EventRecord]:
    return at_us, EventRecord(name, "buy", customer, at_us, {"category": "tea", "amount": amount})


@pytest.mark.parametrize(
    ("refused", "batch_records"), [("an event", 4), ("an event", 8), ("writes, and again", 4)]
)
def test_nothing_due_is_passed_while_its_batch_is_applied_in_pieces(
    url: str, monkeypatch: pytest.MonkeyPatch, refused: str, batch_records: int
) -> None:
    """An entity that is due by a batch's end is brought forward behind its records: until then time is not past it.

    So too where pieces come of a batch whose writes were refused when the next one had been computed already.
    """
    client, world = emptied(url), World.create()
    publish(url, [_buy("first", "ada", START_US)])
    (ada,) = EntityKeys(PROJECT, (CUSTOMER,)).encode_many({"customer_id": (["ada"], range(1))})
    shown: list[tuple[int, bool]] = []
    show, again = PartitionOwner.show, Materializer._write_again

    def watched(self: PartitionOwner, progress: Progress) -> None:
        shown.append((progress.time_us, features(client, world.plan)[ada] == before))
        show(self, progress)

    def failing(*_: Any) -> int:
        monkeypatch.setattr(Materializer, "_write_again", again)
        raise OverflowError

    with closing(world.materializer(client, batch_records=batch_records)) as materializer:
        drain(materializer)
        if refused != "an event":
            writer = EntityWriter(client)
            writer.apply(
                [EntityWrite(key=ada, revision=revision_of(writer.load([ada])[0]), views=(), state={})]
            )
            monkeypatch.setattr(Materializer, "_write_again", failing)
        due_us, before = materializer.next_due_us, features(client, world.plan)[ada]
        large = 9.3e12 if refused == "an event" else 1.0
        publish(url, [_buy(f"e{n}", f"c{n}", LATER_US + n, large if n == 2 else 1.0) for n in range(8)])
        monkeypatch.setattr(PartitionOwner, "show", watched)
        drain(materializer)
    assert START_US < due_us < LATER_US
    assert shown
    assert shown[-1][0] == LATER_US + 7
    assert all(time_us < due_us for time_us, is_as_before in shown if is_as_before)
    assert any(not is_as_before for _, is_as_before in shown)
    letters: Any = client.xlen(PartitionKeys(PROJECT, 0).dead_letters)
    assert letters == (refused == "an event")
