"""Sharing partitions, one process on its own: what it holds while it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from online.errors import StoreUnavailableError
from server.sharing import BEATS_PER_LEASE, Sharer
from streaming.keys import PartitionKeys, members_key
from streaming.lease import Leases, PartitionLease
from tests.support.stores import wait_until

LEASE_MS = 1_000
BEAT_S = LEASE_MS / 1000 / BEATS_PER_LEASE
MANY = 4


def test_a_partition_stays_its_owners_while_that_ends(client: redis.Redis) -> None:
    """A batch may take longer than a lease; nobody else may begin with the partition meanwhile."""
    leases = Leases(client, "sharing", "me", LEASE_MS)
    told, done, stopping = threading.Event(), threading.Event(), threading.Event()

    def work(_lease: PartitionLease, ending: threading.Event) -> None:
        ending.wait()
        told.set()
        done.wait()

    sharer = Sharer(leases, "me", 1, BEAT_S, work)
    thread = threading.Thread(target=sharer.run, args=(stopping,))
    thread.start()
    key = PartitionKeys("sharing", 0).lease
    try:
        wait_until(lambda: bool(client.exists(key)), "the partition is taken")
        stopping.set()
        assert told.wait(10)
        renewals, left_ms = 0, 0

        def is_renewed() -> bool:
            nonlocal renewals, left_ms
            now_ms: Any = client.pttl(key)
            renewals += int(now_ms > left_ms + 50)
            left_ms = now_ms
            return bool(renewals > 2)

        wait_until(is_renewed, "the lease is renewed while its owner ends")
    finally:
        stopping.set()
        done.set()
        thread.join()
    assert not client.exists(key)


class _Faulty(Leases):
    """Leases of a store that fails; counts what it is asked then, and how many seconds went by."""

    fails = False
    answers_after_s = 0.0
    unanswered = 0
    waited_s = 0.0

    def _call(self, *arguments: Any) -> int:
        self._wait()
        return super()._call(*arguments)

    def join(self) -> list[str]:
        self._wait()
        return super().join()

    def leave(self) -> None:
        self._wait()
        super().leave()

    def _wait(self) -> None:
        if self.fails:
            self.unanswered += 1
            self.waited_s += self.answers_after_s
            raise StoreUnavailableError("the store stopped answering")


@contextmanager
def _shared(leases: _Faulty, beat_s: float) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Share some partitions; yields what ends it, and what ends their work, both of which happen at the end."""
    taken, stopping, done = threading.Semaphore(0), threading.Event(), threading.Event()

    def work(_lease: PartitionLease, _ending: threading.Event) -> None:
        taken.release()
        done.wait()

    sharer = Sharer(leases, "me", MANY, beat_s, work, lambda: leases.waited_s)
    thread = threading.Thread(target=sharer.run, args=(stopping,))
    thread.start()
    try:
        for _ in range(MANY):
            assert taken.acquire(timeout=10)
        yield stopping, done
    finally:
        stopping.set()
        done.set()
        thread.join()


@pytest.mark.parametrize("does_beat", [True, False], ids=["noticed before", "noticed at the end"])
def test_a_store_that_stands_still_is_waited_for_once(client: redis.Redis, does_beat: bool) -> None:
    """Each wait takes as long as an answer may: orchestrators kill what has not ended after some of them."""
    leases = _Faulty(client, "silent", "me", LEASE_MS)
    leases.answers_after_s = 100
    with _shared(leases, BEAT_S if does_beat else 10) as (stopping, _):
        leases.fails = True
        if does_beat:
            wait_until(lambda: bool(leases.unanswered), "the store is found silent")
        stopping.set()
        asked = leases.unanswered
    assert leases.unanswered - asked <= 1


def test_a_store_that_failed_for_a_moment_gets_everything_back(client: redis.Redis) -> None:
    """Leases are renewed until the work is done, and given back, and so is the place among the members."""
    leases = _Faulty(client, "moment", "me", LEASE_MS)
    key = PartitionKeys("moment", 0).lease
    with _shared(leases, BEAT_S) as (stopping, done):
        leases.fails = True
        stopping.set()
        wait_until(lambda: bool(leases.unanswered), "the store fails")
        leases.fails = False
        client.delete(key)
        wait_until(lambda: bool(client.exists(key)), "the lease is renewed again")
        done.set()
    assert not any(client.exists(PartitionKeys("moment", number).lease) for number in range(MANY))
    assert not client.exists(members_key("moment"))


def test_a_store_that_was_silent_once_gets_everything_back(client: redis.Redis) -> None:
    """It is taken for one that stands still until it answers, and no longer."""
    leases = _Faulty(client, "back", "me", 3_600_000)
    leases.answers_after_s = 100
    with _shared(leases, BEAT_S) as (_, done):
        leases.fails = True
        wait_until(lambda: bool(leases.unanswered), "the store is found silent")
        done.set()
        leases.fails = False
        fence: Any = client.get(PartitionKeys("back", MANY - 1).fence)
        wait_until(lambda: client.get(PartitionKeys("back", MANY - 1).fence) != fence, "it is taken again")
    assert not any(client.exists(PartitionKeys("back", number).lease) for number in range(MANY))
