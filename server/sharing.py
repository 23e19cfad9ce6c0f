"""Sharing the partitions of the log among materializer processes: each takes its fair share and gives up the rest."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial

import redis
import structlog

from online.errors import OnlineStoreError
from streaming.lease import Leases, PartitionLease, fair_share

log = structlog.get_logger()

BEATS_PER_LEASE = 5
"""A lease is renewed this often in its life, so that a few lost beats do not cost it."""
_LOOKS_PER_BEAT = 10
"""How often runners are looked at while they end."""


class Runner:
    """A thread that applies one partition until it is told to stop or loses the lease.

    Args:
        lease: The partition.
        work: What the thread does; it ends soon after the event is set.
    """

    def __init__(
        self, lease: PartitionLease, work: Callable[[PartitionLease, threading.Event], None]
    ) -> None:
        self.lease = lease
        self._stopping = threading.Event()
        name = f"partition-{lease.keys.partition}"
        self._thread = threading.Thread(target=work, args=(lease, self._stopping), name=name)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Have the thread end in order."""
        self._stopping.set()


class Sharer:
    """Keeps this process's share of the partitions running.

    Args:
        leases: Of this process.
        owner: Its name among the members.
        partition_count: Of the log.
        beat_s: How often members are counted and leases renewed.
        work: Applies one partition; must end soon once its event is set or its lease is lost.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        leases: Leases,
        owner: str,
        partition_count: int,
        beat_s: float,
        work: Callable[[PartitionLease, threading.Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._count = partition_count
        self._beat_s = beat_s
        self._work = work
        self._runners: dict[int, Runner] = {}
        self._clock = clock
        self._is_silent = False

    def run(self, stopping: threading.Event) -> None:
        """Share until `stopping` is set, then end the runners in order and give everything back.

        To a store that stands still nothing is given back: it would be waited for again and again, and what is not
        given back runs out.
        """
        while not stopping.is_set():
            self._try(self._beat)
            stopping.wait(self._beat_s)
        self._end()
        if not self._is_silent:
            self._try(self._leases.leave)

    def _try(self, call: Callable[[], None], **what: int) -> None:
        """Ask the store for something that may be done without for a while, and notice if it stands still."""
        began = self._clock()
        try:
            call()
        except (redis.RedisError, OnlineStoreError) as error:
            # One that has ended, or refuses, says so at once.
            self._is_silent = self._clock() - began > self._beat_s
            log.warning("materializer.store_lost", error=str(error), **what)
        else:
            self._is_silent = False

    def _end(self) -> None:
        """End the runners; what each has at work is still its own until it is done."""
        for runner in self._runners.values():
            runner.stop()
        for look in itertools.count():
            self._sweep()
            if not self._runners:
                return
            if not self._is_silent and look % _LOOKS_PER_BEAT == 0:
                self._try(self._renew)
            threading.Event().wait(self._beat_s / _LOOKS_PER_BEAT)

    def _beat(self) -> None:
        members = self._leases.join()
        self._is_silent = False
        self._sweep()
        running = [runner for runner in self._runners.values() if not runner.stopping]
        self._renew()
        want = fair_share(self._owner, members, self._count)
        for runner in running[want:]:
            log.info("partition.given_up", partition=runner.lease.keys.partition, members=len(members))
            runner.stop()
        self._take(want - len(running))

    def _renew(self) -> None:
        for runner in self._runners.values():
            if not self._leases.renew(runner.lease):
                runner.stop()

    def _sweep(self) -> None:
        """Forget runners that have ended, and let others have their partitions."""
        for partition in [number for number, runner in self._runners.items() if not runner.alive]:
            runner = self._runners.pop(partition)
            if not self._is_silent:
                self._try(partial(self._leases.release, runner.lease), partition=partition)

    def _take(self, missing: int) -> None:
        for partition in range(self._count):
            if missing <= 0:
                return
            if partition in self._runners:
                continue
            lease = self._leases.acquire(partition)
            if lease is not None:
                log.info("partition.taken", partition=partition, fence=lease.fence)
                self._runners[partition] = Runner(lease, self._work)
                missing -= 1
