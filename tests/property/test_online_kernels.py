"""The kernels of the read path against hiredis and `online.values`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import Value as Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from online.column_kernels import MAX_STAMP_BYTES, NO_KEY, UNANSWERED, splice
from online.columns import Columns, GroupReplies, PlanReplies, read_columns
from online.dumps import check as check_dumps
from online.errors import ValueDecodeError
from online.kernels import FIRST, KIND, STOP
from online.link import Link, Listener
from online.plan import ReadPlan, reads_whole
from online.replies import Replies, merge
from online.values import decode_timestamp, decode_value, encode_timestamp
from online.wire import encode_varint
from tests.property.test_online_values import TYPES, feast_value, same, values
from tests.support.dumps import Pairs, compact_dump, large_dump
from tests.support.resp import Socket, Waiter, bulk, framed, hgetall_reply, hmget_reply

NOW_US = 1_700_000_000_000_000
TTL_S = 60
USER = JoinKey(name="user", value_type=ValueType.INT64)


def features(view: str) -> tuple[Feature, ...]:
    """One feature of each type."""
    return tuple(Feature(name=f"{view}_{value_type.name}", value_type=value_type) for value_type in TYPES)


CATALOG = Catalog(
    project="demo",
    views=(
        View(name="fresh", join_keys=(USER,), features=features("fresh"), ttl_s=TTL_S),
        View(name="lasting", join_keys=(USER,), features=features("lasting")),
        View(name="unread", join_keys=(USER,), features=features("unread")),
    ),
)
ALL = [FeatureRef(view=view, feature=f.name) for view in ("lasting", "fresh") for f in features(view)]
FEW = [ref for ref in ALL if ref.view == "fresh"][:6]

canonical = st.sampled_from(TYPES).flatmap(
    lambda t: values(t).map(lambda v: bytes(feast_value(t, v).SerializeToString()))
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stored value with a few bytes changed, added or cut off."""
    data = bytearray(draw(canonical))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from("cut add set".split())):
            case "cut":
                del data[place : place + draw(st.integers(1, 3))]
            case "add":
                data[place:place] = draw(st.binary(min_size=1, max_size=3))
            case _:
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(data)


