"""Writes of entities that were looked at before: the same as those of the script, or nothing at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from decision.schema import JoinKey, ValueType
from online.command_kernels import is_not_later
from online.entity_commands import Wanted
from online.entity_line import DOUBTS, MOST_BEHIND, EntityLine
from online.errors import StoreReplyError, StoreUnavailableError
from online.guarded import Guard, Guarded
from online.keys import EntityKeys, feature_field, state_key, timestamp_field
from online.store import connect
from online.values import encode_timestamp
from online.words import side_by_side as joined
from online.write import Announcement, EntityWrite, EntityWriter, Outcomes, ViewWrite
from tests.support.entity_writes import VIEWS, random_writes, side_by_side
from tests.support.valkey import start_valkey

KEYS = EntityKeys("demo", [JoinKey(name="user_id", value_type=ValueType.INT64)])
GUARD, SIGN, JOURNAL = b"guard", b"sign", b"journal"
GUARDED = Guard(GUARD, ((JOURNAL, b"stream"),))
STAMPS = tuple(map(timestamp_field, VIEWS))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the module."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client on an empty store in which the guard holds what it must."""
    with connect(url) as connection:
        connection.flushall()
        connection.config_set("maxmemory", 0)
        connection.set(GUARD, b"3")
        yield connection


def key(number: int) -> bytes:
    return KEYS.encode({"user_id": number})


def write(number: int, revision: int = 0, seconds: int = 9) -> EntityWrite:
    view = ViewWrite(view="a", values={feature_field("a", "x"): b"\x20\x01"}, event_us=seconds * 1_000_000)
    return EntityWrite(key=key(number), revision=revision, views=(view,), state={b"s": b"chunk"})


def announced(number: int = 1) -> Announcement:
    sign = b"3:%d" % number
    return Announcement(Guarded(GUARD, b"3", [(b"SET", SIGN, sign)]), SIGN, sign)


def line_of(client: Any) -> EntityLine:
    return EntityLine(EntityWriter(client))


def look(line: EntityLine, writes: list[EntityWrite]) -> None:
    assert line.watch(GUARDED, [Wanted([one.key for one in writes], STAMPS)])


def ask(line: EntityLine, writes: list[EntityWrite]) -> Any:
    return line.write(announced(), [side_by_side(writes)])


def outcome(found: Outcomes) -> tuple[list[bool], list[list[bool]], int]:
    return found.accepted.tolist(), found.written.tolist(), found.state_bytes


def stored(client: Any) -> dict[bytes, object]:
    """Everything but the guard and the sign, and what has a time to live."""
    hashes = set(client.scan_iter()) - {GUARD, SIGN}
    return {name: (client.hgetall(name), client.ttl(name) > 0) for name in hashes}


