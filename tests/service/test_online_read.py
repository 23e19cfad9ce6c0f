from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.channel import QUIET_TURNS
from online.company import LONELY
from online.errors import KeyEncodingError, PlanError, ReadTooLargeError
from online.keys import EntityKeys, feature_field, timestamp_field
from online.read import Columns, OnlineReader, ReadPlan
from online.store import connect, open_topology
from online.values import encode_value
from online.write import RowWrite, RowWriter
from tests.support.valkey import start_valkey

USER = JoinKey(name="user_id", value_type=ValueType.INT64)
ITEM = JoinKey(name="item", value_type=ValueType.STRING)
INT = ValueType.INT64
NOW_US = 1_700_000_000_000_000
CATALOG = Catalog(
    project="demo",
    views=(
        View(
            name="profile",
            join_keys=(USER,),
            features=(Feature(name="age", value_type=INT), Feature(name="name", value_type=ValueType.STRING)),
        ),
        View(name="session", join_keys=(USER,), features=(Feature(name="clicks", value_type=INT),), ttl_s=60),
        View(
            name="affinity",
            join_keys=(USER, ITEM),
            features=(Feature(name="score", value_type=ValueType.DOUBLE),),
        ),
        View(name="shop", join_keys=(), features=(Feature(name="open", value_type=ValueType.BOOL),)),
        View(
            name="computed", join_keys=(USER,), features=(Feature(name="x", value_type=INT),), on_demand=True
        ),
    ),
)
Row = dict[str, Value]


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


@pytest_asyncio.fixture
async def reader(url: str) -> AsyncIterator[OnlineReader]:
    """A reader, closed afterwards."""
    made = OnlineReader(open_topology(url))
    yield made
    await made.aclose()


def key(view: str, row: Row) -> bytes:
    """Encode the key of a row for a view."""
    return EntityKeys("demo", CATALOG.view_by_name[view].join_keys).encode(row)


def put(client: Any, view: str, row: Row, event_us: int = NOW_US, **values: Value) -> None:
    """Store values of one view."""
    features = CATALOG.view_by_name[view].feature_by_name
    encoded = {
        feature_field(view, name): encode_value(features[name].value_type, v) for name, v in values.items()
    }
    RowWriter(client).apply([RowWrite(key=key(view, row), view=view, values=encoded, event_us=event_us)])


def values(columns: Columns) -> list[list[Value]]:
    """All values, column by column."""
    return [columns.values(place) for place in range(len(columns.refs))]


def commands_sent(client: Any) -> int:
    """How many reads of hashes the server has seen."""
    stats = client.info("commandstats")
    return sum(
        stats.get(name, {}).get("calls", 0) for name in ("cmdstat_hmget", "cmdstat_hgetall", "cmdstat_dump")
    )


def plan(*names: str) -> ReadPlan:
    """Compile a plan from `view.feature` names."""
    refs = [FeatureRef(view=name.split(".")[0], feature=name.split(".")[1]) for name in names]
    return ReadPlan.compile(CATALOG, refs)


async def test_reads_span_views_and_entities_in_one_round_trip(client: Any, reader: OnlineReader) -> None:
    """Features of three join-key sets come back in the order asked for, in one pipeline."""
    put(client, "profile", {"user_id": 1}, age=30, name="Ann")
    put(client, "session", {"user_id": 1}, clicks=4)
    put(client, "affinity", {"user_id": 1, "item": "tea"}, score=0.5)
    put(client, "shop", {}, open=True)
    wanted = plan("affinity.score", "shop.open", "profile.name", "session.clicks", "profile.age")
    (columns,) = await reader.fetch([(wanted, [{"user_id": 1, "item": "tea", "unused": 2.5}])], NOW_US)
    assert values(columns) == [[0.5], [True], ["Ann"], [4], [30]]
    assert columns.statuses.tolist() == [[Status.PRESENT]] * 5
    assert columns.event_us.tolist() == [[NOW_US]] * 4
    assert (columns.error, columns.malformed, reader.round_trips) == (None, 0, 1)
    assert len(wanted.groups) == 3


async def test_a_read_that_expects_no_company_is_not_held(client: Any, reader: OnlineReader) -> None:
    """The first read waits for turns of an idle loop before it leaves, one behind many that were alone does not."""
    put(client, "profile", {"user_id": 1}, age=30)
    request = [(plan("profile.age"), [{"user_id": 1}])]

    async def turns_before_it_leaves() -> int:
        sent, turns = reader.round_trips, 0
        read = asyncio.create_task(reader.fetch(request, NOW_US))
        while reader.round_trips == sent:
            await asyncio.sleep(0)
            turns += 1
        await read
        return turns

    await reader.fetch(request, NOW_US)
    assert await turns_before_it_leaves() >= QUIET_TURNS
    for _ in range(LONELY):
        await reader.fetch(request, NOW_US)
    assert await turns_before_it_leaves() < QUIET_TURNS / 2


