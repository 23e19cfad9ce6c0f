"""Segments from the event to the client: membership follows time and dwells, and changes are followed over gRPC."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
import redis.asyncio
from typer.testing import CliRunner

from online.store import connect
from server.bundles import repo_policy
from server.cli import app
from server.config import Settings
from server.materialize import partition_materializer
from server.repo import load_repo
from server.stream_plans import stream_plan
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from streaming.lease import Leases
from streaming.materializer import Materializer
from streaming.redis_log import RedisLog
from tests.support.clinic import Clinic, clinic_repo, have_profile_pushed, refusal, run_clinic
from tests.support.stream_world import drain
from tests.support.valkey import start_valkey
from waypost.segments.v1 import segments_pb2, segments_pb2_grpc

ROOT = Path(__file__).parents[2]
START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000


class Stream:
    """A repo's materializer of the only partition, and a log to feed it."""

    def __init__(self, repo: Path, folder: Path, url: str) -> None:
        settings = Settings(repo=repo, data_dir=folder, redis_url=url, partitions=1, clock="virtual")  # type: ignore[arg-type]
        self.url, self._repo = url, load_repo(repo)
        self._client = connect(url)
        self.project = self._repo.catalog.project
        lease = Leases(self._client, self.project, "test", 60_000).acquire(0)
        assert lease is not None
        plan = stream_plan(self._repo, repo_policy(self._repo))
        self.materializer: Materializer = partition_materializer(
            settings, self._repo, plan, self._client, lease
        )
        self.materializer.start()

    def at(self, now_us: int, *events: EventRecord) -> None:
        """Publish events at a time, or none, and let the materializer come up with it."""

        async def run() -> None:
            client = redis.asyncio.Redis.from_url(self.url)
            log = RedisLog(client, self.project, 1, 1_000_000)
            if events:
                await log.append(events, now_us)
            await log.tick(now_us)
            await client.aclose()

        asyncio.run(run())
        drain(self.materializer)

    def changes(self, segment: str) -> list[tuple[bool, int]]:
        """Entries and exits of one segment, with their times."""
        entries: Any = self._client.xrange(PartitionKeys(self.project, 0).changes)
        return [
            (fields[b"entered"] == b"1", int(fields[b"at_us"]))
            for _, fields in entries
            if fields[b"segment"].decode() == segment
        ]

    def close(self) -> None:
        """Give up the connection."""
        self._client.close()


def _visit(number: int, at_us: int, patient: str = "7") -> EventRecord:
    return EventRecord(f"v{number}", "visit", patient, at_us, {"department": "eyes", "fee": 10.0})


