"""A server's memory over very many requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.bench import driver
from loadtest.bench.features import watch_memory
from loadtest.bench.features_world import run_world

REQUESTS = 1_000_000
GROWTH_MIB = 8


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not driver.counts(), reason="needs h2load")
def test_memory_is_flat_over_a_million_requests(tmp_path: Path) -> None:
    """Reads of features leave nothing behind."""
    with run_world(tmp_path, names=("waypost",)) as world:
        before_mib, after_mib = watch_memory(world.doors["waypost"], REQUESTS)
    assert after_mib - before_mib < GROWTH_MIB, (before_mib, after_mib)
