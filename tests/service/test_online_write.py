from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from google.protobuf.timestamp_pb2 import Timestamp

from decision.schema import JoinKey, ValueType
from online.entity_line import MOST_BEHIND, EntityLine
from online.errors import StoreReplyError, StoreUnavailableError, WriteTooLargeError
from online.guarded import Guarded
from online.keys import EntityKeys, feature_field, slot_of, state_key, timestamp_field
from online.script import carried_out
from online.slots import slot_tags
from online.store import check_store, connect, connect_async
from online.values import decode_timestamp, encode_timestamp, encode_value
from online.write import (
    ENTITIES_PER_CALL,
    Announcement,
    AsyncRowWriter,
    EntityWrite,
    EntityWriter,
    RowWrite,
    RowWriter,
    ViewWrite,
    revision_of,
)
from tests.support.entity_writes import VIEWS, random_writes, side_by_side
from tests.support.valkey import run_valkey, start_valkey

KEYS = EntityKeys("demo", [JoinKey(name="user_id", value_type=ValueType.INT64)])
FIELD = feature_field("user_fv", "a")
STAMP = timestamp_field("user_fv")
KEY = KEYS.encode({"user_id": 1})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the module."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """A client on an empty store."""
    with connect(url) as connection:
        connection.flushall()
        yield connection


WRITTEN = frozenset({"user_fv"})


def write(
    revision: int, value: bytes = b"\x20\x01", event_us: int = 1_000_000, **state: bytes
) -> EntityWrite:
    """Make a write of one value and the given chunks."""
    chunks = {name.encode(): chunk for name, chunk in state.items()}
    view = ViewWrite(view="user_fv", values={FIELD: value}, event_us=event_us)
    return EntityWrite(key=KEY, revision=revision, views=(view,), state=chunks)


def test_entity_writes_set_values_and_state_at_once(client: Any) -> None:
    """An accepted write shows in Feast's hash and in the state, whose revision is one higher."""
    writer = EntityWriter(client)
    assert writer.apply([write(0, tiles=b"t", outbox=b"o")]) == [WRITTEN]
    assert client.hgetall(KEY) == {FIELD: b"\x20\x01", STAMP: b"\x08\x01"}
    assert writer.load([KEY]) == [{b"rev": b"1", b"tiles": b"t", b"outbox": b"o"}]


def test_entity_writes_touch_only_changed_chunks(client: Any) -> None:
    """A write without values changes state alone; dropped chunks go, the others stay."""
    writer = EntityWriter(client)
    writer.apply([write(0, tiles=b"t", outbox=b"o")])
    change = EntityWrite(key=KEY, revision=1, views=(), state={b"more": b"m"}, dropped=(b"outbox", b"absent"))
    assert writer.apply([change]) == [frozenset()]
    assert writer.load([KEY]) == [{b"rev": b"2", b"tiles": b"t", b"more": b"m"}]
    assert client.hget(KEY, FIELD) == b"\x20\x01"


@pytest.mark.parametrize("revision", [0, 2, 7])
def test_entity_writes_of_another_revision_change_nothing(client: Any, revision: int) -> None:
    """A stale writer, a replay and a writer from the future are refused and leave every byte as it was."""
    writer = EntityWriter(client)
    writer.apply([write(0, tiles=b"t")])
    before = client.dump(KEY), client.dump(state_key(KEY))
    assert writer.apply([write(revision, b"\x20\x09", tiles=b"other")]) == [None]
    assert (client.dump(KEY), client.dump(state_key(KEY))) == before


def test_entity_writes_of_one_batch_apply_in_order(client: Any) -> None:
    """Two writes of one entity in a batch build on each other, and a batch replayed changes nothing."""
    writer = EntityWriter(client)
    batch = [write(0, b"\x20\x01"), write(1, b"\x20\x02"), write(1, b"\x20\x03")]
    assert writer.apply(batch) == [WRITTEN, WRITTEN, None]
    assert writer.apply(batch) == [None, None, None]
    assert client.hget(KEY, FIELD) == b"\x20\x02"


def test_entity_writes_survive_a_server_that_forgot_the_script(client: Any) -> None:
    """After SCRIPT FLUSH or a restart the batch is applied all the same."""
    writer = EntityWriter(client)
    assert writer.apply([write(0)]) == [WRITTEN]
    client.script_flush()
    assert writer.apply([write(1), write(2)]) == [WRITTEN, WRITTEN]


