"""Keeps the definitions current: changed ones take over by one assignment, broken ones change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from server.bundles import BundleKeeper
from server.config import FeastSource
from server.errors import ServerError
from server.feast.definitions import Definitions
from server.feast.loading import Loaded, load_apart
from server.feast.selection import PlanBook
from server.feast.watch import Watch
from server.metrics import Metrics
from server.program import Program

PATIENCE_S = 60.0
"""Least time until definitions are loaded again that were refused, or that do not show whether they have changed: each
load costs seconds of a core."""
_log = structlog.get_logger("server")


class DefinitionsKeeper:
    """Holds the definitions that serve; a request takes `current` once and sees nothing else."""

    def __init__(self, definitions: Definitions) -> None:
        self.current = PlanBook(definitions)

    def take(self, definitions: Definitions) -> None:
        """Serve others from now on."""
        self.current = PlanBook(definitions)


class Refresher:
    """Looks for changed definitions now and then, outside of any request.

    Args:
        root: The repo.
        source: Its files, or its registry.
        interval_s: How often to look; 0 never.
        bundles: What decides; it has to accept changed definitions before they serve.
        announce: Tells materializers of a bundle that took over.
    """

    def __init__(
        self,
        root: Path,
        source: FeastSource,
        interval_s: float,
        keeper: DefinitionsKeeper,
        bundles: BundleKeeper,
        announce: Callable[[str], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        self._root = root
        self._source = source
        self._interval_s = interval_s
        self._keeper = keeper
        self._bundles = bundles
        self._announce = announce
        self._metrics = metrics
        self._watch = Watch(root, source)
        self._program = Program()
        self._due_s = math.inf  # what was loaded at the start is good until something changes
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._interval_s > 0:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking; a load that is under way is ended."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> bool:
        """Look once; whether other definitions serve now. Never raises for what it finds."""
        changed = await asyncio.to_thread(self._watch.changed)
        now_s = time.monotonic()
        if changed is None and self._due_s == math.inf:
            self._due_s = now_s + PATIENCE_S
        if not changed and now_s < self._due_s:
            return False
        self._due_s = math.inf
        try:
            await self._take(await load_apart(self._root, self._source, self._program))
        except (ServerError, OSError) as error:
            _log.warning("definitions.refused", error=str(error), repo=str(self._root))
            self._metrics.refreshes.labels("refused").inc()
            self._due_s = time.monotonic() + PATIENCE_S
            return False
        self._metrics.refreshes.labels("swapped").inc()
        return True

    async def _take(self, loaded: Loaded) -> None:
        current = self._keeper.current.definitions
        if loaded.definitions.catalog.project != current.catalog.project:
            raise ServerError("the project's name has changed: start the server anew")
        if current.views and not loaded.definitions.views:
            raise ServerError("no view is defined any more: is the registry's file gone, or being written?")
        if _tells_versions(current) and not _tells_versions(loaded.definitions):
            raise ServerError(
                "the registry tells of no versions of views any more: is its file gone, or being written? where they "
                "are meant to be gone, start the server anew"
            )
        catalog = loaded.catalog
        if catalog is None:
            # What decides is defined by the repo's files; where its values are stored, by the registry.
            views = loaded.definitions.views
            stored = {name: served.view.stored_as for name, served in views.items() if name == served.name}
            catalog = self._bundles.current.bundle.catalog.stored_under(stored)
        serving = await asyncio.to_thread(self._bundles.adopt, catalog)
        self._keeper.take(loaded.definitions)
        _log.info("definitions.swapped", views=len(loaded.definitions.views))
        if serving is not None:
            await self._announce(serving.bundle.version)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - one look that fails must not end the looking
                _log.exception("definitions.refresh_failed")
                self._metrics.refreshes.labels("refused").inc()


def _tells_versions(definitions: Definitions) -> bool:
    """Whether a registry has numbered views; without one, those of a repo's files would be taken for first versions."""
    return any(
        name != served.name or served.view.stored_name != served.view.name
        for name, served in definitions.views.items()
    )
