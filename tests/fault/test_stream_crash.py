"""The materializer dies at any command to the store, before or after the store has taken it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from streaming.keys import PartitionKeys
from tests.support.stream_world import PROJECT, START_US, World, drain, features, publish, random_events, tick
from tests.support.valkey import start_valkey

EVENT_COUNT = 150
LATER_US = START_US + 7_200_000_000


class Crash(BaseException):
    """The process is gone."""


class Doom:
    """Counts commands of all connections and ends the process at one of them."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.struck = False


class DoomedConnection(redis.Connection):
    """A connection whose process dies at a given send, or before it can read the answer."""

    doom: Doom | None = None

    def send_packed_command(self, command: object, check_health: bool = True) -> None:
        doom = type(self).doom
        if doom is not None:
            doom.left -= 1
            if doom.left < 0 and not doom.after:
                self._die(doom)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: object, **kwargs: object) -> object:
        doom = type(self).doom
        answer = super().read_response(*args, **kwargs)  # type: ignore[no-untyped-call]
        if doom is not None and doom.left < 0 and doom.after:
            self._die(doom)
        return answer

    def _die(self, doom: Doom) -> None:
        doom.struck = True
        self.disconnect()  # type: ignore[no-untyped-call]
        raise Crash


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="module")
def world() -> World:
    return World.create()


def _connect(url: str) -> redis.Redis:
    pool = redis.ConnectionPool.from_url(url, connection_class=DoomedConnection)
    return redis.Redis(connection_pool=pool)


def _log_events(url: str, seed: int) -> None:
    redis.Redis.from_url(url).flushall()
    publish(url, random_events(seed, EVENT_COUNT))
    tick(url, LATER_US)


def _undisturbed(url: str, world: World, seed: int) -> dict[bytes, dict[bytes, bytes]]:
    _log_events(url, seed)
    client = _connect(url)
    drain(world.materializer(client))
    return features(client, world.plan)


def _without_segment_times(hashes: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    return {key: {f: v for f, v in fields.items() if f != b"_ts:segments"} for key, fields in hashes.items()}


def _crashing_run(
    url: str, world: World, seed: int, rng: random.Random
) -> tuple[dict[bytes, dict[bytes, bytes]], int]:
    """Run to the end over as many crashes as it takes; each life ends at a random command."""
    _log_events(url, seed)
    crashes = 0
    while True:
        client = _connect(url)
        DoomedConnection.doom = Doom(rng.randrange(1, 30), after=rng.random() < 0.5) if crashes < 40 else None
        try:
            drain(world.materializer(client, batch_records=rng.randrange(1, 20)))
        except Crash:
            crashes += 1
            continue
        finally:
            DoomedConnection.doom = None
        return features(_connect(url), world.plan), crashes


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 60))]
)
def test_crash_at_any_command_leaves_the_same_features(url: str, world: World, seed: int) -> None:
    """Values and timestamps are those of an undisturbed run, to the byte, wherever the process died."""
    expected = _undisturbed(url, world, seed)
    assert len(expected) > 10
    found, crashes = _crashing_run(url, world, seed, random.Random(seed))
    assert crashes > 5
    assert _without_segment_times(found) == _without_segment_times(expected)


def test_replay_of_the_whole_log_changes_nothing(url: str, world: World) -> None:
    """A materializer that lost its checkpoint reads everything again and leaves every value as it is."""
    expected = _undisturbed(url, world, 9)
    client = _connect(url)
    client.delete(PartitionKeys(PROJECT, 0).checkpoint)
    drain(world.materializer(client, batch_records=3))
    assert features(client, world.plan) == expected


def test_offline_rows_of_a_crashed_batch_are_written_again(url: str, world: World, tmp_path: Path) -> None:
    """Every entity that is online has its final row offline, though rows in memory died with the process."""
    _ = tmp_path
    import pyarrow.dataset as ds

    found, _crashes = _crashing_run(url, world, 5, random.Random(5))
    client = _connect(url)
    world.materializer(client).checkpoint()
    rows = ds.dataset(world.offline / "spending", format="parquet").to_table(columns=["customer_id"])
    assert set(rows["customer_id"].to_pylist()) == {"ada", "bob", "cyd"}
    assert found
