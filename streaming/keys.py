"""Every Redis key that the stream uses, beside the entities' own (`online/keys.py`).

All keys of one partition share a hash tag, so that they live on one node of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass


def partition_count_key(project: str) -> str:
    """String: how many partitions the project's log has, settled by whoever comes first."""
    return f"wp:{{{project}}}:partitions"


def policy_key(project: str) -> str:
    """String: version of the policy that a server has taken over last; materializers follow it."""
    return f"wp:{{{project}}}:policy"


def views_key(project: str) -> str:
    """Hash: which definition of each stream view serves, and how far the building of others is."""
    return f"wp:{{{project}}}:views"


def build_key(project: str) -> str:
    """String that runs out: the build that is at work."""
    return f"wp:{{{project}}}:build"


def backfill_key(project: str) -> str:
    """String: the backfill that is at work, or was cut short."""
    return f"wp:{{{project}}}:backfill"


def refused_key(project: str) -> str:
    """Stream of events that were refused when they were published."""
    return f"wp:{{{project}}}:refused"


def members_key(project: str) -> str:
    """Sorted set: the materializers that share the project's partitions; score: when each is no longer counted."""
    return f"wp:{{{project}}}:materializers"


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """Keys of one partition of one project's log."""

    project: str
    partition: int

    def _key(self, name: str) -> str:
        return f"wp:{{{self.project}:{self.partition}}}:{name}"

    @property
    def log(self) -> str:
        """Stream of records."""
        return self._key("log")

    @property
    def lease(self) -> str:
        """String that runs out: the owner of the partition."""
        return self._key("lease")

    @property
    def fence(self) -> str:
        """Counter: the fencing number of the newest owner."""
        return self._key("fence")

    @property
    def journal(self) -> str:
        """Stream of what the owner is about to write, until it is delivered; ids are `number-0`."""
        return self._key("journal")

    @property
    def intended(self) -> str:
        """String: fencing number and number of the newest intent; small batches are written while it stands there."""
        return self._key("intended")

    @property
    def checkpoint(self) -> str:
        """Hash: position applied, the logical time it brought, how many records that were, last intent delivered."""
        return self._key("checkpoint")

    @property
    def applied(self) -> str:
        """Hash: the same fields for what readers of features see already; ahead of the checkpoint."""
        return self._key("applied")

    @property
    def timers(self) -> str:
        """Sorted set: when which entity must be looked at again; score in seconds."""
        return self._key("timers")

    @property
    def changes(self) -> str:
        """Stream of segment entries and exits; ids are `number of the intent-place in it`."""
        return self._key("segment_changes")

    @property
    def dead_letters(self) -> str:
        """Stream of events that could not be applied, with the reason."""
        return self._key("dead_letters")

    @property
    def verdicts(self) -> str:
        """Sorted set: what was judged by more than the log tells (`streaming/verdicts.py`)."""
        return self._key("verdicts")

    @property
    def stats(self) -> str:
        """Hash of figures that `waypost status` shows."""
        return self._key("stats")
