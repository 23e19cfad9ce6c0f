"""Which definitions serve: a switch holds only while every owner stands where it said."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import redis

import server.view_builds
from decision.schema import Catalog, View
from server.view_builds import settle_definitions
from streaming.generations import Definition, DefinitionsOutdated, Generations, Standing, Unfinished
from streaming.keys import PartitionKeys, members_key, views_key
from streaming.lease import Leases
from streaming.shadow import remove_staged, staged, staged_folders
from streaming.sink import write_part

ONE = {"a": Definition(digest="a1", features=("x", "y")), "b": Definition(digest="b1", features=("z",))}
TWO = ONE | {"a": Definition(digest="a2", features=("x",)), "c": Definition(digest="c1", features=("w",))}
OVER = threading.Event()
OVER.set()


def _stand(client: redis.Redis, partition: int, fence: int, position: int = 7) -> None:
    client.hset(views_key("p"), f"stands:{partition}", f"{fence}:{position}")


def _own(client: redis.Redis, partition: int, fence: int) -> None:
    client.set(PartitionKeys("p", partition).fence, fence)


def test_all_views_of_a_new_store_serve(client: redis.Redis) -> None:
    generations = Generations(client, "p")
    generations.settle(ONE, 2)
    assert generations.serving(ONE) == {"a": "", "b": ""}
    assert generations.is_whole()


def test_a_store_that_ran_before_has_an_archive_without_a_beginning(client: redis.Redis) -> None:
    client.hset(PartitionKeys("p", 1).checkpoint, "position", "3")
    generations = Generations(client, "p")
    generations.settle(ONE, 2)
    assert generations.serving(ONE) == {"a": "", "b": ""}
    assert not generations.is_whole()


def test_changed_and_new_views_wait_and_those_that_are_gone_are_forgotten(client: redis.Redis) -> None:
    """A view that went and came back missed events; so did one that was changed and changed back."""
    generations = Generations(client, "p")
    generations.settle(ONE, 1)
    generations.settle(TWO, 1)
    assert generations.serving(TWO) == {"b": ""}
    generations.settle(ONE, 1)
    assert generations.serving(ONE) == {"b": ""}
    generations.settle({"a": ONE["a"]}, 1)
    generations.settle(ONE, 1)
    assert generations.serving(ONE) == {}


def test_an_older_version_stays_out_while_somebody_runs_with_the_newest(client: redis.Redis) -> None:
    """It changes nothing, though it lacks a view and has another definition; the newest may come at any time."""
    generations = Generations(client, "p")
    generations.settle(ONE, 1, "old:1", 60_000)
    generations.settle(TWO, 1, "new:1", 60_000)
    before = client.hgetall(views_key("p"))
    for _ in range(2):
        with pytest.raises(DefinitionsOutdated, match="new:1 runs with newer definitions"):
            generations.settle(ONE, 1, "old:2", 60_000)
    assert client.hgetall(views_key("p")) == before
    generations.settle(TWO, 1, "new:2", 60_000)
    Leases(client, "p", "new:1", 1).leave()
    with pytest.raises(DefinitionsOutdated, match="new:2"):
        generations.settle(ONE, 1, "old:2", 60_000)


def test_an_older_version_comes_back_once_nobody_runs_with_the_newest(client: redis.Redis) -> None:
    """Whoever went back to it is right then, and what was the newest is now what stays out."""
    generations = Generations(client, "p")
    generations.settle(ONE, 1, "old:1", 60_000)
    generations.settle(TWO, 1, "new:1", 60_000)
    client.zadd(members_key("p"), {"new:1": 1})
    generations.settle(ONE, 1, "old:2", 60_000)
    assert not client.hexists(views_key("p"), "runs:new:1")
    with pytest.raises(DefinitionsOutdated, match="old:1 runs"):
        generations.settle(TWO, 1, "new:2", 60_000)


def test_so_many_versions_are_remembered(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.generations.VERSIONS_MAX", 3)
    generations = Generations(client, "p")
    for number in range(9):
        generations.settle({"a": Definition(digest=str(number), features=())}, 1, "m", 60_000)
    past: Any = client.hget(views_key("p"), "past")
    assert len(json.loads(past)) == 3


def test_newer_definitions_take_the_turn_of_a_build(client: redis.Redis) -> None:
    """One of older ones can switch no more, and its process is told."""
    generations = Generations(client, "p")
    generations.settle(ONE, 1, "old", 60_000)
    build = generations.take()
    generations.ask_for_pause(build)
    generations.settle(ONE, 1, "old:2", 60_000)
    generations.check_newest(ONE)
    assert generations.keep(build)
    generations.settle(TWO, 1, "new", 60_000)
    assert not generations.keep(build)
    assert generations.pause() == ""
    with pytest.raises(DefinitionsOutdated):
        generations.check_newest(ONE)
    generations.check_newest(TWO)


def test_an_owner_is_outdated_by_a_view_that_it_does_not_know(client: redis.Redis) -> None:
    """It would pass over that view's events in its partition."""
    generations = Generations(client, "p")
    generations.settle(ONE | {"c": TWO["c"]}, 1)
    with pytest.raises(DefinitionsOutdated, match="'c'"):
        generations.serving(ONE)