def test_entity_writes_larger_than_a_pipeline_all_arrive(client: Any) -> None:
    """A batch beyond the pipeline's bound is cut, in order, and loads back."""
    writer = EntityWriter(client)
    keys = [KEYS.encode({"user_id": number}) for number in range(2_500)]
    view = ViewWrite(view="user_fv", values={FIELD: b"v"}, event_us=0)
    writes = [EntityWrite(key=key, revision=0, views=(view,), state={b"k": key}) for key in keys]
    assert all(writer.apply(writes))
    assert [state[b"k"] for state in writer.load(keys)] == keys


def test_entity_writes_have_a_bound_below_the_limit_of_the_script(client: Any) -> None:
    """The largest write allowed works; one field more is refused before it is sent."""
    many = {number.to_bytes(2, "big"): b"x" for number in range(3_500)}
    writer = EntityWriter(client)
    wide = ViewWrite(view="wide", values=many, event_us=0)
    full = EntityWrite(key=KEY, revision=0, views=(wide, wide), state=many, dropped=tuple(many))
    assert writer.apply([full]) == [frozenset({"wide"})]
    wider = replace(wide, values=many | {b"one more": b"x"})
    with pytest.raises(WriteTooLargeError, match="at most 3500"):
        writer.apply([EntityWrite(key=KEY, revision=1, views=(wider,), state={})])
    with pytest.raises(ValueError, match="rev"):
        writer.apply([write(1, rev=b"9")])


def test_entity_writes_fail_whole_on_a_key_of_another_type(client: Any) -> None:
    """Where a key holds something else the write is an error, and nothing of it is stored."""
    client.set(KEY, b"not a hash")
    with pytest.raises(StoreReplyError, match="WRONGTYPE"):
        EntityWriter(client).apply([write(0)])
    assert not client.exists(state_key(KEY))


