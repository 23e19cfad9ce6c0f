"""A small shop of its own for tests of the stream: definitions, random events, and a way to run the materializer."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import redis

from decision.lang.compiler import compile_policy
from decision.schema import Aggregation, Catalog, Feature, JoinKey, Value, ValueType, View
from online.store import connect_async, nodes
from online.write import EntityWriter
from streaming.archive import Archive
from streaming.events import EventRecord, EventSchema
from streaming.keys import PartitionKeys
from streaming.lease import Leases
from streaming.log import PartitionReader
from streaming.materializer import Materializer, MaterializerLimits
from streaming.owner import PartitionOwner
from streaming.plan import StreamPlan
from streaming.redis_log import RedisLog, RedisPartitionReader
from streaming.sink import OfflineSink
from tests.support.valkey import close_later

CUSTOMER_NAMES = ("ada", "bob", "bob\0cyd")
"""Of random events; whoever takes a text to end at a zero byte takes two of them for one."""
CATEGORY_NAMES = ("tea", "jam", "jam\0öl")
START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
CUSTOMER = JoinKey(name="customer_id", value_type=ValueType.STRING)
CATEGORY = JoinKey(name="category", value_type=ValueType.STRING)
PROJECT = "world"
_FOLDER = tempfile.TemporaryDirectory(prefix="waypost-worlds-")
"""Of all worlds of this process; gone with it."""

SCHEMA = EventSchema.parse(
    """
customer: customer_id
lateness_s: 600
types:
  buy:
    properties:
      category: {type: string, required: true}
      amount: {type: double, required: true}
  look:
    properties:
      category: {type: string, required: true}
