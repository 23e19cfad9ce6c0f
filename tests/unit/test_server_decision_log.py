"""The decision log: bounded, flushed in time, merged, found by id."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from decision.frame import Block, Frame, layout_of
from decision.lang.syntax import Ref
from decision.program import Program
from decision.schema import Catalog, DType, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View
from decision.verdicts import Verdicts
from server import decision_files, ids
from server.config import DecisionLogBounds
from server.decision_codec import CUSTOMER_ROW, Decided, frame_from_record, record_to_proto
from server.decision_files import Row, find, merge, write_rows
from server.decision_log import DecisionLog
from server.metrics import Metrics
from waypost.decision.v1 import decision_pb2

VALUES: dict[ValueType, Value] = {
    ValueType.BYTES: b"\x00\xff",
    ValueType.STRING: "é",
    ValueType.INT32: -(2**31),
    ValueType.INT64: 2**63 - 1,
    ValueType.DOUBLE: 0.1,
    ValueType.FLOAT: 0.5,
    ValueType.BOOL: False,
    ValueType.UNIX_TIMESTAMP: 1_767_225_600_000_000,
    ValueType.BYTES_LIST: (b"a", b""),
    ValueType.STRING_LIST: ("a", "b"),
    ValueType.INT32_LIST: (1, 2),
    ValueType.INT64_LIST: (),
    ValueType.DOUBLE_LIST: (1.5,),
    ValueType.FLOAT_LIST: (0.25,),
    ValueType.BOOL_LIST: (True, False),
    ValueType.UNIX_TIMESTAMP_LIST: (0, 1_000_000),
}
KEY = JoinKey(name="id", value_type=ValueType.STRING)
FEATURES = tuple(Feature(name=kind.name.lower(), value_type=kind) for kind in VALUES)
CATALOG = Catalog(project="p", views=(View(name="v", join_keys=(KEY,), features=FEATURES),))


PROGRAM = Program.compile([Ref(name="v.bool", dtype=DType.BOOL)])
VERDICTS = Verdicts(
    ("a", "b"),
    PROGRAM,
    PROGRAM.run({"v.bool": True}, 0).truths,
    PROGRAM,
    PROGRAM.run([{}, {"v.bool": False}], 0).truths,
)


def decided(number: int = 0) -> Decided:
    """A decision on a value of every type, and the same feature missing for an offer."""
    one = len(FEATURES)
    customer = Block.of(
        layout_of(CATALOG, [FeatureRef(view="v", feature=feature.name) for feature in FEATURES]),
        (CUSTOMER_ROW,),
        [[value] for value in VALUES.values()],
        [[Status.PRESENT]] * one,
        [[5]] * one,
    )
    candidates = Block.of(
        layout_of(CATALOG, [FeatureRef(view="v", feature="string")]),
        ("a", "b"),
        [[None, "x"]],
        [[Status.NOT_FOUND, Status.STALE]],
        [[0, 7]],
    )
    return Decided(
        request=decision_pb2.DecideRequest(placement="home", customer_id="c"),
        frame=Frame(customer=customer, candidates=candidates),
        degraded=(),
        bundle_version="b",
        model_version="",
        now_us=1_000 + number,
        seed=number,
        response=decision_pb2.DecideResponse(decision_id=f"id-{number:04}"),
        verdicts=VERDICTS,
    )


def log_in(folder: Path, **bounds: int) -> DecisionLog:
    """A log that writes to a folder."""
    return DecisionLog(folder, DecisionLogBounds(**bounds), Metrics())


def test_a_record_keeps_every_type_of_value() -> None:
    """Values, statuses and times read back from a record are the ones that were decided on."""
    entry = decided()
    again = frame_from_record(record_to_proto(entry, CATALOG), CATALOG)
    for block, kept in ((again.customer, entry.frame.customer), (again.candidates, entry.frame.candidates)):
        assert (block.rows, block.layout.names, block.layout.dtypes) == (
            kept.rows,
            kept.layout.names,
            kept.layout.dtypes,
        )
        assert list(block.values()) == list(kept.values())
        assert block.statuses.tolist() == kept.statuses.tolist()
        assert block.event_us.tolist() == kept.event_us.tolist()
    assert [values[0] for values in again.customer.values()] == list(VALUES.values())


async def test_records_are_on_disk_soon(tmp_path: Path) -> None:
    """What is appended can be found without closing the log."""
    log = log_in(tmp_path)
    log.start()
    log.append(decided(1), CATALOG)
    async with asyncio.timeout(10):
        while find(tmp_path, "id-0001") is None:  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(0.01)
    await log.close()


async def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    """Nothing that was taken in is lost by an orderly end."""
    log = log_in(tmp_path)
    log.start()
    for number in range(300):
        log.append(decided(number), CATALOG)
    await log.close()
    assert pq.read_table(tmp_path, schema=decision_files.SCHEMA).num_rows == 300
    assert find(tmp_path, "id-0299") is not None


async def test_an_overflow_is_counted(tmp_path: Path) -> None:
    """A full queue drops the newest and says how many."""
    log = log_in(tmp_path, queue_records=10)
    for number in range(15):
        log.append(decided(number), CATALOG)
    assert log.lost_count == 5


async def test_large_records_fill_the_queue_sooner(tmp_path: Path) -> None:
    """What waits is bounded by its size too, and there is room again once it is written."""
    log = log_in(tmp_path, queue_mib=1)
    fitting = (1 << 20) // (decided().nbytes + 4_096)
    for number in range(fitting + 3):
        log.append(decided(number), CATALOG)
    assert log.lost_count == 3
    log.start()
    async with asyncio.timeout(10):
        while log.held_bytes:  # noqa: ASYNC110 - what is waited for is a number
            await asyncio.sleep(0.01)
    log.append(decided(9_000), CATALOG)
    await log.close()
    assert (log.lost_count, find(tmp_path, "id-9000") is not None) == (3, True)


async def test_a_failed_write_is_counted_and_the_log_goes_on(tmp_path: Path) -> None:
    """A folder that cannot be written loses its batch, not the log."""
    folder = tmp_path / "decisions"
    folder.write_text("in the way")
    log = log_in(folder)
    log.start()
    log.append(decided(1), CATALOG)
    async with asyncio.timeout(10):
        while not log.lost_count:  # noqa: ASYNC110 - what is waited for is a count
            await asyncio.sleep(0.01)
    folder.unlink()
    log.append(decided(2), CATALOG)
    await log.close()
    assert (log.lost_count, find(folder, "id-0002") is not None) == (1, True)


def rows(count: int) -> list[Row]:
    """Rows of one record each."""
    return [
        Row(
            decision_id=f"id-{number:04}",
            decided_at_us=number,
            placement="home",
            customer_id="c",
            bundle_version="b",
            model_version="",
            degraded=("fallback",),
            record=decision_pb2.DecisionRecord(seed=number).SerializeToString(),
        )
        for number in range(count)
    ]


def test_small_files_are_merged_and_nothing_is_lost(tmp_path: Path) -> None:
    """Many flushes end in few files that hold every record."""
    for row in rows(20):
        write_rows(tmp_path, [row])
        merge(tmp_path, 4)
    files = list(tmp_path.glob("*.parquet"))
    assert len(files) < 8
    assert pq.read_table(files, schema=decision_files.SCHEMA).num_rows == 20
    assert [find(tmp_path, f"id-{n:04}") for n in range(20)] == [
        decision_pb2.DecisionRecord(seed=n) for n in range(20)
    ]


def test_an_unfinished_file_is_not_read(tmp_path: Path) -> None:
    """A crash before the rename leaves a file that readers pass over."""
    path = write_rows(tmp_path, rows(1))
    (tmp_path / f".{path.name}.part").write_bytes(path.read_bytes()[:10])
    assert find(tmp_path, "id-0000") is not None
    assert find(tmp_path, "id-9999") is None


def test_a_repeat_after_a_crash_in_a_merge_is_dropped(tmp_path: Path) -> None:
    """A record that is in a merged file and in its source is found once."""
    source = write_rows(tmp_path, rows(3))
    (tmp_path / source.name.replace("L0", "L1")).write_bytes(source.read_bytes())
    found = find(tmp_path, "id-0002")
    assert found is not None
    assert found.seed == 2


def test_times_are_microseconds(tmp_path: Path) -> None:
    """Parquet keeps `decided_at` to the microsecond, in UTC."""
    table = pq.read_table(write_rows(tmp_path, rows(2)))
    assert str(table.schema.field("decided_at").type) == "timestamp[us, tz=UTC]"


@pytest.mark.parametrize("random", [bytes(10), b"\xff" * 10, bytes(range(10))])
def test_decision_ids_are_uuids_of_version_7(random: bytes) -> None:
    """An id says its millisecond and is a well-formed UUID."""
    text = ids.decision_id(1_767_225_600_123_456, random)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, parsed.int >> 80) == (7, uuid.RFC_4122, 1_767_225_600_123)


def test_decision_ids_use_all_random_bits() -> None:
    """Ids differ in 74 bits of the random bytes."""
    bits = [1 << n for n in range(80)]
    made = {ids.decision_id(0, bit.to_bytes(10, "big")) for bit in bits}
    assert len(made) == 75  # the 74 bits that are used, and one id for the six that are not
