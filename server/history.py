"""The past, brought into the stores: batch views and events from before the log."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from online.errors import OnlineStoreError
from online.store import check_store, connect
from online.write import RowWriter
from server.bundles import repo_policy
from server.config import Settings
from server.errors import ServerError
from server.repo import load_repo
from server.stream_plans import entity_writer, stream_plan
from server.view_builds import settle_first_definitions
from streaming.archive import archive_folder
from streaming.backfill import BackfillReport, backfill
from streaming.batch_views import batch_views, load_batch_view
from streaming.errors import StreamingError
from streaming.history import Past
from streaming.sink import check_logged

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ProgressReport = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


class HistoryError(ServerError):
    """The past cannot be brought in."""


def load_batch_views(
    settings: Settings, redis_url: str, progress: ProgressReport = lambda _stage, _done, _total: None
) -> dict[str, int]:
    """Bring the newest rows of the repo's batch views online; returns the number of entities by view."""
    repo = load_repo(settings.repo)
    now_us = time.time_ns() // 1_000
    try:
        with connect(redis_url) as client:
            check_store(client)
            writer = RowWriter(client, repo.key_ttl_s)
            return {
                view.name: load_batch_view(writer, repo.catalog, view, now_us, progress)
                for view in batch_views(repo.catalog)
            }
    except (StreamingError, OnlineStoreError, OSError, pa.ArrowInvalid) as error:
        raise HistoryError(f"batch views: {error}") from error


def backfill_file(settings: Settings, redis_url: str, file: Path, progress: ProgressReport) -> BackfillReport:
    """Fill both stores from a Parquet file of events, up to now.

    Args:
        settings: Repo and partitions.
        redis_url: A store without state of this project.
        file: Columns event_id, event_type, customer_id, event_time (UTC) and the events' properties.
        progress: Told how far it is.

    Raises:
        HistoryError: The file cannot be read, or the store is live already.
        StreamingError: Nothing takes events, or values of a view cannot be logged where its batch source says.
    """
    repo = load_repo(settings.repo)
    plan = stream_plan(repo, repo_policy(repo))
    check_logged(plan.shown)
    try:
        with connect(redis_url) as client:
            check_store(client)
            settle_first_definitions(client, repo, settings.partitions)
            return backfill(
                client=client,
                archive=archive_folder(settings.data_dir, repo.catalog.project),
                writer=entity_writer(repo, client),
                plan=plan,
                schema=repo.events,
                events=Past.of_file(file, repo.events),
                until_us=time.time_ns() // 1_000,
                partition_count=settings.partitions,
                progress=progress,
            )
    except (StreamingError, OnlineStoreError, OSError, pa.ArrowInvalid) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise HistoryError(
                f"no room for what is made of {file}: {error.strerror}; it goes to {settings.data_dir}, and to where "
                "values of views are logged offline. Make room and begin again"
            ) from error
        raise HistoryError(f"{file}: {error}") from error
