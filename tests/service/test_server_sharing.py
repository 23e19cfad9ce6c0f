"""Sharing partitions, one process on its own: what it holds while it ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from online.errors import StoreUnavailableError
from server.sharing import BEATS_PER_LEASE, Sharer
from streaming.keys import PartitionKeys
from streaming.lease import Leases, PartitionLease
from tests.support.stores import wait_until

LEASE_MS = 1_000
MANY = 4


def test_a_partition_stays_its_owners_while_that_ends(client: redis.Redis) -> None:
    """A batch may take longer than a lease; nobody else may begin with the partition meanwhile."""
    leases = Leases(client, "sharing", "me", LEASE_MS)
    told, done, stopping = threading.Event(), threading.Event(), threading.Event()

    def work(_lease: PartitionLease, ending: threading.Event) -> None:
        ending.wait()
        told.set()
        done.wait()

    sharer = Sharer(leases, "me", 1, LEASE_MS / 1000 / BEATS_PER_LEASE, work)
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


class _Silenced(Leases):
    """Leases of a store that stands still from some moment on; counts what it is asked then."""

    unanswered: int | None = None

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
        if self.unanswered is not None:
            self.unanswered += 1
            raise StoreUnavailableError("the store stopped answering")


@pytest.mark.parametrize("does_beat", [True, False], ids=["noticed before", "noticed at the end"])
def test_a_store_that_stands_still_is_waited_for_once(client: redis.Redis, does_beat: bool) -> None:
    """Each wait takes as long as an answer may: orchestrators kill what has not ended after some of them."""
    leases = _Silenced(client, "silent", "me", LEASE_MS)
    taken, stopping = threading.Semaphore(0), threading.Event()

    def work(_lease: PartitionLease, ending: threading.Event) -> None:
        taken.release()
        ending.wait()

    beat_s = LEASE_MS / 1000 / BEATS_PER_LEASE if does_beat else 10
    thread = threading.Thread(target=Sharer(leases, "me", MANY, beat_s, work).run, args=(stopping,))
    thread.start()
    try:
        for _ in range(MANY):
            assert taken.acquire(timeout=10)
        leases.unanswered = 0
        if does_beat:
            wait_until(lambda: bool(leases.unanswered), "the store is found silent")
    finally:
        stopping.set()
        asked = leases.unanswered or 0
        thread.join()
    assert leases.unanswered - asked <= 1
