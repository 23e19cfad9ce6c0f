"""The store is set back to an older copy, and its files are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import redis
from typer.testing import CliRunner

from online.store import connect
from server.cli import app
from server.embedded import EmbeddedValkey
from server.restored import RestoredError, move_aside
from streaming.archive import archived_events, read_live
from streaming.errors import StoreSetBack
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.merging import merge_parts
from streaming.redis_log import settle_partitions
from streaming.sink import move_parts
from tests.support.materializers import START_US as CLINIC_START_US
from tests.support.materializers import Site, offline_logs, visits
from tests.support.stream_world import PROJECT, START_US, World, catalog, drain, features, publish
from tests.support.valkey import run_valkey

BEFORE, LOST = 40, 20
END_US = CLINIC_START_US + 40 * 86_400_000_000
KEYS = PartitionKeys(PROJECT, 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with run_valkey(tmp_path / "valkey") as store:
        yield store


def _copied(store: EmbeddedValkey, folder: Path) -> Callable[[], None]:
    """Copy the store as it is; returns what sets it back to the copy."""
    store.kill()
    shutil.copytree(folder / "valkey", folder / "copy")
    store.start()

    def set_back() -> None:
        store.kill()
        shutil.rmtree(folder / "valkey")
        shutil.copytree(folder / "copy", folder / "valkey")
        store.start()

    return set_back


def _buys(first: int, stop: int) -> list[tuple[int, EventRecord]]:
    times = [START_US + number * 1_000_000 for number in range(first, stop)]
    return [
        (at_us, EventRecord(f"e{at_us}", "buy", f"c{at_us % 7}", at_us, {"category": "tea", "amount": 2.0}))
        for at_us in times
    ]


def _apply(url: str, world: World, arrivals: list[tuple[int, EventRecord]]) -> None:
    """Apply events, each behind a checkpoint of its own."""
    publish(url, arrivals)
    with connect(url) as client:
        materializer = world.materializer(client, batch_records=1)
        while materializer.step():
            materializer.checkpoint()
        drain(materializer)
        materializer.checkpoint()


def _files(world: World) -> list[Path]:
    return sorted(path for folder in (world.archive, world.offline) for path in folder.rglob("*.parquet"))


def _archived(client: redis.Redis, world: World) -> list[bytes]:
    checkpoint: Any = client.hgetall(KEYS.checkpoint)
    tables = list(read_live(world.archive, 0, 0, int(checkpoint[b"position"])))
    texts = [text for table in tables for text in archived_events(table)]
    assert len(texts) == int(checkpoint[b"archived"])
    return texts


def _rows(folder: Path) -> list[str]:
    """As a view's source names them."""
    files = sorted(folder.glob("*.parquet"))
    rows = ds.dataset(files, format="parquet").to_table().drop_columns(["created"])
    return sorted(map(str, rows.to_pylist()))


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_store_that_is_older_than_its_files_is_refused_until_they_are_moved(
    store: EmbeddedValkey, tmp_path: Path, is_merged: bool
) -> None:
    """Then what was lost may be sent again, and is there once, as though it had never been; merged parts are parted."""
    expected = World.create()
    _apply(store.url, expected, _buys(0, BEFORE + LOST))
    with connect(store.url) as client:
        texts, values = _archived(client, expected), features(client, expected.plan)
        client.flushall()
        settle_partitions(client, PROJECT, 1)
    world = World.create()
    _apply(store.url, world, _buys(0, BEFORE))
    set_back = _copied(store, tmp_path)
    for first in (BEFORE, BEFORE + LOST // 2):
        _apply(store.url, world, _buys(first, first + LOST // 2))
    while is_merged and merge_parts(world.archive, 0):
        pass
    set_back()
    before = _files(world)
    with connect(store.url) as client:
        with pytest.raises(StoreSetBack, match="waypost restored"):
            world.materializer(client)
        assert _files(world) == before
        with pytest.raises(RestoredError, match="stop all of them"):
            move_aside(client, catalog(world.offline), world.archive)
        client.delete(KEYS.lease)
        (moved,), folder = move_aside(client, catalog(world.offline), world.archive)
        assert (moved.events, moved.row_files > LOST) == (LOST, True)
        assert list((world.archive / folder).iterdir())
        (again,), _ = move_aside(client, catalog(world.offline), world.archive)
        assert (again.events, again.row_files) == (0, 0)
    _apply(store.url, world, _buys(BEFORE, BEFORE + LOST))
    with connect(store.url) as client:
        assert _archived(client, world) == texts
        assert features(client, world.plan) == values
    assert _rows(world.offline / "spending") == _rows(expected.offline / "spending")


def test_rows_of_a_store_that_was_emptied_are_set_aside(store: EmbeddedValkey) -> None:
    """The new store would write over them, file by file, under the same names."""
    world = World.create()
    _apply(store.url, world, _buys(0, 5))
    before = _rows(world.offline / "spending")
    with connect(store.url) as client:
        client.flushall()
    _apply(store.url, world, _buys(5, 7))
    assert len(_rows(world.offline / "spending")) == 2
    (aside,) = (world.offline / "spending").glob("earlier-*")
    assert _rows(aside) == before


@pytest.mark.timeout(200)
def test_a_materializer_of_a_store_that_was_set_back_says_what_to_do(
    store: EmbeddedValkey, tmp_path: Path
) -> None:
    """It ends and changes nothing; `waypost restored` lets it go on with what the store has."""
    site = Site(tmp_path / "site", store.url, partition_count=2, lease_ms=600, checkpoint_interval_s=0.1)
    arrivals = visits(40)
    try:
        site.start()
        site.publish(arrivals[:20])
        site.wait(lambda: site.applied() == site.appended(), "the first half")
        site.stop()
        set_back = _copied(store, tmp_path)
        site.start()
        site.publish(arrivals[20:])
        site.wait(lambda: site.applied() == site.appended(), "the second half")
        site.stop()
        set_back()
        refused_process = site.start()
        site.wait(lambda: refused_process.poll() is not None, "it ends", 20)
        assert refused_process.poll() == 1
        assert "waypost restored" in site.said()
        command = ["--repo", str(site.repo), "--data-dir", str(site.data), "--redis-url", store.url]
        refused = CliRunner().invoke(app, ["restored", *command])
        assert (refused.exit_code, "nothing is moved" in refused.output) == (1, True)
        done = CliRunner().invoke(app, ["restored", "--yes", *command])
        assert done.exit_code == 0, done.output
        assert "moved aside" in done.stdout
        site.start()
        site.publish(arrivals[20:])
        site.tick(END_US)
        site.wait(lambda: site.applied() == site.appended(), "everything")
    finally:
        site.stop()
    assert len({text for number in range(2) for text in site.archived(number)}) == 40
    assert offline_logs(site.repo / "data")


def test_parts_that_are_taken_back_while_they_are_set_aside_are_not_missed(tmp_path: Path) -> None:
    """Their writer, an owner no more, was still at it when they were listed."""
    (tmp_path / "live-0-1-1.parquet").touch()
    aside = tmp_path / "earlier"
    move_parts(tmp_path, ["live-0-0-1.parquet", "live-0-1-1.parquet"], aside)
    assert [path.name for path in aside.iterdir()] == ["live-0-1-1.parquet"]
