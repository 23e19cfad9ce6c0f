"""Files cannot grow any more under a real materializer, as on a full disk; then they can again."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis

from streaming.keys import PartitionKeys
from tests.support.forked import Forked
from tests.support.materializers import PROJECT, START_US, Site, offline_logs, visits
from tests.support.stores import free_port

END_US = START_US + 40 * 86_400_000_000
ARRIVALS = visits(60)
KEYS = PartitionKeys(PROJECT, 0)

pytestmark = pytest.mark.timeout(300)


def _site(folder: Path, url: str) -> Site:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return Site(
        folder,
        url,
        partition_count=1,
        batch_records=1,
        checkpoint_interval_s=0.1,
        lease_ms=600,
        http_port=free_port(),
    )


def _checkpointed(site: Site) -> int:
    with site.client() as client:
        stored: Any = client.hget(KEYS.checkpoint, "record_count")
    return int(stored or 0)


def _figures(site: Site) -> dict[str, float]:
    with site.client() as client:
        stored: Any = client.hgetall(KEYS.stats)
    return {name.decode(): float(value) for name, value in stored.items()}


def _metrics(site: Site) -> str:
    with urlopen(f"http://127.0.0.1:{site.http_port}/metrics") as answer:
        text: str = answer.read().decode()
    return text


def _bound_files(process: Forked, most_bytes: int) -> None:
    """Let the process write no file, its log among them, beyond so many bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def _end(site: Site) -> tuple[object, ...]:
    """Come to the end of everything; returns all that is left."""
    site.tick(END_US)
    site.wait(lambda: _checkpointed(site) == site.appended(), "everything lies in files")
    site.stop()
    assert not [*site.repo.rglob("*.tmp"), *site.data.rglob("*.tmp")]
    return site.features(), site.changes(0), offline_logs(site.repo / "data"), site.archived(0)


@pytest.fixture(scope="module")
def expected(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """What an undisturbed run leaves."""
    site = _site(tmp_path_factory.mktemp("undisturbed"), url)
    try:
        site.start()
        site.publish(ARRIVALS)
        return _end(site)
    finally:
        site.stop()


@pytest.mark.parametrize("dies", [False, True])
def test_a_full_disk_loses_nothing_and_is_told(
    tmp_path: Path, url: str, expected: tuple[object, ...], dies: bool
) -> None:
    """Features are fresh, the checkpoint stays, metrics say so; what is held comes to files, or is done by the next."""
    site = _site(tmp_path / "site", url)
    try:
        process = site.start()
        site.publish(ARRIVALS[:30])
        site.wait(lambda: _checkpointed(site) == site.appended(), "the first half")
        before = _checkpointed(site)
        assert _figures(site)["rows_waiting"] == 0
        _bound_files(process, 1)
        site.publish(ARRIVALS[30:])
        site.wait(lambda: site.applied() == site.appended(), "features are fresh")
        site.wait(lambda: _figures(site)["failed_flushes"] >= 2, "it is tried again")
        assert _checkpointed(site) == before
        assert 'waypost_stream_failed_flushes_total{partition="0"}' in _metrics(site)
        assert 'waypost_stream_waiting_rows{partition="0"} 0.0' not in _metrics(site)
        assert _figures(site)["rows_waiting"] > 0
        if dies:
            process.kill()
            process.wait()
            site.start()
        else:
            _bound_files(process, resource.RLIM_INFINITY)
        assert _end(site) == expected
    finally:
        site.stop()
    assert _figures(site)["rows_waiting"] == 0
