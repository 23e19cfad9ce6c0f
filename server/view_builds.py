"""Builds new and changed views beside the materializers' work: one process of all does it, on a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis
import structlog

from online.errors import OnlineStoreError
from online.store import connect
from server.bundles import repo_policy
from server.config import Settings
from server.definitions import definitions
from server.repo import Repo
from server.stream_plans import current_repo, entity_writer, stream_plan
from streaming.archive import archive_folder
from streaming.aside import POISON
from streaming.errors import StreamingError
from streaming.file_locks import FilesHeld
from streaming.generations import BUILD_TTL_MS, Definition, DefinitionsOutdated, Generations, Unfinished
from streaming.keys import views_key
from streaming.shadow import (
    BuildAbandoned,
    ShadowBuild,
    build_views,
    finish_switch,
    remove_staged,
    staged_folders,
)

log = structlog.get_logger()

RETRY_S = 1.0
PATIENCE_S = 5.0
"""Between a build that had to be abandoned and the next."""
END_S = 5.0


class ViewBuilder:
    """Builds what waits to be built, and finishes what was switched.

    Args:
        settings: For the data folder and the number of partitions.
        repo: With the definitions wanted.
        redis_url: The store.
        stopping: Ends it.
    """

    def __init__(self, settings: Settings, repo: Repo, redis_url: str, stopping: threading.Event) -> None:
        self._settings = settings
        self._repo = repo
        self._redis_url = redis_url
        self._stopping = stopping
        self._definitions = definitions(repo)
        self._archive = archive_folder(settings.data_dir, repo.catalog.project)
        self._stuck: set[Path] = set()
        self._thread = threading.Thread(target=self._run, name="view-builder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait a little for its end; a build that is cut off has left nothing that is read."""
        self._thread.join(END_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._redis_url) as client:
                    if self._work(client):
                        return
            except (redis.RedisError, OnlineStoreError) as error:
                log.warning("view.store_lost", error=str(error))
            except (BuildAbandoned, FilesHeld, OSError) as error:
                log.warning("view.build_begins_again", error=str(error))
                self._stopping.wait(PATIENCE_S)
            except Exception as error:
                # The views that serve go on serving; what cannot be built would fail again.
                log.exception("view.build_failed", error=str(error))
                return
            self._stopping.wait(RETRY_S)

    def _work(self, client: redis.Redis) -> bool:
        """Do one round; True where nothing is left to do."""
        generations = Generations(client, self._repo.catalog.project)
        waiting = self._waiting(generations)
        left_behind = [folder for folder in staged_folders(self._repo.catalog) if folder not in self._stuck]
        if not waiting and not generations.unfinished() and not left_behind:
            return True
        name = generations.take()
        if not name:
            return False
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(name, done), name="view-build-lease", daemon=True)
        keeper.start()
        try:
            generations.check_newest(self._definitions)
            unfinished = generations.unfinished()
            self._remove_staged(left_behind, unfinished)
            for left in unfinished:
                if left.view in self._repo.catalog.view_by_name:
                    finish_switch(client, self._repo.catalog, self._archive, left)
                generations.finished(left)
            if waiting:
                self._build(client, generations, name, waiting)
            return False
        finally:
            done.set()
            generations.give_up(name)

    def _remove_staged(self, folders: Sequence[Path], unfinished: Sequence[Unfinished]) -> None:
        stuck = remove_staged(folders, unfinished)
        self._stuck.update(stuck)
        for folder in stuck:
            log.warning("view.staged_rows_stay", folder=str(folder))

    def _waiting(self, generations: Generations) -> dict[str, Definition]:
        serving = generations.serving(self._definitions)
        return {view: wanted for view, wanted in self._definitions.items() if view not in serving}

    def _build(
        self,
        client: redis.Redis,
        generations: Generations,
        name: str,
        waiting: Mapping[str, Definition],
    ) -> None:
        repo, views = current_repo(self._repo), sorted(waiting)
        policy = repo_policy(repo)
        if not generations.is_whole():
            log.warning(
                "view.past_incomplete", views=views, reason="the store is older than its archive of events"
            )
        log.info("view.build_begins", views=views, generation=name)

        def progress(stage: str, done: int, total: int) -> None:
            log.info("view.building", stage=stage, done=done, total=total)
            generations.tell(views, stage, done, total)

        build = ShadowBuild(
            client=client,
            writer=entity_writer(repo, client),
            plan=stream_plan(repo, policy, dict.fromkeys(views, name)),
            whole=stream_plan(repo, policy),
            schema=repo.events,
            archive=self._archive,
            partition_count=self._settings.partitions,
            progress=progress,
        )
        try:
            built = build_views(
                build,
                generations,
                name=name,
                definitions=waiting,
                generation=name,
                partition_count=self._settings.partitions,
                stopping=self._stopping,
            )
        except (StreamingError, *POISON) as error:
            generations.tell(views, f"failed: {error}", 0, 0)
            raise
        generations.untell()
        if built:
            log.info("view.switched", views=views, generation=name)

    def _keep(self, name: str, done: threading.Event) -> None:
        with connect(self._redis_url) as client:
            generations = Generations(client, self._repo.catalog.project)
            while not done.wait(BUILD_TTL_MS / 5_000):
                try:
                    generations.keep(name)
                except (redis.RedisError, OnlineStoreError) as error:
                    log.warning("view.store_lost", error=str(error))


def settle_definitions(
    client: redis.Redis,
    repo: Repo,
    partition_count: int,
    owner: str = "",
    life_ms: int = 0,
    stopping: threading.Event | None = None,
) -> None:
    """Take down what the repo defines, before anything is computed by it; of the arguments see `Generations.settle`.

    `stopping` ends the wait for those that run with newer ones.

    Raises:
        DefinitionsOutdated: Others run with newer definitions, and went on doing so for longer than dead ones seem to.
    """
    generations, wanted = Generations(client, repo.catalog.project), definitions(repo)
    stopping = stopping or threading.Event()
    give_up_at = time.monotonic() + life_ms / 1000 + RETRY_S
    while True:
        try:
            generations.settle(wanted, partition_count, owner, life_ms)
        except DefinitionsOutdated:
            if time.monotonic() >= give_up_at or stopping.wait(RETRY_S / 5):
                raise
        else:
            return


def settle_first_definitions(client: redis.Redis, repo: Repo, partition_count: int) -> None:
    """As `settle_definitions`, in a store that has none yet: what changed is for a materializer to build."""
    if not client.exists(views_key(repo.catalog.project)):
        settle_definitions(client, repo, partition_count)
