"""SIGKILL of the materializer between a push and the segments that follow from it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.clinic import Clinic, clinic_repo, have_profile_pushed, run_clinic
from tests.support.materializers import START_US, Site, freeze, own_changes, visits

SEGMENT = "segment regular: visits.visit_count_30d >= 5 OR profile.age_years > 90"
PARTITIONS = 2
PATIENTS = range(1, 9)
SOON_S = 0.05

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def _run(folder: Path, url: str, pushes: int, kills: frozenset[int]) -> tuple[Any, ...]:
    """Push the same ages, and kill the owner of the partitions amid some of the pushes; returns what is left."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    have_profile_pushed(clinic_repo(folder, SEGMENT))
    site = Site(folder, url, PARTITIONS, batch_records=1, lease_ms=600, checkpoint_interval_s=0.2)
    ages, instants = random.Random(1), random.Random(2)
    arrivals = visits(20)
    with run_clinic(folder, url, clock="virtual", partitions=PARTITIONS) as clinic:
        try:
            site.start()
            site.publish(arrivals)
            for number in range(pushes):
                now_us = arrivals[-1][0] + (number + 1) * 60_000_000
                clinic.advance(now_us)
                site.wait(lambda: site.applied() == site.appended(), "what came before")
                columns = {
                    "patient_id": list(PATIENTS),
                    "age_years": [ages.choice((30, 95)) for _ in PATIENTS],
                }
                if number in kills:
                    _push_amid_a_kill(site, clinic, now_us, columns, instants)
                else:
                    clinic.push(now_us, columns)
            site.wait(lambda: site.applied() == site.appended(), "everything applied")
        finally:
            site.stop()
    return site.features(), own_changes(site)


def _push_amid_a_kill(
    site: Site, clinic: Clinic, now_us: int, columns: dict[str, list[int]], instants: random.Random
) -> None:
    """Kill the owner before it reads what the push logged, or at any instant after that."""
    owner = next(process for process in site.processes if process.pid in site.shares())
    unread = instants.random() < 0.5
    if unread:
        freeze(owner)
    clinic.push(now_us, columns)
    if unread:
        assert site.appended() - site.applied() == len(PATIENTS)
    else:
        time.sleep(instants.random() * SOON_S)
    owner.kill()
    owner.wait()
    site.start()


@pytest.mark.parametrize(
    ("pushes", "kills"),
    [(8, 4), pytest.param(60, 40, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_segments_follow_pushes_whoever_dies_meanwhile(
    tmp_path: Path, url: str, pushes: int, kills: int
) -> None:
    """Memberships, and each entry and exit in its order, are those of a run in which nobody died."""
    undisturbed = _run(tmp_path / "undisturbed", url, pushes, frozenset())
    assert sum(map(len, undisturbed[1])) > pushes
    assert any(int(change[b"at_us"]) > START_US for changes in undisturbed[1] for change in changes)
    killed = random.Random(kills).sample(range(pushes), kills)
    disturbed = _run(tmp_path / "disturbed", url, pushes, frozenset(killed))
    assert _without_times(disturbed[0]) == _without_times(undisturbed[0])
    for found, expected in zip(disturbed[1], undisturbed[1], strict=True):
        assert [_what(change) for change in found] == [_what(change) for change in expected]
        # What is read again finds what was pushed meanwhile, so a change may have been noticed at a time before.
        earlier = [int(a[b"at_us"]) <= int(b[b"at_us"]) for a, b in zip(found, expected, strict=True)]
        assert all(earlier)


def _what(change: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: data for name, data in change.items() if name != b"at_us"}


def _without_times(hashes: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    """Without when membership last changed."""
    return {key: {f: v for f, v in fields.items() if f != b"_ts:groups"} for key, fields in hashes.items()}
