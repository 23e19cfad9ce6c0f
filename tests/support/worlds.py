"""What tests of the world's files share: files that take for ever, and who lies in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds

from online.store import connect
from tests.support.stream_world import World, drain, stream_plan


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