def test_a_switch_is_taken_whole_and_known_to_all(client: redis.Redis) -> None:
    generations = Generations(client, "p")
    generations.settle(ONE, 2)
    generations.settle(TWO, 2)
    build = generations.take()
    generations.ask_for_pause(build)
    for partition in range(2):
        _own(client, partition, 4)
        assert generations.standing(2) is None
        _stand(client, partition, 4)
    standing = generations.standing(2)
    assert standing is not None
    new = {view: TWO[view] for view in ("a", "c")}
    assert not generations.switch("another", standing, new, "g", {})
    assert generations.switch(build, standing, new, "g", {0: 5, 1: 6})
    assert not generations.switch(build, standing, new, "g", {})
    assert generations.serving(TWO) == {"a": "g", "b": "", "c": "g"}
    with pytest.raises(DefinitionsOutdated, match="bring the repo up to date"):
        generations.serving(ONE)
    left = {item.view: (item.features, item.intents) for item in generations.unfinished()}
    assert left == {"a": (("x", "y"), {0: 5, 1: 6}), "c": ((), {0: 5, 1: 6})}
    for item in generations.unfinished():
        generations.finished(replace(item, generation="before"))
    assert len(generations.unfinished()) == 2, "of a later switch"
    for item in generations.unfinished():
        generations.finished(item)
    assert generations.unfinished() == []


def test_a_process_that_ends_does_not_wait_for_newer_ones(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait until those that seem to be there could be dead, an hour here."""
    monkeypatch.setattr(server.view_builds, "definitions", lambda _: ONE)
    repo: Any = SimpleNamespace(catalog=SimpleNamespace(project="p"))
    generations = Generations(client, "p")
    generations.settle(ONE, 1)
    generations.settle(TWO, 1, "new:1", 3_600_000)
    with pytest.raises(DefinitionsOutdated, match="new:1"):
        settle_definitions(client, repo, 1, "old:1", 3_600_000, OVER)


def _build(client: redis.Redis) -> tuple[Generations, str, Mapping[int, Standing]]:
    """A build of changed definitions, by its name, that waits for nothing but its switch."""
    generations = Generations(client, "p")
    generations.settle(ONE, 1)
    build = generations.take()
    generations.ask_for_pause(build)
    _own(client, 0, 4)
    _stand(client, 0, 4)
    standing = generations.standing(1)
    assert standing is not None
    return generations, build, standing


def test_no_switch_once_an_owner_has_gone_on(client: redis.Redis) -> None:
    """It left, or its partition has another owner, who begins by saying that nobody stands there."""
    generations, build, standing = _build(client)
    generations.enter(0)
    assert not generations.switch(build, standing, TWO, "g", {})
    _stand(client, 0, 5)
    assert not generations.switch(build, standing, TWO, "g", {})


def test_no_switch_once_the_lock_has_run_out(client: redis.Redis) -> None:
    """Another that has it may have taken away what the build left; the one that stood still must begin again."""
    generations, build, standing = _build(client)
    client.delete("wp:{p}:build")
    assert generations.take()
    assert not generations.keep(build)
    assert not generations.switch(build, standing, TWO, "g", {})
    assert generations.unfinished() == []


def test_rows_that_dead_builds_left_are_removed(client: redis.Redis, tmp_path: Path) -> None:
    """Those that were there before the lock was taken, but not of a switch that is not finished."""
    nothing: dict[str, Any] = {"join_keys": (), "features": ()}
    view = View(name="a", stream=True, offline_path=str(tmp_path / "a" / "*.parquet"), **nothing)
    batch = View(name="b", offline_path=str(tmp_path / "b.parquet"), **nothing)
    catalog = Catalog(project="p", views=(view, batch))
    for generation in ("died", "switched"):
        write_part(staged(view, generation), "build-0", pa.table({"x": [1]}))
    (staged(view, "died") / ".build-1.77.tmp").write_bytes(b"half")
    generations = Generations(client, "p")
    found = staged_folders(catalog)
    assert len(found) == 2
    assert generations.take()
    staged(view, "new").mkdir()
    left = Unfinished(view="a", generation="switched", features=(), intents={})
    assert remove_staged(found, [left]) == []
    assert staged_folders(catalog) == [staged(view, "new"), staged(view, "switched")]


def test_rows_that_cannot_be_removed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / ".build-died"
    folder.mkdir(parents=True)
    monkeypatch.setattr("shutil.rmtree", lambda *_args, **_named: None)
    assert remove_staged([folder], []) == [folder]


def test_what_an_owner_of_before_says_does_not_count(client: redis.Redis) -> None:
    """It was frozen, another took the partition and began, and then it said where it stood."""
    generations = Generations(client, "p")
    generations.ask_for_pause("build")
    _own(client, 0, 5)
    generations.enter(0)
    _stand(client, 0, 4)
    assert generations.standing(1) is None


def test_an_owner_waits_no_longer_than_the_build_lives(client: redis.Redis) -> None:
    """The lock of a build that died runs out; whoever stands goes on, and takes back what it said."""
    generations = Generations(client, "p")
    build = generations.take()
    assert not generations.take()
    generations.ask_for_pause(build)
    assert generations.pause() == build
    client.delete("wp:{p}:build")
    assert generations.pause() == ""
    generations.stand(build, 0, 4, 7, threading.Event())
    assert not client.hexists(views_key("p"), "stands:0")
    generations.stand(build, 0, 4, 7, OVER)
    assert not client.hexists(views_key("p"), "stands:0")


def test_builds_are_named_in_the_order_in_which_they_begin(client: redis.Redis) -> None:
    """So that whoever stood still knows what came later; also later than those of releases that named at random.

    One that waits for its turn has no name yet: others may come before it.
    """
    generations = Generations(client, "p")
    names = []
    for _ in range(20):
        names.append(generations.take())
        assert generations.take() == ""
        generations.give_up(names[-1])
    assert sorted(names) == names
    assert names[0] > "ffffffff"
    assert generations.build_count() == 20
    client.flushall()
    assert generations.take() != names[0]
