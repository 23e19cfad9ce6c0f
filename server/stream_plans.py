"""From a repo to what the stream computes of it, and to the writer of what it computes."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from decision.policy import Policy
from online.write import EntityWriter
from server.repo import Repo
from streaming.plan import StreamPlan

REPLAY_S = 3_600
"""How long a state lives beyond the lateness bound: a crash may have its events read again from the checkpoint."""


def stream_plan(repo: Repo, policy: Policy, generations: Mapping[str, str] | None = None) -> StreamPlan:
    """The plan of a repo's stream views and segments; of some views where `generations` names them."""
    return StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer, generations)


def entity_writer(repo: Repo, client: redis.Redis) -> EntityWriter:
    """The writer of entities and their states, with the time to live that the repo gives them."""
    return EntityWriter(client, repo.key_ttl_s, repo.events.lateness_s + REPLAY_S)
