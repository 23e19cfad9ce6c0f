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
    def checkpoint(self) -> str:
        """Hash: position applied so far, the logical time it brought, and how many records that were."""
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
        """Stream of segment entries and exits."""
        return self._key("changes")

    @property
    def dead_letters(self) -> str:
        """Stream of events that could not be applied, with the reason."""
        return self._key("dead_letters")

    @property
    def stats(self) -> str:
        """Hash of figures that `waypost status` shows."""
        return self._key("stats")
