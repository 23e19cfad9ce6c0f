"""The materializer process: one thread for each partition of the log that it owns."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import redis
import structlog
from prometheus_client import CollectorRegistry, start_http_server

from online.entity_calls import warm as warm_writes
from online.errors import StoreUnavailableError
from online.store import check_store, connect
from server.allocator import keep_heap_compact
from server.archive_merging import ArchiveMerger
from server.bundles import POLICY_PATTERN, repo_policy
from server.config import ClockKind, Settings
from server.definitions import definitions
from server.errors import ServerError
from server.repo import Repo, load_repo, load_texts
from server.sharing import BEATS_PER_LEASE, Sharer
from server.stream_metrics import StreamCollector
from server.stream_plans import current_repo, entity_writer, stream_plan
from server.view_builds import ViewBuilder, settle_definitions
from streaming.archive import Archive, archive_folder
from streaming.errors import LeaseLost
from streaming.generations import Generations
from streaming.keys import policy_key
from streaming.lease import Leases, PartitionLease
from streaming.materializer import Materializer, MaterializerLimits
from streaming.owner import PartitionOwner
from streaming.plan import StreamPlan
from streaming.read_ahead import ReadAhead
from streaming.redis_log import RedisPartitionReader, settle_partitions
from streaming.sink import OfflineSink, check_logged
from streaming.unfinished import check_filled
from streaming.windows.warm import warm

log = structlog.get_logger()

COLLECT_AFTER = (10_000, 500, 100)
FOLLOW_S = 1.0
SWITCH_S = 0.0005
"""How long the thread that computes keeps the one waiting that hears of writes."""


def partition_materializer(
    settings: Settings, repo: Repo, plan: StreamPlan, client: redis.Redis, lease: PartitionLease
) -> Materializer:
    """The materializer of one partition, not yet started."""
    bounds = settings.materializer
    return Materializer(
        client=client,
        reader=ReadAhead(RedisPartitionReader(client, lease.keys)),
        writer=entity_writer(repo, client),
        plan=plan,
        schema=repo.events,
        owner=PartitionOwner(client, lease),
        sink=OfflineSink(plan.shown, lease.keys.partition),
        archive=Archive(archive_folder(settings.data_dir, plan.project), lease.keys.partition),
        system_now_us=system_now_us if settings.clock is ClockKind.SYSTEM else None,
        limits=MaterializerLimits(
            batch_records=bounds.batch_records,
            checkpoint_interval_s=bounds.checkpoint_interval_s,
            max_cached_entities=bounds.max_cached_entities,
            max_cached_bytes=bounds.max_cached_mib * 2**20,
        ),
    )


def system_now_us() -> int:
    """The system's time in microseconds."""
    return time.time_ns() // 1000


def run_materializer(settings: Settings, redis_url: str, ready: Callable[[], None]) -> None:
    """Materialize this process's share of the partitions until it is asked to end (SIGTERM or SIGINT).

    Any number of these processes share the partitions of one store. A store that cannot be reached is tried again; each
    partition takes up at its checkpoint.

    Args:
        settings: Repo, partitions and clock.
        redis_url: The store.
        ready: Called once the process is about to take partitions.

    Raises:
        StoreUnavailableError: The store does not answer at the start; later it is waited for.
        StoreTopologyError: It is not what its address says.
        DefinitionsOutdated: Others run with newer definitions of stream views.
        SourceFileError: Values of a view cannot be logged where its batch source says.
        MaterializerError: The port of the metrics is taken.
        StreamingError: A backfill of the store was cut short.
    """
    keep_heap_compact()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    repo = load_repo(settings.repo)
    plan = stream_plan(repo, repo_policy(repo))
    check_logged(plan.shown)
    if repo.naming.notice:
        log.warning("views.plain_names", detail=repo.naming.notice)
    warm()
    warm_writes()
    sys.setswitchinterval(SWITCH_S)
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    lease_ms = settings.materializer.lease_ms
    worker = _Worker(settings, repo, plan, redis_url, stopping)
    builder = ViewBuilder(settings, repo, redis_url, stopping)
    merger = ArchiveMerger(
        archive_folder(settings.data_dir, plan.project),
        lambda: list(worker.running),
        settings.materializer.merge_interval_s,
        stopping,
    )
    if settings.materializer.http_port:
        _serve_metrics(settings, worker)
    with _quiet_collector(), connect(redis_url) as client:
        check_store(client)
        settle_partitions(client, plan.project, settings.partitions)
        check_filled(client, plan.project)
        settle_definitions(client, repo, settings.partitions, owner, lease_ms, stopping)
        leases = Leases(client, plan.project, owner, lease_ms)
        ready()
        builder.start()
        merger.start()
        Sharer(
            leases, owner, settings.partitions, lease_ms / 1000 / BEATS_PER_LEASE, worker.run_partition
        ).run(stopping)
    stopping.set()
    builder.join()
    merger.join()
    if worker.failures:
        raise worker.failures[0]


