"""SIGKILL of the materializer, of Valkey, and of both, again and again within one run under load."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from server.embedded import EmbeddedValkey
from tests.support.forked import Forked
from tests.support.materializers import START_US, Site, offline_logs, visits
from tests.support.valkey import run_valkey

END_US = START_US + 100 * 86_400_000_000
EVENTS_PER_KILL = 40

pytestmark = [pytest.mark.long, pytest.mark.timeout(550)]


def _run(folder: Path, kills: int, seed: int) -> tuple[Any, ...]:
    """Publish the same events, with so many kills among them; returns all that is left."""
    rng = random.Random(seed)
    arrivals = visits(EVENTS_PER_KILL * 4)
    size = -(-len(arrivals) // max(kills, 1))
    with run_valkey(folder / "valkey") as store:
        site = Site(
            folder / "site",
            store.url,
            partition_count=1,
            batch_records=1,
            checkpoint_interval_s=0.2,
            merge_interval_s=0.1,
            lease_ms=600,
        )
        try:
            site.start()
            if kills:
                site.start()
            for start in range(0, len(arrivals), size):
                _slice(site, store, arrivals[start : start + size], rng if kills else None)
            site.tick(END_US)
            site.wait(lambda: site.applied() == site.appended(), "everything applied")
        finally:
            site.stop()
        # Entities that are due at the same moment are taken in any order; each one's own changes are in order.
        changes = sorted(site.changes(0), key=lambda change: change[b"entity"])
        return site.features(), changes, offline_logs(site.repo / "data"), site.archived(0)


def _slice(site: Site, store: EmbeddedValkey, arrivals: list[Any], rng: random.Random | None) -> None:
    before = site.applied()
    load = threading.Thread(target=site.publish, args=(arrivals,))
    load.start()
    if rng is not None:
        instant = before + rng.randrange(len(arrivals))
        site.wait(lambda: site.applied() >= instant, "the instant of the kill")
        victims = rng.choice(["materializer", "store", "both"])
        if victims != "store":
            # Where the owner before was killed a moment ago, its lease has to run out before there is another.
            owner = _await_owner(site)
            owner.kill()
            owner.wait()
        if victims != "materializer":
            store.kill()
            store.start()
        if victims != "store":
            site.start()
    load.join()


def _await_owner(site: Site) -> Forked:
    owner: Forked | None = None

    def is_there() -> bool:
        nonlocal owner
        owner = _owner(site)
        return owner is not None

    site.wait(is_there, "an owner that can be killed")
    assert owner is not None
    return owner


def _owner(site: Site) -> Forked | None:
    """The process that holds the partition, if it lives."""
    shares = site.shares()
    return next(
        (process for process in site.processes if process.pid in shares and process.poll() is None), None
    )


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_kills_leave_what_an_undisturbed_run_leaves(tmp_path: Path, kills: int) -> None:
    """Values and timestamps to the byte, segment changes, archived events; offline rows once repeats are dropped."""
    features, changes, offline, archived = _run(tmp_path / "undisturbed", 0, 1)
    assert len(features) > 8
    assert changes
    assert {"visits", "department_load", "groups"} <= set(offline)
    found = _run(tmp_path / "disturbed", kills, kills)
    assert found[0] == features
    assert found[1] == changes
    assert found[2] == offline
    assert found[3] == archived
    assert len(archived) == EVENTS_PER_KILL * 4