"""
)

POLICY = """
segment spender: spending.total_30m > 50
segment quiet: spending.last_buy_at < now() - 10 minutes
"""


def _buys(events: pd.DataFrame) -> pd.DataFrame:
    rows = events.loc[events["event_type"] == "buy"]
    return rows.assign(bought_at=rows["event_time"])


def _looks(events: pd.DataFrame) -> pd.DataFrame:
    return events.loc[events["event_type"] == "look"]


TRANSFORMS = {"spending": _buys, "demand": _buys, "taste": _buys, "looked": _looks}


def catalog(offline: Path, minutes: int = 30) -> Catalog:
    """Three windowed views over two entity kinds, one view of latest rows, and segments.

    The windows of thirty minutes may be of others, under the same names.
    """

    def view(name: str, keys: tuple[JoinKey, ...], features: Mapping[str, ValueType], **rest: object) -> View:
        return View(
            name=name,
            join_keys=keys,
            features=tuple(Feature(name=n, value_type=t) for n, t in features.items()),
            offline_path=str(offline / name / "*.parquet"),
            **rest,  # type: ignore[arg-type]
        )

    def window(feature: str, column: str, function: str, minutes: int | None) -> Aggregation:
        width = None if minutes is None else minutes * 60
        return Aggregation(feature=feature, column=column, function=function, window_s=width)

    double, count, text = ValueType.DOUBLE, ValueType.INT64, ValueType.STRING
    spending = view(
        "spending",
        (CUSTOMER,),
        {
            "total_30m": double,
            "count_5m": count,
            "largest_30m": double,
            "last_category": text,
            "last_buy_at": ValueType.UNIX_TIMESTAMP,
            "categories_30m": count,
        },
        aggregations=(
            window("total_30m", "amount", "sum", minutes),
            window("count_5m", "amount", "count", 5),
            window("largest_30m", "amount", "max", minutes),
            window("last_category", "category", "last", None),
            window("last_buy_at", "bought_at", "max", None),
            window("categories_30m", "category", "count_distinct", minutes),
        ),
        hop_s=60,
        stream=True,
    )
    demand = view(
        "demand",
        (CATEGORY,),
        {"total_30m": double, "count_total": count, "buyers_30m": count},
        aggregations=(
            window("total_30m", "amount", "sum", minutes),
            window("count_total", "amount", "count", None),
            window("buyers_30m", "customer_id", "count_distinct", minutes),
        ),
        hop_s=60,
        stream=True,
    )
    taste = view(
        "taste",
        (CUSTOMER, CATEGORY),
        {"mean_30m": double},
        aggregations=(window("mean_30m", "amount", "mean", minutes),),
        hop_s=60,
        stream=True,
    )
    looked = view("looked", (CUSTOMER,), {"category": text}, stream=True)
    segments = view(
        "segments",
        (CUSTOMER,),
        {"spender": ValueType.BOOL, "quiet": ValueType.BOOL},
        tags=(("waypost.role", "segments"),),
    )
    return Catalog(project=PROJECT, views=(spending, demand, taste, looked, segments))


def stream_plan(offline: Path, generations: Mapping[str, str] | None = None, minutes: int = 30) -> StreamPlan:
    """The plan of that catalog, or of some of its stream views."""
    definitions = catalog(offline, minutes)
    compiled = compile_policy({"world.policy": POLICY}, definitions, customer_key="customer_id")
    assert compiled.policy is not None, compiled.findings
    return StreamPlan.compile(definitions, TRANSFORMS, compiled.policy, "customer_id", generations)


def random_events(seed: int, count: int, start_us: int = START_US) -> list[tuple[int, EventRecord]]:
    """Events with their arrival times, in order of arrival.

    Some are late within the bound, some published twice, every fifth lies on the edge of a hop.
    """
    rng = random.Random(seed)
    published = []
    now_us = start_us
    for number in range(count):
        now_us += rng.randrange(0, MINUTE_US)
        late_us = rng.choice([0, 0, 0, rng.randrange(0, 500_000_000)])
        if number % 5 == 0:
            late_us += (now_us - late_us) % MINUTE_US
        kind = rng.choice(["buy", "buy", "look"])
        properties: dict[str, Value] = {"category": rng.choice(CATEGORY_NAMES)}
        if kind == "buy":
            properties["amount"] = rng.choice([0.1, 12.34, 19.99, 40.0])
        event = EventRecord(f"e{number}", kind, rng.choice(CUSTOMER_NAMES), now_us - late_us, properties)
        published.append((now_us, event))
        if rng.random() < 0.15:
            published.append((now_us, rng.choice([event, *(earlier for _, earlier in published[-5:])])))
    return published


def publish(url: str, arrivals: Sequence[tuple[int, EventRecord]], partition_count: int = 1) -> None:
    """Append events to the log, each at its arrival time."""

    async def run() -> None:
        client = connect_async(url)
        log = RedisLog(client, PROJECT, partition_count, 1_000_000)
        for now_us, event in arrivals:
            await log.append([event], now_us)
        await client.aclose()

    asyncio.run(run())


def tick(url: str, now_us: int, partition_count: int = 1) -> None:
    """Move logical time."""

    async def run() -> None:
        client = connect_async(url)
        await RedisLog(client, PROJECT, partition_count, 1_000_000).tick(now_us)
        await client.aclose()

    asyncio.run(run())


def archive_beside(offline: Path) -> Path:
    """The archive of a world: beside the offline folder, which holds views alone."""
    return offline.with_name(offline.name + "-archive")


@dataclass(frozen=True, slots=True)
class World:
    """A plan over an offline folder."""

    offline: Path
    plan: StreamPlan

    @property
    def archive(self) -> Path:
        return archive_beside(self.offline)

    @staticmethod
    def create() -> World:
        offline = Path(tempfile.mkdtemp(dir=_FOLDER.name))
        return World(offline, stream_plan(offline))

    def materializer(
        self,
        client: redis.Redis,
        *,
        partition: int = 0,
        batch_records: int = 7,
        system_now_us: Callable[[], int] | None = None,
        reader: PartitionReader | None = None,
        plan: StreamPlan | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Materializer:
        """A materializer that checkpoints after every few rows, so that crashes fall between checkpoints too."""
        lease = Leases(client, PROJECT, "world", 60_000).acquire(partition)
        assert lease is not None
        plan = plan or self.plan
        views = [view_plan.view for kind in plan.kinds for view_plan in kind.views]
        materializer = Materializer(
            client=client,
            reader=reader or RedisPartitionReader(client, PartitionKeys(PROJECT, partition)),
            writer=EntityWriter(client),
            plan=plan,
            schema=SCHEMA,
            owner=PartitionOwner(client, lease),
            sink=OfflineSink(views, partition),
            archive=Archive(self.archive, partition),
            system_now_us=system_now_us,
            limits=MaterializerLimits(
                batch_records=batch_records,
                **{"wait_ms": 0, "checkpoint_interval_s": 3600, "checkpoint_rows": 40, **(limits or {})},
            ),
        )
        close_later(materializer.close)
        materializer.start()
        return materializer


def drain(materializer: Materializer) -> None:
    """Step until nothing is left to read and nothing is due."""
    idle = 0
    while idle < 2:
        idle = idle + 1 if materializer.step() == 0 and materializer.next_due_us > materializer.now_us else 0


def features(client: redis.Redis, plan: StreamPlan) -> dict[bytes, dict[bytes, bytes]]:
    """Every Feast hash of the project: values and timestamps as stored."""
    suffix = plan.project.encode()
    found: dict[bytes, dict[bytes, bytes]] = {}
    for node in nodes(client):
        for key in node.scan_iter(count=1000):
            if key.endswith(suffix) and not key.startswith((b"{", b"wp:")):
                found[key] = node.hgetall(key)  # type: ignore[assignment]
    return found


def without_segment_times(hashes: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    """Hashes but for when segments were last entered or left, which differs with the size of batches."""
    return {key: {f: v for f, v in fields.items() if f != b"_ts:segments"} for key, fields in hashes.items()}
