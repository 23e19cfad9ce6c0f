"""From a repo to what the stream computes of it, and to the writer of what it computes."""

from __future__ import annotations

from collections.abc import Mapping

import redis
import structlog

from decision.policy import Policy
from online.write import EntityWriter
from server.repo import Repo, RepoError, restored
from streaming.plan import StreamPlan

log = structlog.get_logger()

REPLAY_S = 3_600
"""How long a state lives beyond the lateness bound: a crash may have its events read again from the checkpoint."""


def stream_plan(repo: Repo, policy: Policy, generations: Mapping[str, str] | None = None) -> StreamPlan:
    """The plan of a repo's stream views and segments; of some views where `generations` names them."""
    return StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer, generations)


def current_repo(repo: Repo) -> Repo:
    """The repo with the names that the store has for its views now; those of before if there is no registry to read."""
    try:
        return restored(repo)
    except RepoError as error:
        log.warning("materializer.registry_lost", error=str(error))
        return repo


def entity_writer(repo: Repo, client: redis.Redis) -> EntityWriter:
    """The writer of entities and their states, with the time to live that the repo gives them."""
    return EntityWriter(client, repo.key_ttl_s, repo.events.lateness_s + REPLAY_S)
