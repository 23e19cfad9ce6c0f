"""The materializer process: one thread for each partition of the log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import redis
import structlog

from decision.policy import Policy
from online.errors import StoreUnavailableError
from online.store import connect
from online.write import EntityWriter
from server.bundles import repo_policy
from server.config import ClockKind, Settings
from server.repo import Repo, load_repo
from streaming.keys import PartitionKeys
from streaming.materializer import Materializer, MaterializerLimits
from streaming.plan import StreamPlan
from streaming.redis_log import RedisPartitionReader, settle_partitions
from streaming.sink import OfflineSink

log = structlog.get_logger()

RETRY_S = 0.5


def stream_plan(repo: Repo, policy: Policy) -> StreamPlan:
    """The plan of a repo's stream views and segments."""
    return StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer)


def partition_materializer(
    settings: Settings, repo: Repo, plan: StreamPlan, client: redis.Redis, partition: int
) -> Materializer:
    """The materializer of one partition, not yet started."""
    keys = PartitionKeys(plan.project, partition)
    views = [view_plan.view for kind in plan.kinds for view_plan in kind.views]
    views += [kind.segments_view.view for kind in plan.kinds if kind.segments_view is not None]
    return Materializer(
        client=client,
        reader=RedisPartitionReader(client, keys),
        writer=EntityWriter(client),
        plan=plan,
        schema=repo.events,
        keys=keys,
        sink=OfflineSink(views, partition),
        system_now_us=system_now_us if settings.clock is ClockKind.SYSTEM else None,
        limits=MaterializerLimits(),
    )


def system_now_us() -> int:
    """The system's time in microseconds."""
    return time.time_ns() // 1000


def run_materializer(settings: Settings, redis_url: str, ready: Callable[[], None]) -> None:
    """Materialize all partitions until the process is asked to end (SIGTERM or SIGINT).

    A store that cannot be reached is tried again; each partition takes up at its checkpoint.

    Args:
        settings: Repo, partitions and clock.
        redis_url: The store.
        ready: Called once every partition is running.
    """
    stopping = threading.Event()
    failures: list[Exception] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    repo = load_repo(settings.repo)
    plan = stream_plan(repo, repo_policy(repo))
    with connect(redis_url) as client:
        settle_partitions(client, plan.project, settings.partitions)
    threads = [
        threading.Thread(
            target=_run_partition,
            args=(settings, repo, plan, redis_url, partition, stopping, failures),
            name=f"partition-{partition}",
        )
        for partition in range(settings.partitions)
    ]
    for thread in threads:
        thread.start()
    ready()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _run_partition(
    settings: Settings,
    repo: Repo,
    plan: StreamPlan,
    redis_url: str,
    partition: int,
    stopping: threading.Event,
    failures: list[Exception],
) -> None:
    try:
        _keep_running(settings, repo, plan, redis_url, partition, stopping)
    except Exception as error:
        # A partition that cannot go on ends the process: half a materializer would look alive and fall behind.
        log.exception("materializer.failed", partition=partition)
        failures.append(error)
        stopping.set()


def _keep_running(
    settings: Settings,
    repo: Repo,
    plan: StreamPlan,
    redis_url: str,
    partition: int,
    stopping: threading.Event,
) -> None:
    while not stopping.is_set():
        client = connect(redis_url)
        materializer = partition_materializer(settings, repo, plan, client, partition)
        try:
            materializer.start()
            log.info("materializer.started", partition=partition)
            while not stopping.is_set():
                materializer.step()
            materializer.checkpoint()
        except (redis.RedisError, StoreUnavailableError) as error:
            # Whether the last writes happened is unknown: start over from the checkpoint, with an empty cache.
            log.warning("materializer.store_lost", partition=partition, error=str(error))
            stopping.wait(RETRY_S)
        finally:
            client.close()