async def test_reads_say_what_is_known_of_each_value(client: Any, reader: OnlineReader) -> None:
    """Absent, null, expired and fresh values have each their status, and only the last two a value."""
    put(client, "profile", {"user_id": 1}, age=None)
    put(client, "session", {"user_id": 1}, NOW_US - 60_000_000, clicks=1)
    put(client, "session", {"user_id": 2}, NOW_US - 60_000_001, clicks=2)
    put(client, "session", {"user_id": 3}, 0, clicks=None)
    rows: list[Row] = [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}, {"user_id": 4}, {"user_id": None}, {}]
    (columns,) = await reader.fetch([(plan("profile.age", "profile.name", "session.clicks"), rows)], NOW_US)
    absent = [Status.NOT_FOUND] * 3
    assert columns.statuses[0].tolist() == [Status.NULL, Status.NOT_FOUND, Status.NOT_FOUND, *absent]
    assert columns.statuses[1].tolist() == [Status.NOT_FOUND] * 6
    assert columns.statuses[2].tolist() == [Status.PRESENT, Status.STALE, Status.NULL, *absent]
    assert columns.values(2) == [1, 2, None, None, None, None]
    assert columns.event_us[1].tolist() == [NOW_US - 60_000_000, NOW_US - 60_000_001, 0, 0, 0, 0]


async def test_reads_without_a_timestamp_are_of_unknown_age(client: Any, reader: OnlineReader) -> None:
    """A value whose view has no event time is stale where a TTL says so, and present where none does."""
    client.hset(key("session", {"user_id": 1}), feature_field("session", "clicks"), b"\x20\x07")
    client.hset(key("profile", {"user_id": 1}), feature_field("profile", "age"), b"\x20\x08")
    (columns,) = await reader.fetch([(plan("session.clicks", "profile.age"), [{"user_id": 1}])], NOW_US)
    assert columns.statuses.tolist() == [[Status.STALE], [Status.PRESENT]]
    assert values(columns) == [[7], [8]]


async def test_reads_of_rubbish_are_counted_not_raised(client: Any, reader: OnlineReader) -> None:
    """Damaged bytes, another type's bytes and a key of another kind are NOT_FOUND and counted."""
    put(client, "profile", {"user_id": 1}, age=1, name="Ann")
    client.hset(key("profile", {"user_id": 1}), feature_field("profile", "age"), b"\x20\xff")
    client.hset(key("profile", {"user_id": 2}), feature_field("profile", "age"), b"\x12\x01x")
    client.hset(key("profile", {"user_id": 2}), timestamp_field("profile"), b"\xff")
    client.set(key("profile", {"user_id": 3}), b"a string")
    rows: list[Row] = [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}]
    (columns,) = await reader.fetch([(plan("profile.age", "profile.name"), rows)], NOW_US)
    assert columns.statuses.tolist() == [
        [Status.NOT_FOUND] * 3,
        [Status.PRESENT, Status.NOT_FOUND, Status.NOT_FOUND],
    ]
    assert values(columns) == [[None] * 3, ["Ann", None, None]]
    assert (columns.malformed, columns.error) == (1 + 2 + 2, None)


async def test_reads_ask_for_each_entity_once(client: Any, reader: OnlineReader) -> None:
    """Rows and requests that share an entity share its command; each row still gets its cells."""
    put(client, "profile", {"user_id": 1}, age=30)
    put(client, "profile", {"user_id": 2}, age=40)
    before = commands_sent(client)
    wanted = plan("profile.age")
    rows: list[Row] = [{"user_id": 1}, {"user_id": 2}, {}, {"user_id": 1}]
    first, second = await reader.fetch([(wanted, rows), (wanted, rows[:1])], NOW_US)
    assert values(first) == [[30, 40, None, 30]]
    assert values(second) == [[30]]
    assert commands_sent(client) - before == 2


async def test_reads_of_nothing_send_nothing(reader: OnlineReader) -> None:
    """No rows, no features and rows without keys are answered without the store."""
    columns = await reader.fetch(
        [(plan("profile.age"), []), (plan(), [{}]), (plan("profile.age"), [{}])], NOW_US
    )
    assert [answer.statuses.tolist() for answer in columns] == [[[]], [], [[Status.NOT_FOUND]]]
    assert reader.round_trips == 0


async def test_reads_refuse_bad_keys_and_too_many(reader: OnlineReader) -> None:
    """A join key of the wrong type is the caller's error, and the number of entities has a bound."""
    with pytest.raises(KeyEncodingError, match="'user_id'"):
        await reader.fetch([(plan("profile.age"), [{"user_id": "seven"}])], NOW_US)
    with pytest.raises(ReadTooLargeError):
        await reader.fetch([(plan("profile.age"), [{"user_id": number} for number in range(10_001)])], NOW_US)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.age", "no feature view 'nothing'"),
        ("profile.size", "no feature 'size'"),
        ("computed.x", "on demand"),
    ],
)
def test_plans_refuse_what_cannot_be_read(name: str, message: str) -> None:
    """Unknown and on-demand features fail when the plan is compiled."""
    with pytest.raises(PlanError, match=message):
        plan(name)


def test_plans_refuse_two_features_of_one_hash_field() -> None:
    """Feast's 32-bit field hash can collide; reading one feature's bytes as another's is refused."""
    features = (Feature(name="f37660", value_type=INT), Feature(name="f43618", value_type=INT))
    view = View(name="v", join_keys=(USER,), features=features)
    catalog = Catalog(project="demo", views=(view,))
    refs = [FeatureRef(view="v", feature=feature.name) for feature in features]
    assert feature_field("v", features[0].name) == feature_field("v", features[1].name)
    with pytest.raises(PlanError, match="same field"):
        ReadPlan.compile(catalog, refs)
