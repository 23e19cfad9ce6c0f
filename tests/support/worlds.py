"""What tests of the world's files share: files that take for ever, and who lies in them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from online.store import connect
from tests.support.lazy import LazyExecutor
from tests.support.stream_world import World, drain, stream_plan


def lazy_files(workers: int, name: str) -> Any:
    """Whoever writes files takes for ever; whoever writes to the store does not."""
    return LazyExecutor() if name == "files" else ThreadPoolExecutor(workers, name)


def apply_all(url: str, offline: Path) -> None:
    """Apply a log of one partition and write its files, for as long as the partition is one's own."""
    with connect(url) as client:
        materializer = World(offline, stream_plan(offline)).materializer(client)
        drain(materializer)
        materializer.checkpoint()


def everyone_offline(world: World) -> list[str]:
    """Customers whose first rows lie offline, in order."""
    if not any((world.offline / "spending").glob("*.parquet")):
        return []
    table = ds.dataset(world.offline / "spending", format="parquet").to_table()
    return sorted(row["customer_id"] for row in table.to_pylist() if row["count_5m"] == 1)