def _serve_metrics(settings: Settings, worker: _Worker) -> None:
    registry = CollectorRegistry()
    registry.register(StreamCollector(lambda: worker.running))
    port = settings.materializer.http_port
    try:
        start_http_server(port, settings.host, registry)
    except OSError as error:
        raise MaterializerError(
            f"cannot listen on {settings.host}:{port}: {error.strerror}; set WAYPOST_MATERIALIZER__HTTP_PORT"
        ) from error


class MaterializerError(ServerError):
    """The materializer cannot start."""


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """What is loaded by now stays, and batches make no cycles: look for garbage seldom, and little at once.

    States that are kept are many objects, and batches wait for the look through what is new.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.unfreeze()  # libraries that count their objects at the end would call what is frozen a leak


class _Worker:
    """Applies the partitions that this process is given."""

    def __init__(
        self, settings: Settings, repo: Repo, plan: StreamPlan, redis_url: str, ending: threading.Event
    ) -> None:
        self._settings = settings
        self._repo = repo
        self._plan = plan
        self._definitions = definitions(repo)
        self._redis_url = redis_url
        self._ending = ending
        self.failures: list[Exception] = []
        self.running: dict[int, Materializer] = {}

    def run_partition(self, lease: PartitionLease, stopping: threading.Event) -> None:
        """Apply a partition until the event is set, another process owns it, or the store does not answer.

        Whether the last writes happened is unknown then, and they may happen yet. Who takes the partition up again
        does so from the checkpoint, under a new fencing number, by which they are refused.
        """
        partition = lease.keys.partition
        try:
            self._keep_running(lease, stopping)
        except LeaseLost:
            log.warning("partition.lost", partition=partition, fence=lease.fence)
        except (redis.RedisError, StoreUnavailableError) as error:
            log.warning("materializer.store_lost", partition=partition, error=str(error))
        except Exception as error:
            # A partition that cannot go on ends the process: half a materializer would look alive and fall behind.
            log.exception("materializer.failed", partition=partition)
            self.failures.append(error)
            self._ending.set()

    def _keep_running(self, lease: PartitionLease, stopping: threading.Event) -> None:
        partition = lease.keys.partition
        while not stopping.is_set():
            client = connect(self._redis_url)
            try:
                generations = Generations(client, self._plan.project)
                generations.enter(partition)
                followed = PolicyFollower(client, self._plan.project)
                repo = current_repo(self._repo)
                plan = current_plan(repo, self._plan, generations.serving(self._definitions))
                materializer = partition_materializer(self._settings, repo, plan, client, lease)
                materializer.start()
                self.running[partition] = materializer
                log.info("materializer.started", partition=partition)
                build = self._step(materializer, followed, stopping)
                settled = materializer.settled_at
                if build and settled is not None:
                    generations.stand(build, partition, lease.fence, settled.position, stopping)
            finally:
                ended = self.running.pop(partition, None)
                if ended is not None:
                    ended.close()
                client.close()

    def _step(self, materializer: Materializer, followed: PolicyFollower, stopping: threading.Event) -> str:
        """Apply until it must end or plan anew; returns the build that asks for a pause, where that is why."""
        while not stopping.is_set():
            materializer.step(stopping.is_set)
            if followed.changed():
                break
            if followed.pause:
                materializer.checkpoint()
                if materializer.settled_at is not None:
                    return followed.pause
        materializer.checkpoint()
        return ""


class PolicyFollower:
    """Notices that a server has taken a new policy over, or that a build of views asks for a pause.

    Attributes:
        pause: The build that asked when it was last looked; nothing where none did.
    """

    def __init__(self, client: redis.Redis, project: str) -> None:
        self._client = client
        self._generations = Generations(client, project)
        self.pause = ""
        self._key = policy_key(project)
        self._version = client.get(self._key)
        self._asked_at = time.monotonic()

    def changed(self) -> bool:
        """Whether another version is announced; asks the store at most once in `FOLLOW_S`."""
        if time.monotonic() - self._asked_at < FOLLOW_S:
            return False
        self._asked_at = time.monotonic()
        self.pause = self._generations.pause()
        return bool(self._client.get(self._key) != self._version)


def current_plan(repo: Repo, plan: StreamPlan, generations: Mapping[str, str] | None = None) -> StreamPlan:
    """The plan with the segments that the repo's policy has now; those of `plan`'s where that policy is refused.

    Args:
        repo: As it was loaded.
        plan: Of all views, with the policy of then.
        generations: Of the views that are fed; None for all.
    """
    try:
        sources = load_texts(repo.path, POLICY_PATTERN)
        return stream_plan(repo, repo_policy(replace(repo, policy_sources=sources)), generations)
    except ServerError as error:
        log.warning("materializer.policy_refused", error=str(error))
        return plan if generations is None else stream_plan(repo, repo_policy(repo), generations)
