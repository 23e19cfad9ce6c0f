"""How long a materializer waits for records, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import redis

import streaming.sending
from decision.schema import Value
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.log import Records
from streaming.materializer import WRITES_MS
from streaming.redis_log import RedisPartitionReader
from tests.support.lazy import LazyExecutor, PromptExecutor
from tests.support.stream_world import PROJECT, START_US, World, publish


class _Noting(RedisPartitionReader):
    """Notes how long each read may wait, and what stands in the journal when somebody asks; finds so many at most."""

    def __init__(self, client: redis.Redis, keys: PartitionKeys) -> None:
        super().__init__(client, keys)
        self.waits: list[int] = []
        self.announced: list[int] = []
        self.most = 1_000
        self._client, self._journal = client, keys.journal

    def read(self, after: int, count: int, wait_ms: int) -> Records:
        self.waits.append(wait_ms)
        return replace(super().read(after, min(count, self.most), wait_ms), is_full=False)

    def ask(self, after: int, count: int) -> Callable[[], Records]:
        length: Any = self._client.xlen(self._journal)
        self.announced.append(length)
        asked = super().ask(after, min(count, self.most))
        return lambda: replace(asked(), is_full=False)


def _buy(number: int) -> tuple[int, EventRecord]:
    properties: Mapping[str, Value] = {"category": "tea", "amount": 2.0}
    return START_US + number, EventRecord(f"e{number}", "buy", "ada", START_US, properties)


@pytest.mark.parametrize("wait_ms", [0, 1, 4 * WRITES_MS])
def test_records_are_waited_for_beside_writes(url: str, wait_ms: int) -> None:
    """About as long as a small batch's writes take, and no longer than where nothing is under way."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        reader = _Noting(client, PartitionKeys(PROJECT, 0))
        materializer = World.create().materializer(client, reader=reader, limits={"wait_ms": wait_ms})
        publish(url, [_buy(0)])
        assert materializer.step() == 1
        assert reader.waits == [wait_ms, min(wait_ms, WRITES_MS)]
        assert materializer.stats.events == 1


@pytest.mark.parametrize(("pace", "asked"), [(LazyExecutor, [1, 2]), (PromptExecutor, [])])
def test_what_waits_is_asked_for_before_the_writes_go_out(
    url: str, monkeypatch: pytest.MonkeyPatch, pace: type[LazyExecutor], asked: list[int]
) -> None:
    """Whoever asks behind the writes waits for them; but it delays those, so only while records come faster."""
    monkeypatch.setattr(streaming.sending, "ThreadPoolExecutor", pace)
    with redis.Redis.from_url(url) as client:
        client.flushall()
        reader = _Noting(client, PartitionKeys(PROJECT, 0))
        materializer = World.create().materializer(client, reader=reader, limits={"wait_ms": 0})
        publish(url, [_buy(1), _buy(2), _buy(3)])
        reader.most = 1
        assert [materializer.step() for _ in range(3)] == [1, 1, 1]
        assert reader.announced == asked, "the first did not know that others would come so soon"
        publish(url, [_buy(4)])
        assert materializer.step() == 1
        assert reader.announced == asked, "the third found nothing behind it"
        assert client.xlen(PartitionKeys(PROJECT, 0).journal) == 4


def test_nothing_is_asked_for_where_nothing_runs_ahead(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast records come."""
    monkeypatch.setattr(streaming.sending, "ThreadPoolExecutor", LazyExecutor)
    with redis.Redis.from_url(url) as client:
        client.flushall()
        reader = _Noting(client, PartitionKeys(PROJECT, 0))
        materializer = World.create().materializer(client, reader=reader, limits={"wait_ms": 0})
        publish(url, list(map(_buy, range(4))))
        reader.most = 1
        assert [materializer.step() for _ in range(2)] == [1, 1]
        assert reader.announced == [1]
        materializer._careful = 100
        assert [materializer.step() for _ in range(2)] == [1, 1]
        assert reader.announced == [1, 2]
