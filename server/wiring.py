"""The composition root of the server process: the only place that builds what a request meets."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio
import structlog
import uvloop

from decision.forest.kernels import warm as warm_forests
from decision.program import warm as warm_programs
from online.near import NearCache
from online.read import OnlineReader
from online.store import check_store, connect, connect_async, open_topology
from online.write import AsyncRowWriter
from server.application import Application, FeastParts
from server.bundles import BundleKeeper
from server.clock import Clock, SystemClock, VirtualClock
from server.config import ClockKind, FeastSource, Settings
from server.decision_log import DecisionLog
from server.explainer import Explainer
from server.feast.offline import OfflineLog
from server.feast.on_demand import Transformer
from server.feast.refresh import DefinitionsKeeper, Refresher
from server.feast.writing import FeatureWriter
from server.grpc_server import Ready, serve
from server.metrics import Metrics
from server.repo import Repo, load_registered, load_repo
from server.services.admin import Announce, PartitionLag, ViewBuild
from server.store_log import StoreLog
from server.touching import PushTouches
from streaming.changes import ChangeLog
from streaming.dead_letters import DeadLetters
from streaming.events import EventSchema
from streaming.generations import PROGRESS
from streaming.keys import PartitionKeys, policy_key, views_key
from streaming.redis_log import RedisLog, settle_partitions

log = structlog.get_logger("server")


def run_server(settings: Settings, redis_url: str, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Repo, folders, address, bounds.
        redis_url: The store.
        ready: Called once the health check says SERVING.

    Raises:
        StoreUnsupportedError: If the store is too old.
        PolicyRejectedError: If the repo's policy has errors.
    """
    repo = load_repo(settings.repo)
    if repo.naming.notice:
        log.warning("views.plain_names", detail=repo.naming.notice)
    with connect(redis_url) as probe:
        for weakness in check_store(probe):
            log.warning("store.weak", detail=weakness)
        settle_partitions(probe, repo.catalog.project, settings.partitions)
    try:
        uvloop.run(_serve(settings, repo, redis_url, ready))
    finally:
        gc.unfreeze()  # libraries that count their objects at the end would call what is frozen a leak


async def _serve(settings: Settings, repo: Repo, redis_url: str, ready: Ready) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    topology = open_topology(redis_url)
    client = connect_async(redis_url, topology)
    near = NearCache()
    app = await build_application(settings, repo, client, OnlineReader(topology, near, StoreLog()))
    app.metrics.watch_near(near)
    try:
        await serve(app, settings, ready, stop, warm=_warm)
    finally:
        await app.reader.aclose()
        await client.aclose()


async def build_application(
    settings: Settings, repo: Repo, client: redis.asyncio.Redis, reader: OnlineReader
) -> Application:
    """The parts behind the services."""
    metrics = Metrics()
    project = repo.catalog.project
    per_partition = max(settings.log_max_records // settings.partitions, 1)
    log = RedisLog(client, project, settings.partitions, per_partition)
    clock, announce = await _clock(settings, log, repo.events), _Announce(client, project)
    bundles = BundleKeeper(repo, settings.models_dir, settings.bundles_dir, metrics)
    return Application(
        settings=settings,
        events=repo.events,
        bundles=bundles,
        reader=reader,
        log=log,
        letters=DeadLetters(client, project, settings.partitions),
        changes=ChangeLog(client, project, settings.partitions),
        clock=clock,
        partitions=_Partitions(client, project, settings.partitions),
        building=_Building(client, project),
        announce=announce,
        decision_log=DecisionLog(settings.decisions_dir, settings.decision_log, metrics),
        metrics=metrics,
        explainer=Explainer(bundles, settings.decisions_dir, settings.bundles_dir, settings.models_dir),
        feast=_feast(settings, repo, client, clock, bundles, announce, metrics, log),
    )


def _feast(
    settings: Settings,
    repo: Repo,
    client: redis.asyncio.Redis,
    clock: Clock,
    bundles: BundleKeeper,
    announce: Announce,
    metrics: Metrics,
    log: RedisLog,
) -> FeastParts:
    source = settings.feast.definitions
    definitions = repo.definitions if source is FeastSource.REPO else load_registered(repo.path)
    keeper = DefinitionsKeeper(definitions)
    return FeastParts(
        definitions=keeper,
        refresher=Refresher(repo.path, source, settings.feast.refresh_s, keeper, bundles, announce, metrics),
        transformer=Transformer(),
        writer=FeatureWriter(
            lambda: keeper.current,
            AsyncRowWriter(client, repo.key_ttl_s),
            OfflineLog(clock.now_us),
            settings.limits,
            PushTouches(lambda: bundles.current.bundle, log, clock),
        ),
    )


async def _clock(settings: Settings, event_log: RedisLog, events: EventSchema) -> Clock:
    newest_us = await event_log.last_time_us()
    if settings.clock is ClockKind.VIRTUAL:
        return VirtualClock(newest_us)
    clock = SystemClock()
    ahead_s = (newest_us - clock.now_us()) / 1_000_000
    if ahead_s > max(events.lateness_s, events.max_future_s):
        log.warning(
            "clock.behind_log",
            ahead_s=round(ahead_s),
            detail="the log is so far ahead that events are put aside as LATE until the clock is there: was it "
            "made with --clock virtual, or by a host whose clock was wrong?",
        )
    return clock


async def _warm() -> None:
    """Compile, and spare the collector what is loaded: each of its full rounds stopped all calls for 0.2 s."""
    await asyncio.to_thread(warm_forests)
    await asyncio.to_thread(warm_programs)
    gc.collect()
    gc.freeze()


class _Announce:
    """Tells materializers the version of a policy that took over."""

    def __init__(self, client: redis.asyncio.Redis, project: str) -> None:
        self._client = client
        self._key = policy_key(project)

    async def __call__(self, version: str) -> None:
        await self._client.set(self._key, version)


class _Building:
    """Asks how far views are that are built from the archive."""

    def __init__(self, client: redis.asyncio.Redis, project: str) -> None:
        self._client: Any = client
        self._key = views_key(project)

    async def __call__(self) -> ViewBuild | None:
        told = await self._client.hget(self._key, PROGRESS)
        return ViewBuild(**json.loads(told)) if told else None


class _Partitions:
    """Asks how far each partition is applied."""

    def __init__(self, client: redis.asyncio.Redis, project: str, partition_count: int) -> None:
        self._client = client
        self._keys = [PartitionKeys(project, partition) for partition in range(partition_count)]

    async def __call__(self) -> Sequence[PartitionLag]:
        pipeline = self._client.pipeline(transaction=False)
        for keys in self._keys:
            pipeline.hmget(keys.applied, ["record_count", "time_us"])
            pipeline.exists(keys.log)
            pipeline.get(keys.lease)
            pipeline.hgetall(keys.stats)
        answers = await pipeline.execute()
        return [
            await self._lag(keys, *answers[place : place + 4])
            for keys, place in zip(self._keys, range(0, len(answers), 4), strict=True)
        ]

    async def _lag(
        self,
        keys: PartitionKeys,
        applied: Any,
        exists: int,
        owner: bytes | None,
        stats: Mapping[bytes, bytes],
    ) -> PartitionLag:
        count, time_us = (int(value or 0) for value in applied)
        added = (await self._client.xinfo_stream(keys.log))["entries-added"] if exists else count
        return PartitionLag(
            partition=keys.partition,
            lag=max(added - count, 0),
            watermark_us=time_us,
            owner=(owner or b"").decode(),
            figures={name.decode(): float(value) for name, value in stats.items()},
        )