def test_entity_writers_interleaved_lose_nothing(client: Any, url: str) -> None:
    """Threads that each read, add one and write by revision, again where refused, together count every addition."""
    additions, threads = 60, 4

    def count() -> None:
        with connect(url) as own:
            writer = EntityWriter(own)
            for _ in range(additions):
                while True:
                    (state,) = writer.load([KEY])
                    total = int(state.get(b"total", b"0")) + 1
                    change = write(
                        revision_of(state), encode_value(ValueType.INT64, total), total=b"%d" % total
                    )
                    if writer.apply([change])[0] is not None:
                        break

    workers = [threading.Thread(target=count) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (state,) = EntityWriter(client).load([KEY])
    assert state == {b"rev": b"%d" % (additions * threads), b"total": b"%d" % (additions * threads)}
    assert client.hget(KEY, FIELD) == encode_value(ValueType.INT64, additions * threads)


def row(event_us: int, value: bytes) -> RowWrite:
    """Make a row of one value."""
    return RowWrite(key=KEY, view="user_fv", values={FIELD: value}, event_us=event_us)


def test_rows_newest_event_time_wins_in_any_order(client: Any) -> None:
    """Whatever order rows arrive in, the one with the latest event time stays; before the epoch too."""
    times = [-9_000_000_000_000, -1, 0, 1, 999_999, 1_000_000, 1_700_000_000_000_001, 1_700_000_000_000_002]
    # seconds take five bytes between 2²⁸ and 2³⁵
    times += [1_700_000_128_000_000, 1_700_000_127_000_000, 2**28 * 10**6 - 1, 2**28 * 10**6, 2**35 * 10**6]
    writer = RowWriter(client)
    for first, second in itertools.product(times, times):
        client.delete(KEY)
        accepted = writer.apply([row(first, b"first"), row(second, b"second")])
        assert accepted == [True, second >= first], (first, second)
        stamp = client.hget(KEY, STAMP)
        assert client.hget(KEY, FIELD) == (b"second" if second >= first else b"first")
        assert stamp == encode_timestamp(max(first, second))


def test_rows_of_racing_writers_end_at_the_newest(client: Any, url: str) -> None:
    """Threads that push rows in different orders leave the value that belongs to the latest event time."""

    def push(seed: int) -> None:
        times = list(range(1, 301))
        random.Random(seed).shuffle(times)
        with connect(url) as own:
            writer = RowWriter(own)
            for event_us in times:
                writer.apply([row(event_us, b"%d" % event_us)])

    workers = [threading.Thread(target=push, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert client.hgetall(KEY) == {FIELD: b"300", STAMP: encode_timestamp(300)}


NOW = encode_timestamp(1_700_000_000_000_000)


@pytest.mark.parametrize(
    "stored",
    [b"\x08", b"\x08\xff", b"\x99", b"\x10\x80\x80", NOW + b"\x10", NOW + b"\x10\xff", NOW + b"\x18\x01"],
)
def test_rows_replace_an_unreadable_event_time(client: Any, stored: bytes) -> None:
    """A damaged timestamp never locks a view: any row replaces it."""
    client.hset(KEY, STAMP, stored)
    assert RowWriter(client).apply([row(1, b"new")]) == [True]
    assert decode_timestamp(client.hget(KEY, STAMP) or b"") == 1


def test_rows_are_ordered_to_the_nanosecond(client: Any) -> None:
    """Event times that differ by a nanosecond are told apart, and are stored as they came."""
    writer = RowWriter(client)
    earlier = replace(row(1, b"a"), event_rest_ns=1)
    later = replace(row(1, b"b"), event_rest_ns=2)
    assert writer.apply([later, earlier]) == [True, False]
    assert client.hget(KEY, STAMP) == encode_timestamp(1, 2) == Timestamp(nanos=1_002).SerializeToString()
    assert writer.apply([row(2, b"c"), row(1, b"d")]) == [True, False]


async def test_rows_written_on_an_event_loop_follow_the_same_rule(client: Any, url: str) -> None:
    """The asynchronous writer refuses what is older, also where the server forgot the script."""
    asynchronous = connect_async(url)
    writer = AsyncRowWriter(asynchronous)
    client.script_flush()
    assert await writer.apply([row(5, b"a"), row(4, b"b")]) == [True, False]
    assert await writer.apply([row(5, b"c")]) == [True]
    await asynchronous.aclose()
    assert client.hget(KEY, FIELD) == b"c"


def test_rows_renew_the_entitys_time_to_live_when_they_are_written(client: Any) -> None:
    """`key_ttl_seconds` counts from the last accepted row; a refused one renews nothing; without it none is set."""
    writer = RowWriter(client, key_ttl_s=100)
    writer.apply([row(5, b"a")])
    assert 0 < client.ttl(KEY) <= 100
    client.expire(KEY, 10)
    assert writer.apply([row(4, b"b")]) == [False]
    assert client.ttl(KEY) <= 10
    assert writer.apply([row(6, b"c")]) == [True]
    assert client.ttl(KEY) > 10
    client.delete(KEY)
    RowWriter(client).apply([row(5, b"a")])
    assert client.ttl(KEY) == -1


def test_entity_state_outlives_the_entity_by_what_it_remembers(client: Any) -> None:
    """State lives as long as its longest window still counts; state without an end stays, whatever it had before."""
    writer = EntityWriter(client, key_ttl_s=100, grace_s=50)
    writer.apply([replace(write(0), memory_s=1_000)])
    assert 0 < client.ttl(KEY) <= 100
    assert 1_100 < client.ttl(state_key(KEY)) <= 1_150
    writer.apply([write(1)])
    assert client.ttl(state_key(KEY)) == -1
    EntityWriter(client).apply([replace(write(2), memory_s=1_000)])
    assert client.ttl(state_key(KEY)) == -1


def test_entity_writes_leave_a_later_row_of_another_writer(client: Any) -> None:
    """A row pushed for a later event time stays; the state moves on, and the outcome says what readers see."""
    RowWriter(client).apply([row(9_000_000, b"pushed")])
    other = ViewWrite(view="other_fv", values={b"othr": b"o"}, event_us=1)
    change = replace(write(0), views=(*write(0).views, other))
    assert EntityWriter(client).apply([change]) == [frozenset({"other_fv"})]
    assert client.hget(KEY, FIELD) == b"pushed"
    assert client.hget(state_key(KEY), "rev") == b"1"
    assert EntityWriter(client).apply([write(1, b"newer", event_us=9_000_000)]) == [WRITTEN]
    assert client.hget(KEY, FIELD) == b"newer"


def test_entity_writes_that_count_on_deleted_values_are_refused(client: Any) -> None:
    """Where a hash or a view's fields were deleted or expired, a partial write is refused and changes nothing."""
    writer = EntityWriter(client)
    writer.apply([write(0)])
    other = ViewWrite(view="other_fv", values={b"othr": b"o"}, event_us=1)
    partial = EntityWrite(key=KEY, revision=1, views=(other,), kept=("user_fv",), state={})
    client.delete(KEY)
    assert writer.apply([partial]) == [None]
    assert not client.exists(KEY)
    whole = replace(partial, views=(*write(1).views, other), kept=())
    assert writer.apply([whole]) == [WRITTEN | {"other_fv"}]
    assert writer.apply([replace(partial, revision=2)]) == [frozenset({"other_fv"})]


@pytest.mark.parametrize("key_ttl_s", [None, 1_000])
def test_entity_writes_side_by_side_do_what_they_do_alone(client: Any, key_ttl_s: int | None) -> None:
    """Many entities in one call, some refused, some with later rows of others: the same outcomes, the same store."""
    keys = [KEYS.encode({"user_id": number}) for number in range(40)]

    def run(together: bool) -> tuple[list[object], dict[bytes, tuple[object, bool]]]:
        client.flushall()
        rng, outcomes = random.Random(5), list[object]()
        writer = EntityWriter(client, key_ttl_s, 50)
        for number in range(8):
            writes = random_writes(rng, keys, number)
            if together:
                (found,) = writer.apply_many([side_by_side(writes)])
                outcomes += [
                    frozenset(view for view, mark in zip(VIEWS, written, strict=True) if mark)
                    if accepted
                    else None
                    for accepted, written in zip(found.accepted.tolist(), found.written.tolist(), strict=True)
                ]
            else:
                outcomes += writer.apply(writes)
        store = {key: (client.hgetall(key), client.ttl(key) > 0) for key in client.scan_iter()}
        return outcomes, store

    alone = run(together=False)
    assert None in alone[0]
    assert any(outcome for outcome in alone[0])
    assert run(together=True) == alone


def test_entities_of_several_kinds_share_calls(client: Any) -> None:
    """Kinds have views of their own, and some none: outcomes and store are those of each alone, the calls are fewer."""
    kinds = {VIEWS: 13, ("a",): 9, (): 11}
    rng = random.Random(7)

    def of_kind(writes: list[EntityWrite], names: tuple[str, ...]) -> list[EntityWrite]:
        return [
            replace(
                change,
                views=tuple(view for view in change.views if view.view in names),
                kept=tuple(view for view in change.kept if view in names),
            )
            for change in writes
        ]

    rounds = []
    for number in range(4):
        by_kind = []
        for place, (names, count) in enumerate(kinds.items()):
            keys = [KEYS.encode({"user_id": 100 * place + user}) for user in range(count)]
            by_kind.append((of_kind(random_writes(rng, keys, number), names), names))
        rounds.append(by_kind)
    apart: list[object] = []
    for by_kind in rounds:
        for writes, names in by_kind:
            (found,) = EntityWriter(client).apply_many([side_by_side(writes, names)])
            apart.append((found.accepted.tolist(), found.written.tolist(), found.state_bytes))
    store = {key: client.hgetall(key) for key in client.scan_iter()}
    client.flushall()
    client.config_resetstat()
    together: list[object] = []
    for by_kind in rounds:
        outcomes = EntityWriter(client).apply_many([side_by_side(writes, names) for writes, names in by_kind])
        together += [(own.accepted.tolist(), own.written.tolist(), own.state_bytes) for own in outcomes]
    assert together == apart
    assert {key: client.hgetall(key) for key in client.scan_iter()} == store
    entities = [sum(len(writes) for writes, _ in by_kind) for by_kind in rounds]
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls == sum(-(-count // ENTITIES_PER_CALL) for count in entities)


def test_writes_side_by_side_that_are_too_large_are_refused(client: Any) -> None:
    """More fields of a view, of the state or to be dropped than a script can take, of any entity."""
    many = {b"field %d" % number: b"x" for number in range(3_500)}
    full = EntityWrite(key=KEY, revision=0, views=(), state=many, dropped=tuple(many))
    full = replace(full, views=(ViewWrite(view="a", values=many, event_us=1),))
    (found,) = EntityWriter(client).apply_many([side_by_side([full])])
    assert found.accepted.tolist() == [True]
    other = replace(write(0), key=KEYS.encode({"user_id": 2}), views=())
    more = many | {b"one more": b"x"}
    for large in (
        replace(full, views=(ViewWrite(view="c", values=more, event_us=1),)),
        replace(full, state=more),
        replace(full, dropped=tuple(more)),
    ):
        with pytest.raises(WriteTooLargeError, match="has 3501 fields"):
            EntityWriter(client).apply_many([side_by_side([other]), side_by_side([other, large])])


GUARD_KEY, SIGN_KEY = b"guard", b"sign"


def _announced(client: Any, writes: list[EntityWrite], sign: bytes, left: bytes | None = None) -> Any:
    """Write behind an announcement that leaves `left`, as it is left where that is not said."""
    client.set(GUARD_KEY, b"3")
    leave = (b"SET", SIGN_KEY, sign if left is None else left)
    announcement = Announcement(Guarded(GUARD_KEY, b"3", [leave]), SIGN_KEY, sign)
    return EntityLine(EntityWriter(client)).write(announcement, [side_by_side(writes)])()


@pytest.mark.parametrize("known", [True, False], ids=["known scripts", "forgotten scripts"])
def test_entities_are_written_behind_an_announcement(client: Any, known: bool) -> None:
    """In one piece with what comes first: the same outcomes and the same store as one after the other."""
    keys = [KEYS.encode({"user_id": number}) for number in range(40)]
    rng = random.Random(6)
    batches = [random_writes(rng, keys, number) for number in range(6)]
    apart = []
    for writes in batches:
        (found,) = EntityWriter(client).apply_many([side_by_side(writes)])
        apart.append((found.accepted.tolist(), found.written.tolist()))
    store = {key: client.hgetall(key) for key in client.scan_iter()}
    client.flushall()
    together = []
    for number, writes in enumerate(batches):
        if not known:
            client.script_flush()
        reply, outcomes = _announced(client, writes, b"3:%d" % number)
        assert reply is True
        together += [(found.accepted.tolist(), found.written.tolist()) for found in outcomes]
        assert client.get(SIGN_KEY) == b"3:%d" % number
    assert together == apart
    client.delete(GUARD_KEY, SIGN_KEY)
    assert {key: client.hgetall(key) for key in client.scan_iter()} == store


def test_nothing_is_written_where_the_announcement_left_no_sign(client: Any) -> None:
    """It was refused, or another came behind it: the entities stay as they are."""
    writes = [write(0), replace(write(0), key=KEYS.encode({"user_id": 2}))]
    assert _announced(client, writes, b"3:1", left=b"4:1") == (True, None)
    assert set(client.scan_iter()) == {GUARD_KEY, SIGN_KEY}


def test_nothing_is_written_where_the_announcement_failed(client: Any) -> None:
    """Its error is raised, whatever became of what was sent with it."""
    client.mset({GUARD_KEY: b"3", SIGN_KEY: b"3:0"})
    failing = Guarded(GUARD_KEY, b"3", [(b"INCR", SIGN_KEY)])
    for _ in range(2):
        with pytest.raises(StoreReplyError, match="not an integer"):
            EntityLine(EntityWriter(client)).write(
                Announcement(failing, SIGN_KEY, b"3:1"), [side_by_side([write(0)])]
            )()
    assert set(client.scan_iter()) == {GUARD_KEY, SIGN_KEY}


def test_few_entities_are_written_in_one_transaction_with_their_announcement(client: Any) -> None:
    """The store syncs once for it; of many, others wait for a part at a time."""
    many = [replace(write(0), key=KEYS.encode({"user_id": number})) for number in range(65)]
    for count, transactions in ((1, 1), (64, 1), (65, 0)):
        client.flushall()
        client.config_resetstat()
        _, outcomes = _announced(client, many[:count], b"3:1")
        assert all(found.accepted.all() for found in outcomes)
        calls = {name: figures["calls"] for name, figures in client.info("commandstats").items()}
        assert calls.get("cmdstat_exec", 0) == transactions


def test_a_transaction_that_is_not_taken_tells_why(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first that was refused in it; nothing is written then."""
    monkeypatch.setattr(Guarded, "call", lambda _: ())
    with pytest.raises(StoreReplyError, match="wrong number of arguments"):
        EntityLine(EntityWriter(client)).write(
            Announcement(Guarded(GUARD_KEY, b"3", ()), SIGN_KEY, b"3:1"), [side_by_side([write(0)])]
        )()
    assert not list(client.scan_iter())


@pytest.mark.parametrize(
    ("why", "error"),
    [
        ("BUSY Redis is busy running a script", StoreUnavailableError),
        ("OOM command not allowed when used memory > 'maxmemory'", StoreUnavailableError),
        ("ERR of another kind", StoreReplyError),
    ],
)
def test_a_transaction_that_is_discarded_as_others_are_is_waited_for(
    why: str, error: type[Exception]
) -> None:
    """The server was held by somebody else's script, or full, when it came to its end."""
    discarded = redis.exceptions.ExecAbortError(f"Transaction discarded because of: {why}")
    with pytest.raises(error, match=why.split(maxsplit=1)[0]):
        carried_out([b"OK", b"QUEUED", discarded])


def test_few_entities_of_one_server_may_follow_an_announcement(client: Any) -> None:
    """Many go over several connections, where nothing says which comes first."""
    line = EntityLine(EntityWriter(client))
    assert line.takes(MOST_BEHIND)
    assert not line.takes(MOST_BEHIND + 1)


def test_entity_state_is_made_lasting_once(client: Any) -> None:
    """A state that had a time to live loses it with the first write of a writer that gives it none."""
    EntityWriter(client, key_ttl_s=100).apply([replace(write(0), memory_s=9)])
    assert client.ttl(state_key(KEY)) > 0
    EntityWriter(client).apply_many([side_by_side([EntityWrite(key=KEY, revision=1, views=(), state={})])])
    assert client.ttl(state_key(KEY)) == -1
    client.expire(state_key(KEY), 100)
    known = side_by_side([EntityWrite(key=KEY, revision=2, views=(), state={})])
    EntityWriter(client).apply_many([known._replace(lasting=np.ones(1, dtype=np.bool_))])
    assert client.ttl(state_key(KEY)) > 0


def test_rows_of_one_view_leave_other_views_alone(client: Any) -> None:
    """Views of one entity share a hash, each with its own event time."""
    writer = RowWriter(client)
    writer.apply([row(9_000_000, b"a")])
    other = RowWrite(key=KEY, view="other_fv", values={feature_field("other_fv", "a"): b"b"}, event_us=5)
    assert writer.apply([other]) == [True]
    assert client.hget(KEY, FIELD) == b"a"
    assert client.hget(KEY, STAMP) == encode_timestamp(9_000_000)


@pytest.mark.parametrize(
    ("setting", "no_writes", "writes"), [("maxmemory", 1, 0), ("min-replicas-to-write", 1, 0)]
)
def test_a_store_that_takes_no_writes_for_now_is_waited_for(
    tmp_path: Path, setting: str, no_writes: int, writes: int
) -> None:
    """Full memory and missing replicas pass: they are no fault of a write that would end whoever writes."""
    with run_valkey(tmp_path) as server, connect(server.url) as client:
        writer = RowWriter(client)
        writer.apply([row(1, b"a")])
        client.config_set(setting, no_writes)
        with pytest.raises(StoreUnavailableError, match="takes no writes for now"):
            writer.apply([row(2, b"b")])
        client.config_set(setting, writes)
        assert writer.apply([row(2, b"b")]) == [True]


def test_store_settings_that_weaken_durability_are_named(client: Any, tmp_path: Path) -> None:
    """A durable server gives no warning; each weaker setting is named with its consequence."""
    assert check_store(client) == []
    weak = {"appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    with run_valkey(tmp_path, weak) as server, connect(server.url) as other:
        warnings = check_store(other)
    assert [warning.split(" ")[0] for warning in warnings] == ["appendfsync", "maxmemory-policy"]


def test_slots_and_script_agree_with_a_cluster(tmp_path: Path) -> None:
    """A cluster node gives every tag the slot of our table, and takes the script's two keys as one slot."""
    with run_valkey(tmp_path, {"cluster-enabled": "yes"}) as server, connect(server.url) as client:
        node: Any = client
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        with node.pipeline(transaction=False) as pipeline:
            for tag in slot_tags():
                pipeline.execute_command("CLUSTER", "KEYSLOT", tag)
            assert pipeline.execute() == list(range(16_384))
        texts = [f"{left}u{right}" for left in ("", "{", "a{b}", "{}") for right in ("", "}", "{x}y")]
        keys = EntityKeys("demo", [JoinKey(name="name", value_type=ValueType.STRING)])
        entity_keys = [keys.encode({"name": text}) for text in texts]
        for key in entity_keys:
            assert node.execute_command("CLUSTER", "KEYSLOT", key) == slot_of(key)
        while node.cluster("INFO")["cluster_state"] != "ok":
            node.ping()
        writer = EntityWriter(node)
        view = ViewWrite(view="v", values={b"a": b"b"}, event_us=0)
        writes = [EntityWrite(key=key, revision=0, views=(view,), state={}) for key in entity_keys]
        assert all(writer.apply(writes))
        assert [revision_of(state) for state in writer.load(entity_keys)] == [1] * len(texts)
