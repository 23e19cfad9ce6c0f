"""That a backfill is at work in a store, or was cut short there, and taking away what such a one has left.

A backfill changes the store part by part. Until it hands over to the log it has a mark in the store: with it nothing
materializes, and the next backfill takes everything of this one away and begins anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from online.exchange import exchange
from online.keys import feature_field, key_pattern, state_key, timestamp_field
from online.removal import find_entities
from online.script import Script
from streaming.errors import StreamingError
from streaming.keys import PartitionKeys, backfill_key
from streaming.plan import EntityKind, StreamPlan

_FIX = (
    "Go on with it and leave the backfill out; another past wants an empty store and data folder of its own"
)
_TAKE_DOWN = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")


def check_filled(client: redis.Redis, project: str) -> None:
    """Refuse a store that a backfill has not handed over.

    Raises:
        StreamingError: One is at work, or was cut short.
    """
    if client.exists(backfill_key(project)):
        raise StreamingError(
            f"a backfill of project {project!r} is at work in this store or was cut short: run `waypost backfill` to "
            "its end, which begins anew, or start over in an empty store"
        )


def check_not_live(client: redis.Redis, project: str, partition_count: int) -> None:
    """Refuse a store on which a materializer has run, or that a backfill has handed over.

    Raises:
        StreamingError: The log has been applied, or is to be applied to a past that is there.
    """
    is_marked = client.exists(backfill_key(project))
    for partition in range(partition_count):
        keys = PartitionKeys(project, partition)
        # A backfill that was cut short while it handed over leaves checkpoints too.
        position: Any = None if is_marked else client.hget(keys.checkpoint, "position")
        if client.exists(keys.applied) or int(position or 0):
            raise StreamingError(
                f"project {project!r} is live in this store already: a materializer has run on it. {_FIX}"
            )
        if position is not None:
            raise StreamingError(
                f"project {project!r} has its past in this store already: a backfill came to its end here. {_FIX}"
            )


class Mark:
    """The mark of one backfill.

    Args:
        client: Connection to the store.
        plan: What is computed.
        partition_count: Of the log.
    """

    def __init__(self, client: redis.Redis, plan: StreamPlan, partition_count: int) -> None:
        self._client = client
        self._plan = plan
        self._partitions = [PartitionKeys(plan.project, number) for number in range(partition_count)]
        self._key = backfill_key(plan.project)
        self._name = secrets.token_hex(8).encode()

    @contextmanager
    def put(self) -> Iterator[None]:
        """Begin; what one before has left is taken away. The mark goes where what is done within fails.

        That of another backfill, which has begun since, stays.
        """
        self._put()
        try:
            yield
        except BaseException:
            _TAKE_DOWN.run(self._client, [(1, self._key.encode(), self._name)])
            raise

    def _put(self) -> None:
        is_marked = self._client.exists(self._key)
        self._client.set(self._key, self._name)
        if not is_marked:
            return
        for kind in self._plan.kinds:
            for keys in self._entities(kind):
                self._remove(kind, keys)
        for partition in self._partitions:
            self._client.delete(partition.timers)
            self._client.delete(partition.checkpoint)

    def check(self) -> None:
        """Make sure that no other backfill has begun.

        Raises:
            StreamingError: One has.
        """
        if self._client.get(self._key) != self._name:
            raise StreamingError("another backfill has begun in this store: let one of them run alone")

    def hand_over(self, until_us: int) -> None:
        """Have the log go on from a logical time.

        Raises:
            StreamingError: Another backfill has begun.
        """
        self.check()
        for partition in self._partitions:
            self._client.hset(partition.checkpoint, mapping={"position": 0, "time_us": until_us})
        self._client.delete(self._key)

    def _entities(self, kind: EntityKind) -> Iterator[list[bytes]]:
        project, names = self._plan.project, kind.key_names or ("__dummy_id",)
        return find_entities(
            self._client,
            key_pattern(project, names),
            lambda key: (key.project, key.names) == (project, names),
            lambda _done, _total: None,
        )

    def _remove(self, kind: EntityKind, keys: list[bytes]) -> None:
        """Take stream views, and states, from entities; what a batch view has of them stays."""
        fields = [timestamp_field(plan.view.stored_name) for plan in kind.shown]
        fields += [
            feature_field(plan.view.stored_name, feature.name)
            for plan in kind.shown
            for feature in plan.view.features
        ]
        exchange(self._client, ((b"HDEL", key, *fields) for key in keys))
        exchange(self._client, ((b"DEL", state_key(key)) for key in keys))