@pytest.fixture
def empty(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


def test_abandoned_cart_fires_after_thirty_minutes_once(empty: str, tmp_path: Path) -> None:
    """Put into the cart and not bought: not before thirty minutes, exactly then, not again; a purchase ends it."""
    stream = Stream(ROOT / "feature_repo", tmp_path, empty)
    cart = EventRecord("c1", "add_to_cart", "17", START_US, {"product_category": "MILK", "sales_value": 3.5})
    stream.at(START_US, cart)
    stream.at(START_US + 30 * MINUTE_US - 1)
    assert stream.changes("cart_abandoner") == []
    stream.at(START_US + 30 * MINUTE_US + 1)
    (entry,) = stream.changes("cart_abandoner")
    assert entry == (True, START_US + 30 * MINUTE_US + 1)
    for minute in range(32, 40):
        stream.at(START_US + minute * MINUTE_US)
    bought = EventRecord(
        "p1",
        "purchase",
        "17",
        START_US + 50 * MINUTE_US,
        {"basket_id": "b", "sales_value": 3.5, "basket_first": True, "basket_total": 3.5},
    )
    stream.at(START_US + 50 * MINUTE_US, bought)
    stream.at(START_US + 120 * MINUTE_US)
    assert stream.changes("cart_abandoner") == [entry, (False, START_US + 50 * MINUTE_US)]
    stream.close()


def test_segment_stays_for_its_minimum_dwell(empty: str, tmp_path: Path) -> None:
    """Entered and left only as often as the dwell allows, and then looked at again without an event."""
    repo = clinic_repo(tmp_path, "segment regular at least 20 days: visits.visit_count_30d = 1")
    stream = Stream(repo, tmp_path / "data", empty)
    stream.at(START_US, _visit(1, START_US))
    stream.at(START_US + DAY_US, _visit(2, START_US + DAY_US))
    stream.at(START_US + 19 * DAY_US)
    assert stream.changes("regular") == [(True, START_US)], "two visits, but inside the dwell"
    stream.at(START_US + 20 * DAY_US)
    assert stream.changes("regular")[1:] == [(False, START_US + 20 * DAY_US)]
    stream.at(START_US + 30 * DAY_US + 2 * 3_600_000_000)
    assert len(stream.changes("regular")) == 2, "one visit is left in the window, but the exit dwells too"
    stream.at(START_US + 39 * DAY_US)
    assert len(stream.changes("regular")) == 2
    stream.close()


def test_dwell_ends_by_itself_after_an_exit(empty: str, tmp_path: Path) -> None:
    """A condition that came true within the dwell of an exit is taken up when that ends, though nothing arrives."""
    repo = clinic_repo(tmp_path, "segment regular at least 5 days: visits.visit_count_30d != 2")
    stream = Stream(repo, tmp_path / "data", empty)
    stream.at(START_US, _visit(1, START_US))
    stream.at(START_US + 6 * DAY_US, _visit(2, START_US + 6 * DAY_US))
    stream.at(START_US + 7 * DAY_US, _visit(3, START_US + 7 * DAY_US))
    assert stream.changes("regular") == [(True, START_US), (False, START_US + 6 * DAY_US)]
    stream.at(START_US + 11 * DAY_US)
    assert stream.changes("regular")[2:] == [(True, START_US + 11 * DAY_US)]
    stream.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clinic, Stream]]:
    """A server of the clinic and its materializer, on a store of their own."""
    folder = tmp_path_factory.mktemp("served")
    with start_valkey(folder / "valkey") as url:
        repo = clinic_repo(folder / "clinic", "segment regular: visits.visit_count_30d >= 2")
        stream = Stream(repo, folder / "stream", url)
        with run_clinic(folder / "clinic", url, clock="virtual", partitions=1) as clinic:
            yield clinic, stream
        stream.close()


