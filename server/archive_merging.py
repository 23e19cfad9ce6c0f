"""Merges the archive's parts beside the materializers' work, on a thread, for the partitions that a process has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import structlog

from streaming.merging import merge_parts

log = structlog.get_logger()

END_S = 5.0


class ArchiveMerger:
    """Looks for parts to merge from time to time.

    Args:
        folder: The project's archive.
        partitions: Those of this process now.
        interval_s: Between two looks.
        stopping: Ends it.
    """

    def __init__(
        self,
        folder: Path,
        partitions: Callable[[], Collection[int]],
        interval_s: float,
        stopping: threading.Event,
    ) -> None:
        self._folder = folder
        self._partitions = partitions
        self._interval_s = interval_s
        self._stopping = stopping
        self._thread = threading.Thread(target=self._run, name="archive-merger", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait a little for its end; a merge that is cut off has changed nothing that is read."""
        self._thread.join(END_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            for partition in self._partitions():
                self._merge(partition)

    def _merge(self, partition: int) -> None:
        try:
            while not self._stopping.is_set() and (count := merge_parts(self._folder, partition)):
                log.info("archive.merged", partition=partition, parts=count)
        except (OSError, pa.ArrowException) as error:
            log.warning("archive.not_merged", partition=partition, error=str(error))