stamps = st.one_of(
    st.none(),
    st.sampled_from([0, 1, TTL_S * 10**6 - 1, TTL_S * 10**6, TTL_S * 10**6 + 1]).map(
        lambda age_us: encode_timestamp(NOW_US - age_us)
    ),
    st.integers(-(2**62), 2**62).map(encode_timestamp),
    st.binary(max_size=12),
    st.just(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x7f"),
    st.just(b"\x1a\x00\x08\x05"),
)
cells = st.one_of(st.none(), st.just(b""), canonical, damaged(), st.binary(max_size=12))


def expected(columns: Columns, place: int, stored: bytes | None, stamp: bytes | None) -> tuple[Value, Status]:
    """What `online.values` makes of a cell."""
    if stored is None:
        return None, Status.NOT_FOUND
    try:
        value = decode_value(columns.plan.types[place], stored)
    except ValueDecodeError:
        return None, Status.NOT_FOUND
    ttl_us = int(CATALOG.view_by_name[columns.refs[place].view].ttl_s * 1e6)
    if value is None:
        return None, Status.NULL
    return value, Status.STALE if ttl_us and event_us_of(stamp) < NOW_US - ttl_us else Status.PRESENT


def event_us_of(stamp: bytes | None) -> int:
    """What `online.values` makes of a timestamp."""
    try:
        return decode_timestamp(stamp or b"")
    except ValueDecodeError:
        return 0


def check(columns: Columns, plan: ReadPlan, rows: Sequence[dict[bytes, bytes]]) -> None:
    """Compare every cell with the oracle."""
    (group,) = plan.groups
    slot_of = dict(zip(group.columns[:, 1].tolist(), group.columns[:, 0].tolist(), strict=True))
    stamp_of = dict(zip(group.views[:, 1].tolist(), group.views[:, 0].tolist(), strict=True))
    data, starts = columns.stored
    for place in range(len(plan.refs)):
        field, stamp_field = group.fields[slot_of[place]], group.fields[stamp_of[int(plan.view_of[place])]]
        for row, fields in enumerate(rows):
            stored, stamp = fields.get(field), fields.get(stamp_field)
            value, status = expected(columns, place, stored, stamp)
            assert Status(columns.statuses[place, row]) is status, (plan.refs[place], stored, stamp)
            assert same(columns.values(place)[row], value), (plan.refs[place], stored)
            assert columns.event_us[plan.view_of[place], row] == event_us_of(stamp)
            if status in (Status.PRESENT, Status.STALE):
                start, length = starts[place, row], columns.lengths[place, row]
                assert data[start : start + length].tobytes() == stored
            else:
                assert columns.lengths[place, row] == (0 if status is Status.NULL else -1)
                assert columns.words[place, row] == 0


@st.composite
def whole_replies(draw: st.DrawFn, hashes: Sequence[Pairs]) -> Replies:
    """Replies that bring hashes whole, each in one of the ways that a server may choose."""
    ways = [hgetall_reply, lambda pairs: bulk(compact_dump(pairs)), lambda pairs: bulk(large_dump(pairs))]
    replies = framed(b"".join(draw(st.sampled_from(ways))(pairs) for pairs in hashes))
    assert check_dumps(replies.data, replies.leaves, replies.table) == 0
    return replies


@pytest.mark.parametrize("refs", [ALL, FEW], ids=["whole", "some"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_kernels_read_cells_as_values_does(refs: list[FeatureRef], data: st.DataObject) -> None:
    """Whatever bytes a hash holds, the kernel's values, statuses and times are those of `online.values`."""
    plan = ReadPlan.compile(CATALOG, refs)
    (group,) = plan.groups
    types = dict(zip(group.columns[:, 0].tolist(), group.types, strict=True))
    rows = []
    for _ in range(data.draw(st.integers(1, 3))):
        drawn: dict[bytes, bytes] = {}
        for slot in data.draw(st.permutations(range(len(group.fields)))):
            own = types.get(slot)
            fit = cells if own is None else st.one_of(cells, values(own).map(_stored_as(own)))
            cell = data.draw(fit if own is not None else stamps)
            if cell is not None:
                drawn[group.fields[slot]] = cell
        rows.append(drawn)
    assert group.whole == (refs is ALL)
    if group.whole:
        replies = data.draw(whole_replies([[*row.items(), (b"else", b"x")] for row in rows]))
    else:
        replies = framed(b"".join(hmget_reply([row.get(field) for field in group.fields]) for row in rows))
    found = GroupReplies(group, replies, np.arange(len(rows)))
    check(read_columns(plan, len(rows), [found], NOW_US, None), plan, rows)


STORED = ReadPlan.compile(CATALOG, FEW, as_stored=True)
scalar_types = st.sampled_from([t for t in TYPES if not t.name.endswith("_LIST")])
scalar_cells = scalar_types.flatmap(
    lambda t: values(t).map(lambda v: bytes(feast_value(t, v).SerializeToString()))
)
CODES = np.arange(1, 1 + max(Status) + 1, dtype=np.uint8)
CARRIES = np.isin(np.arange(max(Status) + 1), [Status.PRESENT, Status.STALE]).astype(np.uint8)
plain_cells = st.none() | st.just(b"") | scalar_cells
plain_stamps = st.none() | st.integers(0, 2 * NOW_US).map(encode_timestamp)


@pytest.mark.parametrize("refs", [ALL, FEW], ids=["whole", "some"])
@settings(max_examples=80, deadline=None)
@given(data=st.data(), is_plain=st.booleans())
def test_replies_are_spliced_as_the_columns_that_are_read_of_them(
    refs: list[FeatureRef], data: st.DataObject, *, is_plain: bool
) -> None:
    """In one go or by way of columns: the same bytes, and always in one go where all values are scalars."""
    plan = ReadPlan.compile(CATALOG, refs, as_stored=True)
    (group,) = plan.groups
    slots = set(group.columns[:, 0].tolist())
    chosen = (plain_cells, plain_stamps) if is_plain else (cells, stamps)
    hashes = [
        [data.draw(chosen[slot not in slots]) for slot in range(len(group.fields))]
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    if group.whole:
        pairs = [zip(group.fields, row, strict=True) for row in hashes]
        present = [[(field, cell) for field, cell in row if cell is not None] for row in pairs]
        replies = data.draw(whole_replies(present))
    else:
        replies = framed(b"".join(hmget_reply(row) for row in hashes))
    rows = data.draw(
        st.lists(st.integers(0, len(hashes) - 1) | st.just(NO_KEY) if hashes else st.just(UNANSWERED))
    )
    found = GroupReplies(group, replies, np.array(rows, np.int64))
    answer = PlanReplies(plan, len(rows), [found], NOW_US, None)
    spliced = answer.feature_vectors(CODES, CARRIES)
    assert spliced is not None or not is_plain
    assert spliced in (None, answer.columns().feature_vectors(CODES, CARRIES))


def doubtful(cells: Sequence[bytes]) -> set[int]:
    """Which rows are doubtful, the cells being those of one column."""
    (group,) = STORED.groups
    slot = int(group.columns[0, 0])
    reply = [[cell if place == slot else None for place in range(len(group.fields))] for cell in cells]
    replies = framed(b"".join(map(hmget_reply, reply)))
    found = GroupReplies(group, replies, np.arange(len(cells)))
    return {row for _, row in read_columns(STORED, len(cells), [found], NOW_US, None).doubtful}


@settings(max_examples=300)
@example([b"\x12\x84\x80\x80\x80\x80\x00gold", b"\x0a\x84\x80\x80\x80\x80\x80\x80\x80\x80\x01gold"])
@example([b"\x18" + b"\x80" * 9 + b"\x02", b"\x18" + b"\x80" * 10 + b"\x01"])
@given(st.lists(canonical | damaged() | st.binary(max_size=12), min_size=1, max_size=8))
def test_what_is_not_doubtful_is_a_message(cells: list[bytes]) -> None:
    """Protobuf reads every stored value that the kernel lets pass, whatever the bytes."""
    found = doubtful(cells)
    for row, cell in enumerate(cells):
        if row not in found:
            Message.FromString(cell)


@given(scalar_cells)
def test_scalars_that_protobuf_wrote_are_not_doubtful(cell: bytes) -> None:
    """A scalar of any type is let pass, texts of any language among them."""
    assert doubtful([cell]) == set()


@given(st.binary(max_size=9) | st.text(max_size=9).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_texts_are_let_pass_where_python_reads_them(text: bytes) -> None:
    """The kernel's idea of UTF-8 is Python's."""
    try:
        text.decode()
        readable = True
    except UnicodeDecodeError:
        readable = False
    assert (doubtful([b"\x12" + _sized(text)]) == set()) is readable


TEXTS = [
    None,
    b"",
    *(b"\x12%c%b" % (len(text), text) for text in (b"", b"a", b"gold", b"silver", b"x" * 64, b"y" * 65)),
    b"\x12\x02\xc3\x28",  # no UTF-8
    b"\x12\x84\x00gold",  # a size in two bytes where one would do
    b"\x12\x05gold",  # cut short
    b"\x20\x07",  # a number
    b"\x12\x01b\x12\x04gold",  # twice
    b"\x98\x01\x00",  # null
]


@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS)), min_size=1, max_size=12))
def test_texts_that_come_again_are_read_as_the_first_was(
    stored: list[tuple[bytes | None, bytes | None]],
) -> None:
    """Texts of few values, some of them none, in two columns: cell by cell as `online.values` reads them."""
    plan = ReadPlan.compile(
        CATALOG, [FeatureRef(view=view, feature=f"{view}_STRING") for view in ("fresh", "lasting")]
    )
    (group,) = plan.groups
    assert not group.whole
    fields = [group.fields[slot] for slot in group.columns[:, 0]]
    rows = [
        {field: cell for field, cell in zip(fields, cells, strict=True) if cell is not None}
        for cells in stored
    ]
    replies = framed(b"".join(hmget_reply([row.get(field) for field in group.fields]) for row in rows))
    columns = read_columns(
        plan, len(rows), [GroupReplies(group, replies, np.arange(len(rows)))], NOW_US, None
    )
    check(columns, plan, rows)
    unreadable = sum(cell is not None and _is_unreadable(cell) for cells in stored for cell in cells)
    assert columns.malformed == unreadable


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 127, 128, 20_000]), st.integers(1, 5)), max_size=5),
    st.lists(
        st.integers(-(10**17), 10**17) | st.sampled_from([0, 1, -1, 10**6, 10**6 + 1]), min_size=5, max_size=5
    ),
)
def test_responses_are_those_that_protobuf_writes(cells: list[tuple[int, int]], times: list[int]) -> None:
    """Values as they lie, statuses by their codes and times to the nanosecond, of whatever sizes."""
    data = np.arange(20_100, dtype=np.int64).astype(np.uint8)
    count = len(cells)
    statuses = np.array([[status for _, status in cells], [1] * count], np.uint8)
    lengths = np.array([[size for size, _ in cells], [-1] * count], np.int32).reshape(2, count)
    starts = np.array([[3 * row for row in range(count)], [0] * count], np.int32).reshape(2, count)
    event_us = np.array([times[:count]], np.int64)
    codes = np.array([9, 8, 7, 6, 5, 4], np.uint8)
    carries = np.array([0, 1, 0, 0, 1, 0], np.uint8)
    spare = np.empty(count * MAX_STAMP_BYTES, np.uint8)
    written = splice(
        data, statuses, event_us, starts, lengths, np.zeros(2, np.int64), codes, carries, spare
    ).tobytes()
    vectors = [
        _vector(
            [
                data[start : start + size].tobytes() if carries[status] and size > 0 else b""
                for start, size, status in zip(
                    starts[c].tolist(), lengths[c].tolist(), statuses[c].tolist(), strict=True
                )
            ],
            bytes(codes[statuses[c]]),
            times,
        )
        for c in range(2)
    ]
    assert written == b"".join(b"\x12" + _sized(vector) for vector in vectors)


