"""A repo whose views change under real materializers, killed anywhere in the build, with events coming in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import redis

from streaming.keys import views_key
from tests.support.materializers import PROJECT, START_US, Site, freeze, thaw, visits
from tests.support.stores import run_cluster

END_US = START_US + 100 * 86_400_000_000
ARRIVALS = visits(240)

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CHANGED = (
    # another window, another function, another transformation, and a view more
    ('time_window=timedelta(days=90), name="fees_90d"', 'time_window=timedelta(days=2), name="fees_90d"'),
    ('"event_type"] == "visit"]', '"event_type"] == "visit"].loc[lambda rows: rows["fee"] > 11]'),
    (
        "groups = FeatureView(",
        """patient_fees = StreamFeatureView(
    name="patient_fees",
    entities=[patient],
    schema=[Field(name="largest", dtype=Float64)],
    source=PushSource(name="patient_fees_push", batch_source=parquet("patient_fees")),
    aggregations=[Aggregation(column="fee", function="max", time_window=timedelta(days=1), name="largest")],
    timestamp_field="event_time",
    enable_tiling=True,
    tiling_hop_size=timedelta(hours=1),
    mode="pandas",
    udf=as_visits,
    udf_string="as_visits",
)

groups = FeatureView(""",
    ),
)


def _change(site: Site) -> None:
    views = site.repo / "views.py"
    text = views.read_text()
    for old, new in CHANGED:
        assert old in text
        text = text.replace(old, new)
    views.write_text(text)


def _table(site: Site) -> dict[str, str]:
    with site.client() as client:
        stored: Any = client.hgetall(views_key(PROJECT))
    return {name.decode(): value.decode() for name, value in stored.items()}


def _is_built(site: Site, views: int = 3) -> bool:
    table = _table(site)
    digests = [value for name, value in table.items() if name.startswith("digest:")]
    return len(digests) == views and all(digests) and not any(n.startswith("unfinished:") for n in table)


def _values(site: Site) -> dict[bytes, dict[bytes, bytes]]:
    """All but when membership last changed: a segment is evaluated anew once its views have."""
    found = site.features()
    return {key: {f: v for f, v in fields.items() if f != b"_ts:groups"} for key, fields in found.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, url: str) -> dict[bytes, dict[bytes, bytes]]:
    """What a store holds that had the changed repo from the beginning."""
    site = Site(tmp_path_factory.mktemp("fresh"), url, partition_count=2)
    _change(site)
    site.publish(ARRIVALS)
    site.tick(END_US)
    site.apply_here()
    return _values(site)


@pytest.fixture
def empty(url: str, expected: dict[bytes, dict[bytes, bytes]]) -> str:
    """The store without what was found for comparison, or by the test before."""
    assert len(expected) > 8
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


def _offline(site: Site, view: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        ds.dataset(sorted((site.repo / "data" / view).glob("*.parquet")), format="parquet")
        .to_table()
        .to_pylist()
    )
    return rows


def _begin(site: Site) -> None:
    """Have the views as they are first hold a part of the events."""
    site.start()
    site.publish(ARRIVALS[:150])
    site.wait(lambda: site.applied() == 150, "the first part")
    site.stop()


@pytest.mark.parametrize(
    "stage",
    [
        "writing",
        *(pytest.param(stage, marks=pytest.mark.soak) for stage in ("", "past", "following", "switched")),
    ],
)
def test_changed_views_are_built_whatever_dies(
    tmp_path: Path, empty: str, expected: dict[bytes, dict[bytes, bytes]], stage: str
) -> None:
    """The old values are served until the new ones are whole, and those are what they would be from the beginning."""
    site = Site(tmp_path / "site", empty, partition_count=2, lease_ms=600, checkpoint_interval_s=0.2)
    try:
        _begin(site)
        before = _values(site)
        _change(site)
        process = site.start()
        if stage:
            site.wait(lambda: _at(site, stage), f"the stage {stage!r}")
            process.kill()
            process.wait()
            if stage != "switched" and not _table(site).get("unfinished:visits"):
                assert _values(site) == before
                assert stage != "writing" or any((site.repo / "data" / "visits").glob(".build-*/*.parquet"))
            site.start()
        site.publish(ARRIVALS[150:200])
        site.wait(lambda: _is_built(site), "the views")
        site.publish(ARRIVALS[200:])
        site.tick(END_US)
        site.wait(lambda: site.applied() == site.appended(), "everything")
        site.wait(lambda: _values(site) == expected, "what the changed repo gives from the beginning")
    finally:
        site.stop()
    rows = _offline(site, "patient_fees")
    assert min(row["event_timestamp"].timestamp() for row in rows) < START_US / 1e6 + 10 * 3600
    assert len({str(row) for row in rows}) == len(rows)
    assert any((site.repo / "data" / "visits").glob("superseded-*/*.parquet"))
    assert not any((site.repo / "data").glob("*/.build-*"))
    assert sum(len(site.archived(number)) for number in range(2)) == 240


def _at(site: Site, stage: str) -> bool:
    """Whether a build is there, or beyond: stages are short."""
    table = _table(site)
    if any(name.startswith("unfinished:") for name in table) or _is_built(site):
        return True
    return str(json.loads(table.get("progress", '{"stage": ""}'))["stage"]).startswith(stage)


def test_several_materializers_build_once_and_follow(
    tmp_path: Path, empty: str, expected: dict[bytes, dict[bytes, bytes]]
) -> None:
    """Three share four partitions, and stand still together; a partition whose owner dies meanwhile joins them."""
    site = Site(tmp_path / "site", empty, partition_count=4, lease_ms=600, checkpoint_interval_s=0.2)
    try:
        _begin(site)
        _change(site)
        processes = [site.start() for _ in range(3)]
        site.wait(lambda: len(site.shares()) == 3 or _is_built(site), "a share for each")
        processes[1].kill()
        processes[1].wait()
        site.publish(ARRIVALS[150:])
        site.wait(lambda: _is_built(site), "the views")
        site.tick(END_US)
        site.wait(lambda: site.applied() == site.appended(), "everything")
        site.wait(lambda: _values(site) == expected, "what the changed repo gives from the beginning")
    finally:
        site.stop()
    assert site.log.read_text().count("view.switched") == 1


@pytest.mark.parametrize("stage", ["writing", pytest.param("past", marks=pytest.mark.soak)])
def test_a_builder_that_stood_still_leaves_alone_what_another_built(
    tmp_path: Path, empty: str, expected: dict[bytes, dict[bytes, bytes]], stage: str
) -> None:
    """Frozen in its build, it wakes when another has built the views, switched to them and finished."""
    site = Site(tmp_path / "site", empty, partition_count=2, lease_ms=600, checkpoint_interval_s=0.2)
    try:
        _begin(site)
        _change(site)
        asleep = site.start()
        site.wait(lambda: _at(site, stage), f"the stage {stage!r}")
        freeze(asleep)
        site.start()
        site.publish(ARRIVALS[150:200])
        site.wait(lambda: _is_built(site), "the views")
        serving = {name: value for name, value in _table(site).items() if name.startswith("generation:")}
        thaw(asleep)
        site.wait(lambda: asleep.pid in site.shares(), "it has a share again")
        site.publish(ARRIVALS[200:])
        site.tick(END_US)
        site.wait(lambda: site.applied() == site.appended(), "everything")
        site.wait(lambda: _values(site) == expected, "what the changed repo gives from the beginning")
        assert serving.items() <= _table(site).items()
    finally:
        site.stop()
    rows = _offline(site, "patient_fees")
    assert len({str(row) for row in rows}) == len(rows) > 0
    assert not any((site.repo / "data").glob("*/.build-*"))
    assert sum(len(site.archived(number)) for number in range(2)) == 240


def test_a_process_of_the_repo_before_stays_out(
    tmp_path: Path, empty: str, expected: dict[bytes, dict[bytes, bytes]]
) -> None:
    """Restarted where the new repo has not arrived, it says so and ends; the new views go on as if it had not come."""
    site = Site(tmp_path / "site", empty, partition_count=2, lease_ms=600, checkpoint_interval_s=0.2)
    try:
        _begin(site)
        shutil.copytree(site.repo, tmp_path / "before")
        _change(site)
        site.start()
        site.publish(ARRIVALS[150:200])
        site.wait(lambda: _is_built(site), "the views")
        table = _table(site)
        old = site.start(tmp_path / "before")
        assert old.wait(60) == 1
        assert "runs with newer definitions of stream views" in site.said()
        assert _table(site) == table
        site.publish(ARRIVALS[200:])
        site.tick(END_US)
        site.wait(lambda: site.applied() == site.appended(), "everything")
        site.wait(lambda: _values(site) == expected, "what the changed repo gives from the beginning")
    finally:
        site.stop()


def test_changed_views_are_built_on_a_cluster(
    tmp_path: Path, expected: dict[bytes, dict[bytes, bytes]]
) -> None:
    """Its entities, partitions and definitions lie on three masters; one of two materializers dies in the build."""
    with run_cluster(tmp_path / "cluster") as cluster:
        site = Site(
            tmp_path / "site", cluster.url, partition_count=2, lease_ms=600, checkpoint_interval_s=0.2
        )
        try:
            _begin(site)
            _change(site)
            builder = site.start()
            site.wait(lambda: _at(site, "writing"), "the build writes")
            builder.kill()
            builder.wait()
            site.start()
            site.start()
            site.publish(ARRIVALS[150:200])
            site.wait(lambda: _is_built(site), "the views")
            site.publish(ARRIVALS[200:])
            site.tick(END_US)
            site.wait(lambda: site.applied() == site.appended(), "everything")
            site.wait(lambda: _values(site) == expected, "what the changed repo gives from the beginning")
            assert all(any(True for _ in node.scan_iter(match=b"{*")) for node in cluster.clients)
        finally:
            site.stop()
    assert any((site.repo / "data" / "visits").glob("superseded-*/*.parquet"))
    assert not any((site.repo / "data").glob("*/.build-*"))
    rows = _offline(site, "patient_fees")
    assert len({str(row) for row in rows}) == len(rows) > 0