def test_a_push_moves_segments_without_an_event(empty: str, tmp_path: Path) -> None:
    """What segments read of a pushed view counts at once: for known and new ones, in and out, each change once."""
    repo = clinic_repo(tmp_path, "segment regular: visits.visit_count_30d >= 2 OR profile.age_years > 90")
    have_profile_pushed(repo)
    stream = Stream(repo, tmp_path / "stream", empty)
    stream.at(START_US, _visit(1, START_US, "7"))
    with run_clinic(tmp_path, empty, clock="virtual", partitions=1) as clinic:
        live = _watch(clinic)
        next(live)
        before = clinic.log_length()
        for at_us, age in ((START_US + 1, 91), (START_US + 2, 30), (START_US + 3, 30)):
            clinic.push(at_us, {"patient_id": [7, 8], "age_years": [age, age]})
            stream.at(at_us)
        assert clinic.log_length() == before + 9, "a touch of each, and the ticks of this test"
        seen: list[tuple[int, bool, int]] = []
        while len(seen) < 4:
            seen += [
                (c.keys["patient_id"].int64_value, c.entered, c.time.nanos // 1000)
                for c in next(live).changes
            ]
        live.cancel()
        assert sorted(seen) == [(7, False, 2), (7, True, 1), (8, False, 2), (8, True, 1)]
        assert len(stream.changes("regular")) == 4
        with pytest.raises(urllib.error.HTTPError) as error:
            clinic.push(START_US, {"patient_id": [7]}, source="visits_push")
        assert b"is computed by windows over events" in error.value.read()
        error.value.close()
    stream.close()


def _watch(clinic: Clinic, position: str = "", segments: Sequence[str] = ()) -> Any:
    stub = segments_pb2_grpc.SegmentServiceStub(clinic.channel)
    request = segments_pb2.WatchSegmentsRequest(segments=segments, position=position)
    return stub.WatchSegments(request, timeout=60)


def _entered(stream: Stream, patient: int, at_us: int) -> None:
    stream.at(at_us, *(_visit(patient * 10 + n, at_us, str(patient)) for n in range(2)))


def test_watch_sends_changes_as_they_happen_and_resumes(served: tuple[Clinic, Stream]) -> None:
    """A client sees each change once, in order; resumed from a position, it sees what lies behind that and no more."""
    clinic, stream = served
    live = _watch(clinic, segments=["regular"])
    begun = next(live).position
    _entered(stream, 100, START_US)
    (first,) = next(live).changes
    assert (first.segment, first.entered, first.keys["patient_id"].int64_value) == ("regular", True, 100)
    assert first.time.seconds * 1_000_000 == START_US
    _entered(stream, 101, START_US + 1)
    answer = next(live)
    live.cancel()
    assert [change.keys["patient_id"].int64_value for change in answer.changes] == [101]
    again = _watch(clinic, begun)
    next(again)
    seen: list[str] = []
    while len(seen) < 2:
        seen += [change.id for change in next(again).changes]
    again.cancel()
    assert seen == [first.id, answer.changes[0].id]
    oldest = _watch(clinic, "0")
    next(oldest)
    assert next(oldest).changes[0].id == first.id
    oldest.cancel()


def test_watch_on_the_command_line(served: tuple[Clinic, Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    """`waypost watch` prints a line for each change, or JSON with the position to resume from."""
    monkeypatch.setenv("COLUMNS", "200")
    clinic, stream = served
    _entered(stream, 400, START_US + 400)
    command = ["watch", "regular", "--from", "0", "--count", "1", "--target", clinic.addresses.grpc]
    shown = CliRunner().invoke(app, command)
    assert (shown.exit_code, "enters regular  patient_id=" in shown.stdout) == (0, True)
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (found["segment"], found["entered"]) == ("regular", True)
    assert found["position"]
    assert CliRunner().invoke(app, ["watch", "regluar", "--target", clinic.addresses.grpc]).exit_code == 1


def test_watch_by_many_clients_at_once(served: tuple[Clinic, Stream]) -> None:
    """Each of many clients gets every change, and one that does not read holds up none of the others."""
    clinic, stream = served
    idle = _watch(clinic)
    next(idle)
    found: dict[int, list[str]] = {}
    begun = threading.Barrier(9)

    def follow(number: int) -> None:
        live = _watch(clinic)
        next(live)
        begun.wait(30)
        ids: list[str] = []
        while len(ids) < 5:
            ids += [change.id for change in next(live).changes]
        live.cancel()
        found[number] = ids

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    begun.wait(30)
    for patient in range(200, 205):
        _entered(stream, patient, START_US + patient)
    for thread in threads:
        thread.join(60)
    idle.cancel()
    assert len(found) == 8
    assert len({json.dumps(ids) for ids in found.values()}) == 1


def test_watch_refuses_what_cannot_be_resumed(served: tuple[Clinic, Stream]) -> None:
    """A malformed position and an unknown segment are named; one that is trimmed is told so, with where to go on."""
    clinic, stream = served
    with pytest.raises(grpc.RpcError) as error:
        next(_watch(clinic, "yesterday"))
    assert refusal(error.value).fields == ["position"]
    with pytest.raises(grpc.RpcError) as error:
        next(_watch(clinic, segments=["regluar"]))
    assert refusal(error.value).info.reason == "UNKNOWN_SEGMENT"
    _entered(stream, 300, START_US + 300)
    _entered(stream, 301, START_US + 301)
    with connect(clinic.url) as client:
        client.xtrim(PartitionKeys(stream.project, 0).changes, maxlen=1, approximate=False)
    gone = _watch(clinic, "1-0")
    with pytest.raises(grpc.RpcError) as error:
        list(gone)
    told = refusal(error.value)
    assert (told.code, told.info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_TRIMMED")
    resumed = told.message.rpartition(" ")[2]
    live = _watch(clinic, resumed)
    assert next(live).position == resumed
    _entered(stream, 302, START_US + 302)
    assert [c.keys["patient_id"].int64_value for c in next(live).changes] == [302]
    live.cancel()
