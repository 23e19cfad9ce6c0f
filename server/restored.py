"""After the store was set back to an older copy: what its files hold beyond that is moved aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from decision.schema import Catalog
from server.errors import ServerError
from streaming.archive import set_back
from streaming.keys import PartitionKeys, partition_count_key
from streaming.sink import earlier, move_parts, row_parts


class RestoredError(ServerError):
    """Somebody works with the store already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedAside:
    """What was moved aside of a partition.

    Attributes:
        events: Archived behind the store's checkpoint; those up to the end of the log are applied again from there.
        row_files: Files of offline rows.
    """

    partition: int
    events: int
    row_files: int


def move_aside(client: redis.Redis, catalog: Catalog, archive: Path) -> tuple[list[MovedAside], str]:
    """Move aside what the archive and the offline folders hold of checkpoints that the store does not know.

    It is done partition by partition and may be done again. Fencing numbers go on behind those that files bear.

    Args:
        client: The store.
        catalog: Names the offline folders.
        archive: The project's archive.

    Returns:
        What was moved, and the name of the folders, beside the files, where it is now.

    Raises:
        RestoredError: A partition has an owner.
        FilesHeld: A process that merges or writes files stands still.
    """
    stored: Any = client.get(partition_count_key(catalog.project))
    partitions = [PartitionKeys(catalog.project, number) for number in range(int(stored or 0))]
    for keys in partitions:
        if client.exists(keys.lease):
            raise RestoredError(
                f"a materializer applies partition {keys.partition}: stop all of them, and wait until their leases "
                "have run out (WAYPOST_MATERIALIZER__LEASE_MS)"
            )
    name = earlier()
    return [_set_back(client, catalog, archive, keys, name) for keys in partitions], name


def _set_back(
    client: redis.Redis, catalog: Catalog, archive: Path, keys: PartitionKeys, name: str
) -> MovedAside:
    position, intent = (
        int(value or 0)
        for value in client.hmget(keys.checkpoint, ["position", "intent"])  # type: ignore[union-attr]
    )
    events, fence = set_back(archive, keys.partition, position, archive / name)
    row_files = 0
    for folder in _row_folders(catalog):
        later = [part for part in row_parts(folder, keys.partition) if part[1] > intent]
        move_parts(folder, [path.name for path, _, _ in later], folder / name)
        row_files += len(later)
        fence = max([fence, *(owner for _, _, owner in later)])
    held: Any = client.get(keys.fence)
    client.set(keys.fence, max(int(held or 0), fence))
    return MovedAside(partition=keys.partition, events=events, row_files=row_files)


def _row_folders(catalog: Catalog) -> Iterator[Path]:
    for view in catalog.views:
        path = Path(view.offline_path or "")
        if path.name == "*.parquet":
            yield path.parent
