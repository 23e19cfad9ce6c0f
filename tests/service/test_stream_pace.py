"""How long a materializer waits for records, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import Records
from streaming.materializer import WRITES_MS
from streaming.redis_log import RedisPartitionReader
from tests.support.stream_world import PROJECT, START_US, World, publish


class _Noting(RedisPartitionReader):
    """Notes how long each read may wait, and what stands in the journal when somebody asks."""

    def __init__(self, client: redis.Redis, keys: PartitionKeys) -> None:
        super().__init__(client, keys)
        self.waits: list[int] = []
        self.announced: list[int] = []
        self._client, self._journal = client, keys.journal

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        self.waits.append(wait_ms)
        return super().read(after, count, wait_ms)

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        length: Any = self._client.xlen(self._journal)
        self.announced.append(length)
        return super().ask(after, count)


@pytest.mark.parametrize("wait_ms", [0, 1, 4 * WRITES_MS])
def test_records_are_waited_for_beside_writes(url: str, wait_ms: int) -> None:
    """About as long as a small batch's writes take, and no longer than where nothing is under way."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        reader = _Noting(client, PartitionKeys(PROJECT, 0))
        materializer = World.create().materializer(client, reader=reader, limits={"wait_ms": wait_ms})
        event = EventRecord("e", "buy", "ada", START_US, {"category": "tea", "amount": 2.0})
        publish(url, [(START_US, event)])
        assert materializer.step() == 1
        assert reader.waits == [wait_ms, min(wait_ms, WRITES_MS)]
        assert materializer.stats.events == 1


def test_what_waits_is_asked_for_before_the_writes_go_out(url: str) -> None:
    """The store answers in turn: whoever asks behind the writes waits for them."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        reader = _Noting(client, PartitionKeys(PROJECT, 0))
        materializer = World.create().materializer(client, reader=reader)
        buy = EventRecord("e", "buy", "ada", START_US, {"category": "tea", "amount": 2.0})
        publish(url, [(START_US, buy)])
        assert materializer.step() == 1
        assert reader.announced == [0]
        assert client.xlen(PartitionKeys(PROJECT, 0).journal) == 1