def calls(client: Any, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.mark.parametrize("key_ttl_s", [None, 1_000])
@pytest.mark.parametrize("size", [1, 3, 40])
def test_writes_that_were_looked_at_are_those_of_the_script(
    client: Any, size: int, key_ttl_s: int | None
) -> None:
    """Some refused, some with later rows of others, some counting on rows that are gone: same outcomes, same store."""
    keys = [key(number) for number in range(size + 1)]

    def run(*, looks: bool) -> tuple[list[object], dict[bytes, object]]:
        client.flushall()
        client.set(GUARD, b"3")
        rng, outcomes = random.Random(size), list[object]()
        for number in range(60):
            line = EntityLine(EntityWriter(client, key_ttl_s, 50))
            writes = random_writes(rng, keys, number // 3)
            if looks:
                look(line, writes)
            is_announced, found = line.write(announced(number), [side_by_side(writes)])()
            line.close()
            assert is_announced
            assert client.get(SIGN) == b"3:%d" % number
            outcomes += [outcome(own) for own in found or ()]
        return outcomes, stored(client)

    client.config_resetstat()
    expected = run(looks=False)
    scripts = calls(client, "evalsha")
    client.config_resetstat()
    assert run(looks=True) == expected
    if size == 1:
        assert 5 < calls(client, "evalsha") < scripts


def test_writes_that_were_looked_at_need_no_script_and_one_transaction(client: Any) -> None:
    """Of several kinds at once, each with views of its own; the store syncs once."""
    line = line_of(client)
    writes = [write(number) for number in range(5)]
    bare = [replace(write(number), views=()) for number in range(5, 8)]
    wanted = [Wanted([one.key for one in writes], STAMPS), Wanted([one.key for one in bare], STAMPS[:1])]
    for revision in range(3):
        assert line.watch(GUARDED, wanted)
        parts = [
            side_by_side([replace(one, revision=revision) for one in writes]),
            side_by_side([replace(one, revision=revision) for one in bare], VIEWS[:1]),
        ]
        client.config_resetstat()
        is_announced, found = line.write(announced(revision), parts)()
        assert is_announced
        assert [own.accepted.all() for own in found or ()] == [True, True]
        assert (calls(client, "evalsha"), calls(client, "exec")) == (0, 1)
    assert client.hget(state_key(key(7)), "rev") == b"3"
    assert client.hgetall(key(0)) == {
        feature_field("a", "x"): b"\x20\x01",
        STAMPS[0]: encode_timestamp(9_000_000),
    }


CHANGES: dict[str, Callable[[Any], object]] = {
    "written": lambda client: EntityWriter(client).apply([write(1)]),
    "state gone": lambda client: client.delete(state_key(key(2))),
    "row gone": lambda client: client.delete(key(2)),
    "a later row": lambda client: client.hset(key(2), STAMPS[0], encode_timestamp(99_000_000)),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_decided_by_the_script(client: Any, change: str, when: str) -> None:
    """Whether it changed before the entities were looked at, or after."""
    writes = [write(1), replace(write(2, revision=1), kept=("b",))]

    def run(*, looks: bool) -> tuple[object, dict[bytes, object]]:
        client.flushall()
        client.set(GUARD, b"3")
        (own,) = EntityWriter(client).apply_many([side_by_side([write(2)])])
        assert own.accepted.all()
        client.hset(key(2), STAMPS[1], encode_timestamp(1_000_000))
        line = line_of(client)
        if when == "before":
            CHANGES[change](client)
        if looks and when == "after":
            _see(line, writes)
        elif looks:
            look(line, writes)
        if when == "after":
            CHANGES[change](client)
        _, found = ask(line, writes)()
        return [outcome(own) for own in found], stored(client)

    assert run(looks=True) == run(looks=False)


def _see(line: EntityLine, writes: list[EntityWrite]) -> None:
    """Look, and have the store say what it has: what changes from now on it would not tell."""
    look(line, writes)
    watched: Any = line._watched
    found = watched.seen(b"3")
    watched.seen = lambda _held: found


@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_written_where_the_guard_holds_something_else(client: Any, when: str) -> None:
    """Another owner has come, before the entities were looked at or after."""
    line, writes = line_of(client), [write(1)]
    if when == "before":
        client.set(GUARD, b"4")
        look(line, writes)
    else:
        _see(line, writes)
        client.set(GUARD, b"4")
    assert ask(line, writes)() == (False, None)
    assert set(client.scan_iter()) == {GUARD}


def test_after_a_look_in_vain_there_are_none_for_a_while(client: Any) -> None:
    """Where others change the same entities all the time, looking costs and brings nothing."""
    line = line_of(client)
    look(line, [write(1)])
    _, (found,) = ask(line, [write(1, revision=5)])()
    assert not found.accepted.any()
    wanted = [Wanted([key(1)], STAMPS)]
    assert [line.watch(GUARDED, wanted) for _ in range(DOUBTS)] == [False] * DOUBTS
    assert line.watch(GUARDED, wanted)


def test_a_discarded_transaction_is_a_look_in_vain(client: Any) -> None:
    """So it is where they changed after they were looked at."""
    line = line_of(client)
    _see(line, [write(1)])
    CHANGES["written"](client)
    _, (found,) = ask(line, [write(1)])()
    assert not found.accepted.any()
    assert not line.watch(GUARDED, [Wanted([key(1)], STAMPS)])


def test_each_view_is_compared_with_its_own_time(client: Any) -> None:
    """Also behind views that are counted on."""
    line = line_of(client)
    client.hset(key(1), mapping=dict(zip(STAMPS, map(encode_timestamp, (1, 99_000_000, 1)), strict=True)))
    views = tuple(ViewWrite(view=view, values={b"v": view.encode()}, event_us=50_000_000) for view in "bc")
    one = EntityWrite(key=key(1), revision=0, views=views, state={}, kept=("a",))
    look(line, [one])
    _, (found,) = ask(line, [one])()
    assert (found.accepted.tolist(), found.written.tolist()) == ([True], [[False, False, True]])


def test_other_views_than_are_written_are_no_look_at_all(client: Any) -> None:
    """Nothing is compared with the time of another view, or of another entity."""
    line = line_of(client)
    client.hset(key(1), STAMPS[1], encode_timestamp(1))
    client.hset(key(2), STAMPS[0], encode_timestamp(99_000_000))
    writes = [write(1), write(2)]
    look(line, writes)
    _, outcomes = line.write(announced(), [side_by_side(writes, VIEWS[:1])])()
    assert outcomes is not None
    (found,) = outcomes
    assert found.written.tolist() == [[True], [False]]


def test_entities_that_were_not_looked_at_are_written_all_the_same(client: Any) -> None:
    """As where a batch is written in pieces after it was looked at whole, or more of it than was thought."""
    line = line_of(client)
    look(line, [write(1)])
    is_announced, (found,) = ask(line, [write(1), write(2)])()
    assert (is_announced, found.accepted.tolist()) == (True, [True, True])


def test_an_announcement_may_be_of_nothing(client: Any) -> None:
    """What did not happen of writes before is announced alone."""
    line = line_of(client)
    look(line, [write(1)])
    assert line.write(announced(), [])() == (True, [])
    assert client.get(SIGN) == b"3:1"


def test_many_entities_are_not_looked_at(client: Any) -> None:
    """They go over several connections."""
    line = line_of(client)
    assert not line.watch(GUARDED, [])
    assert not line.watch(GUARDED, [Wanted([key(n) for n in range(MOST_BEHIND + 1)], STAMPS)])
    assert not line.watch(GUARDED, [Wanted([key(1)], ())])


def test_a_key_of_another_type_is_told_as_the_script_tells_it(client: Any) -> None:
    """Nothing is written."""
    client.set(key(2), b"no hash")
    line, writes = line_of(client), [write(1), write(2)]
    look(line, writes)
    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        ask(line, writes)()
    assert client.get(key(2)) == b"no hash"


@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_written_where_the_announcement_cannot_be(client: Any, when: str) -> None:
    """A key of the bookkeeping is of another type, when entities are looked at or after that."""
    line, writes = line_of(client), [write(1)]
    if when == "before":
        client.set(JOURNAL, b"no stream")
    _see(line, writes)
    client.set(JOURNAL, b"no stream")
    note = (b"XADD", JOURNAL, b"1-0", b"rows", b"of them")
    announcement = Announcement(Guarded(GUARD, b"3", [note, (b"SET", SIGN, b"3:1")]), SIGN, b"3:1")
    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        line.write(announcement, [side_by_side(writes)])()
    assert set(client.scan_iter()) == {GUARD, JOURNAL}


def test_a_store_without_room_is_told_as_such(client: Any) -> None:
    """Its transaction is refused whole."""
    line, writes = line_of(client), [write(1), write(2)]
    _see(line, writes)
    client.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailableError, match="takes no writes"):
        ask(line, writes)()
    client.config_set("maxmemory", 0)
    assert set(client.scan_iter()) == {GUARD}


def test_there_is_one_connection_and_it_comes_back(client: Any) -> None:
    """Looks that are used, thrown away, or in vain: what was watched for one of them is forgotten by the next."""
    line = line_of(client)
    line.close()
    look(line, [write(1)])
    assert ask(line, [write(1)])()[0]
    for revision in range(1, 4):
        look(line, [write(1)])
        assert ask(line, [write(1, revision)])()[0]
    look(line, [write(2)])
    line.unwatch()
    client.hset(state_key(key(2)), "rev", "7")  # what is still watched would void the next transaction
    client.config_resetstat()
    look(line, [write(1)])
    assert ask(line, [write(1, 4)])()[0]
    look(line, [write(1, 9)])
    _, (found,) = ask(line, [write(1, 9)])()
    assert not found.accepted.any()
    assert calls(client, "exec") == 2
    assert client.info("stats")["total_connections_received"] == 0
    line.close()
    pool = client.connection_pool
    taken = [pool.get_connection() for _ in range(pool.max_connections)]
    for connection in taken:
        pool.release(connection)


def test_what_is_said_behind_writes_on_their_way_hangs_on_them(client: Any) -> None:
    """Entities are looked at as the writes before have left them, though nobody has heard of those yet."""
    line, heard = line_of(client), list[Callable[[], Any]]()
    client.config_resetstat()
    for revision in range(5):
        look(line, [write(1)])
        heard.append(ask(line, [write(1, revision)]))
    assert [answer()[1][0].accepted.tolist() for answer in reversed(heard)] == [[True]] * 5
    assert (calls(client, "evalsha"), calls(client, "exec")) == (0, 5)
    assert client.hget(state_key(key(1)), "rev") == b"5"


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_broken_connection_is_told_and_another_taken(client: Any, is_seen: bool) -> None:
    """Nothing is written that hangs on what was watched on it."""
    line, writes = line_of(client), [write(1)]
    (_see if is_seen else look)(line, writes)
    _cut(client)
    with pytest.raises(StoreUnavailableError, match="stopped answering"):
        ask(line, writes)()
    assert set(client.scan_iter()) == {GUARD}
    look(line, writes)
    assert ask(line, writes)()[0]
    client.config_resetstat()
    look(line, [write(2)])
    _cut(client)
    line.unwatch()
    look(line, [write(2)])
    assert ask(line, [write(2)])()[0]
    assert calls(client, "evalsha") == 0


def _cut(client: Any) -> None:
    """Break all connections, and wait until it is done."""
    before = client.info("clients")["connected_clients"]
    client.client_kill_filter(_type="normal", skipme=True)
    assert before > client.info("clients")["connected_clients"]


BYTES = st.binary(max_size=14)
TIMES = st.builds(
    lambda seconds, nanos: Timestamp(seconds=seconds, nanos=nanos).SerializeToString(),
    st.integers(-(2**40), 2**40),
    st.integers(0, 999_999_999) | st.just(0),
)


@given(TIMES | BYTES, TIMES)
@example(b"", b"")
@example(b"\x08", b"\x08\x01")
@example(b"\x08\x80", b"\x08\x01")
@example(b"\x12\x00", b"\x08\x01")
def test_a_time_passes_for_no_later_only_where_it_is_none(stored_time: bytes, stamp: bytes) -> None:
    """Seconds and nanoseconds, also before 1970; bytes that are no time never pass but for the same."""
    data, at = joined([stored_time, stamp])
    passes = is_not_later(data, at[0], at[1], data, at[1], at[2])
    old, new = Timestamp(), Timestamp.FromString(stamp)
    try:
        old.ParseFromString(stored_time)
    except Exception:  # noqa: BLE001 - whatever protobuf has against it
        assert not passes
        return
    if passes:
        assert stored_time == stamp or (old.seconds, old.nanos) <= (new.seconds, new.nanos)
    elif Timestamp(seconds=old.seconds, nanos=old.nanos).SerializeToString() == stored_time:
        assert (old.seconds, old.nanos) > (new.seconds, new.nanos)