def _vector(values: list[bytes], statuses: bytes, times: list[int]) -> bytes:
    parts = [b"\x0a" + _sized(value) for value in values]
    parts += [b"\x12" + _sized(statuses)] if statuses else []
    parts += [b"\x1a" + _sized(encode_timestamp(time)) for time in times[: len(values)]]
    return b"".join(parts)


def _sized(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


def _is_unreadable(cell: bytes) -> bool:
    try:
        decode_value(ValueType.STRING, cell)
    except ValueDecodeError:
        return True
    return False


def _stored_as(value_type: ValueType) -> Any:
    return lambda value: bytes(feast_value(value_type, value).SerializeToString())


def test_kernels_tell_missing_keys_errors_and_no_answer_apart() -> None:
    """A row without a key is NOT_FOUND, so is a key of another kind (and counted), and no answer is TIMEOUT."""
    plan = ReadPlan.compile(CATALOG, FEW)
    (group,) = plan.groups
    replies = framed(b"-WRONGTYPE Operation\r\n*1\r\n$1\r\nx\r\n:7\r\n")
    rows = np.array([NO_KEY, 0, UNANSWERED, 1, 2])
    columns = read_columns(plan, 5, [GroupReplies(group, replies, rows)], NOW_US, "late")
    absent, late = Status.NOT_FOUND, Status.TIMEOUT
    assert columns.statuses.tolist() == [[absent, absent, late, absent, absent]] * len(FEW)
    assert columns.malformed == 3 * len(FEW)


@pytest.mark.parametrize(
    ("wanted", "stored", "whole"),
    [
        (1, 11, False),
        (9, 9, True),
        (13, 13, True),
        (20, 33, False),
        (33, 33, True),
        (33, 132, False),
        (66, 132, True),
        (900, 900, False),
    ],
)
def test_plans_read_whole_hashes_where_measured_cheaper(wanted: int, stored: int, whole: bool) -> None:
    """HGETALL pays where most of a compact hash is wanted, HMGET elsewhere."""
    assert reads_whole(wanted, stored) is whole


scalars = st.one_of(
    st.binary(max_size=40).map(lambda data: (b"$%d\r\n%b\r\n" % (len(data), data), data)),
    st.just((b"$-1\r\n", None)),
    st.just((b"_\r\n", None)),
    st.just((b"*-1\r\n", None)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: (b":%d\r\n" % number, b"%d" % number)),
    st.text("abc XYZ", max_size=20).map(lambda text: (b"+%b\r\n" % text.encode(), text.encode())),
)
Drawn = tuple[bytes, list[bytes | None]]


@st.composite
def replies_drawn(draw: st.DrawFn, depth: int = 3) -> Drawn:
    """A reply with the strings in it, in order."""
    if depth == 0 or draw(st.booleans()):
        written, leaf = draw(scalars)
        return written, [leaf]
    items = draw(st.lists(replies_drawn(depth=depth - 1), max_size=4))
    head = (
        b"%%%d\r\n" % (len(items) // 2)
        if draw(st.booleans()) and len(items) % 2 == 0
        else b"*%d\r\n" % len(items)
    )
    return head + b"".join(item[0] for item in items), [leaf for item in items for leaf in item[1]]


def leaves_of(replies: Replies, row: int) -> list[bytes | None]:
    """The strings of one reply."""
    first, stop = replies.table[row, [FIRST, STOP]]
    return [
        None if length < 0 else replies.data[start : start + length].tobytes()
        for start, length in replies.leaves[first:stop].tolist()
    ]


def feed(link: Link, data: bytes) -> None:
    """Receive some bytes."""
    buffer = link.get_buffer(-1)
    buffer[: len(data)] = data
    link.buffer_updated(len(data))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(replies_drawn(), min_size=1, max_size=4), max_size=4),
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.data(),
)
def test_links_frame_replies_however_they_are_cut(
    pipelines: list[list[Drawn]], sizes: list[int], data: st.DataObject
) -> None:
    """Every pipeline gets its own replies, in order, and pushes between them reach the listener."""

    async def run() -> None:
        pushed: list[list[Any]] = []
        link = Link(Listener(lost=lambda *_: None, pushed=pushed.append))
        socket = Socket()
        link.connection_made(socket)
        waiters = [Waiter(len(pipeline)) for pipeline in pipelines]
        written, pushes = b"", 0
        for waiter, pipeline in zip(waiters, pipelines, strict=True):
            link.send(b"", waiter)
            for reply, _ in pipeline:
                if data.draw(st.integers(0, 3)) == 0:
                    pushes += 1
                    written += b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
                written += reply
        place, turn = 0, 0
        while place < len(written):
            size = sizes[turn % len(sizes)]
            feed(link, written[place : place + size])
            place, turn = place + size, turn + 1
        assert not socket.aborted
        for waiter, pipeline in zip(waiters, pipelines, strict=True):
            assert waiter.replies is not None
            assert [leaves_of(waiter.replies, row) for row in range(waiter.count)] == [
                leaves for _, leaves in pipeline
            ]
        assert len(pushed) >= pushes
        assert all(push[1] == [b"k"] for push in pushed)

    asyncio.run(run())


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from(b"$*%>~-+:_\r\n0123456789ab"), max_size=40).map(bytes),
    )
)
@example(b"+\r\r\n")
@example(b"-\n\r\n")
@example(b":\r\n")
@example(b":-0\r\n")
@example(b":9223372036854775808\r\n")
@example(b"#x\r\n")
@example(b",1.\r\n,.5\r\n,1e\r\n,-\r\n,+inf\r\n")
@example(b"_0\r\n")
@example(b"(\r\n")
def test_links_and_hiredis_agree_on_what_is_not_resp(data: bytes) -> None:
    """On any bytes the scanner frames no more than hiredis does, never reads beyond them, and closes on rubbish."""

    async def run() -> None:
        link = Link(Listener(lost=lambda *_: None, pushed=lambda _: None))
        socket = Socket()
        link.connection_made(socket)
        waiters = [Waiter(1) for _ in range(len(data) + 1)]
        for waiter in waiters:
            link.send(b"", waiter)
        feed(link, data)
        framed_count = sum(
            waiter.replies is not None and waiter.replies.table[0, KIND] != ord(">") for waiter in waiters
        )
        theirs = 0
        parser = hiredis.Reader()
        parser.feed(data)
        try:
            while (reply := parser.gets()) is not False:
                theirs += not isinstance(reply, hiredis.PushNotification)
        except (hiredis.ProtocolError, TypeError):
            assert framed_count <= theirs or socket.aborted
            return
        assert framed_count <= theirs

    asyncio.run(run())


@given(st.lists(st.lists(replies_drawn(), min_size=1, max_size=3), min_size=1, max_size=4))
def test_merged_replies_are_those_of_their_parts(parts: list[list[Drawn]]) -> None:
    """Replies of several buffers, put together, still hold the same strings, and so does each taken out."""
    merged = merge([framed(b"".join(reply for reply, _ in part)) for part in parts])
    wanted = [leaves for part in parts for _, leaves in part]
    assert [leaves_of(merged, row) for row in range(len(merged))] == wanted
    assert [leaves_of(merged.one(row), 0) for row in range(len(merged))] == wanted
