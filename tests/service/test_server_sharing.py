"""Sharing partitions, one process on its own: what it holds while it ends."""

from __future__ import annotations

import threading
from typing import Any

import redis

from server.sharing import BEATS_PER_LEASE, Sharer
from streaming.keys import PartitionKeys
from streaming.lease import Leases, PartitionLease
from tests.support.stores import wait_until

LEASE_MS = 1_000


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
