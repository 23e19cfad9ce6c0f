"""Real materializer processes on the clinic's repo, and what they leave in the store."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import redis

from online.store import connect, connect_async, nodes
from server.bundles import repo_policy
from server.children import STOP_TIMEOUT_S
from server.config import ClockKind, Settings
from server.materialize import partition_materializer
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.archive import archive_folder, archived_events, read_live
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.lease import Leases
from streaming.redis_log import RedisLog
from tests.support.clinic import CLINIC
from tests.support.forked import Forked
from tests.support.stream_world import drain

PROJECT = "clinic"
DEADLINE_S = 150.0
START_US = 1_700_000_000_000_000


class Site:
    """A copy of the clinic's repo, or the repo in the folder, run by any number of materializers on one store."""

    def __init__(self, folder: Path, url: str, partition_count: int, **settings: object) -> None:
        self.repo, self.url, self.partition_count = folder / "repo", url, partition_count
        self._folder, self.data = folder, folder / "data"
        self.http_port = settings.get("http_port")
        folder.mkdir(parents=True, exist_ok=True)
        if not self.repo.exists():
            shutil.copytree(CLINIC, self.repo)
        self._env = os.environ | {
            "WAYPOST_CLOCK": "virtual",
            "WAYPOST_PARTITIONS": str(partition_count),
            **{f"WAYPOST_MATERIALIZER__{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.processes: list[Forked] = []

    def start(self, repo: Path | None = None) -> Forked:
        """Start one more materializer, of another repo where that is given."""
        command = ["materializer", "--repo", str(repo or self.repo), "--data-dir", str(self.data)]
        process = Forked([*command, "--redis-url", self.url], self.log, self._env)
        self.processes.append(process)
        return process

    @property
    def log(self) -> Path:
        """What all of them say."""
        return self._folder / "materializers.log"

    def stop(self) -> None:
        """End all of them in order, those by force that do not end."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def client(self) -> redis.Redis:
        """A connection to the store."""
        return connect(self.url)

    def holders(self) -> dict[int, str]:
        """Owner by partition that has one."""
        with self.client() as client:
            owners: list[Any] = [
                client.get(PartitionKeys(PROJECT, number).lease) for number in range(self.partition_count)
            ]
        return {number: owner.decode() for number, owner in enumerate(owners) if owner is not None}

    def shares(self) -> dict[int, int]:
        """Partitions owned, by process id."""
        found: dict[int, int] = {}
        for owner in self.holders().values():
            pid = int(owner.split(":")[1])
            found[pid] = found.get(pid, 0) + 1
        return found

    def applied(self) -> int:
        """Records applied, over all partitions, as readers see it."""
        with self.client() as client:
            counts: list[Any] = [
                client.hget(PartitionKeys(PROJECT, number).applied, "record_count")
                for number in range(self.partition_count)
            ]
        return sum(int(count or 0) for count in counts)

    def appended(self) -> int:
        """Records ever appended, over all partitions."""
        with self.client() as client:
            keys = [PartitionKeys(PROJECT, number).log for number in range(self.partition_count)]
            streams: list[Any] = [client.xinfo_stream(key) for key in keys if client.exists(key)]
        return sum(int(stream["entries-added"]) for stream in streams)

    def wait(self, done: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> float:
        """Wait until something is so; returns how long it took."""
        started = time.monotonic()
        while not self._holds(done):
            waited_s = time.monotonic() - started
            assert waited_s < within_s, f"{what}: not after {waited_s:.1f} s\n{self.said()}"
            time.sleep(0.02)
        return time.monotonic() - started

    def _holds(self, done: Callable[[], bool]) -> bool:
        try:
            return done()
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False

    def said(self) -> str:
        """The end of what they said."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else "(nothing)"

    def publish(self, arrivals: Sequence[tuple[int, EventRecord]]) -> None:
        """Append events one by one, each until it is acknowledged, whatever happens to the store meanwhile."""
        asyncio.run(self._publish(arrivals))

    async def _publish(self, arrivals: Sequence[tuple[int, EventRecord]]) -> None:
        for now_us, event in arrivals:
            give_up_at = time.monotonic() + DEADLINE_S
            while True:
                client = connect_async(self.url)
                try:
                    await RedisLog(client, PROJECT, self.partition_count, 1_000_000).append([event], now_us)
                    break
                except redis.RedisError:
                    assert time.monotonic() < give_up_at
                    await asyncio.sleep(0.02)
                finally:
                    await client.aclose()

    def tick(self, now_us: int) -> None:
        """Move logical time in every partition."""

        async def run() -> None:
            client = connect_async(self.url)
            await RedisLog(client, PROJECT, self.partition_count, 1_000_000).tick(now_us)
            await client.aclose()

        asyncio.run(run())

    def apply_here(self) -> None:
        """Apply all partitions in this process, one after the other, undisturbed."""
        repo = load_repo(self.repo)
        plan = stream_plan(repo, repo_policy(repo))
        settings = Settings(
            repo=self.repo,
            data_dir=self.data,
            clock=ClockKind.VIRTUAL,
            partitions=self.partition_count,
        )
        with connect(self.url) as client:
            for partition in range(self.partition_count):
                lease = Leases(client, PROJECT, "here", 60_000).acquire(partition)
                assert lease is not None
                materializer = partition_materializer(settings, repo, plan, client, lease)
                materializer.start()
                drain(materializer)
                materializer.checkpoint()

    def features(self) -> dict[bytes, dict[bytes, bytes]]:
        """Every Feast hash: values and timestamps as stored."""
        with self.client() as client:
            keys = [
                key
                for node in nodes(client)
                for key in node.scan_iter(count=1000)
                if key.endswith(PROJECT.encode()) and not key.startswith(b"{")
            ]
            return {key: client.hgetall(key) for key in keys}

    def archived(self, partition: int) -> list[bytes]:
        """Events of a partition in the archive, in order; as many as the checkpoint says."""
        with self.client() as client:
            checkpoint: Any = client.hgetall(PartitionKeys(PROJECT, partition).checkpoint)
        folder = archive_folder(self.data, PROJECT)
        tables = read_live(folder, partition, 0, int(checkpoint[b"position"]))
        texts = [text for table in tables for text in archived_events(table)]
        assert len(texts) == int(checkpoint[b"archived"])
        return texts

    def changes(self, partition: int) -> list[Mapping[bytes, bytes]]:
        """Segment changes of a partition, in order."""
        with self.client() as client:
            entries: Any = client.xrange(PartitionKeys(PROJECT, partition).changes)
        return [fields for _, fields in entries]


def visits(count: int, patients: int = 7, step_us: int = 1_800_000_000) -> list[tuple[int, EventRecord]]:
    """Visits half an hour apart, some out of order, some sent twice."""
    arrivals = []
    for number in range(count):
        now_us = START_US + number * step_us
        event_us = now_us - (number % 5) * 300_000_000
        properties = {"department": ("general", "eyes", "skin")[number % 3], "fee": 10.25 + number % 4}
        event = EventRecord(f"v{number}", "visit", str(number * number // 3 % patients), event_us, properties)
        arrivals.append((now_us, event))
        if number % 11 == 0:
            arrivals.append((now_us, event))
    return arrivals


def own_changes(site: Site) -> list[list[Mapping[bytes, bytes]]]:
    """Segment changes of each partition; those of one moment are in any order, each entity's in theirs."""
    return [
        sorted(site.changes(number), key=lambda change: change[b"entity"])
        for number in range(site.partition_count)
    ]


def offline_logs(data: Path) -> dict[str, list[tuple[object, ...]]]:
    """Each view's log in order, without the rows that say again what the one before them said."""
    logs = {}
    for folder in sorted(path for path in data.iterdir() if any(path.glob("*.parquet"))):
        table = ds.dataset(folder, format="parquet").to_table()
        rows = table.to_pylist()
        assert len({str(row) for row in rows}) == len(rows), "a row is there twice"
        key = table.column_names[0]
        names = [name for name in table.column_names if name not in {"event_timestamp", "created"}]
        rows.sort(key=lambda row, key=key: (row[key], row["event_timestamp"], row["created"]))
        kept: list[tuple[object, ...]] = []
        said: dict[object, tuple[object, ...]] = {}
        for row in rows:
            values = tuple(row[name] for name in names)
            if said.get(row[key]) != values:
                kept.append((*values, row["event_timestamp"]))
            said[row[key]] = values
        logs[folder.name] = kept
    return logs


def freeze(process: Forked) -> None:
    """Stop a process in its tracks."""
    process.send_signal(signal.SIGSTOP)


def thaw(process: Forked) -> None:
    """Let a frozen process go on, as if nothing had happened."""
    process.send_signal(signal.SIGCONT)
