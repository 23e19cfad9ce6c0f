"""Who owns which partition: leases with a fencing number, and the materializers that share the partitions.

A lease runs out when its owner stops renewing it. The fencing number grows with every owner and never goes back; what
an owner writes into the partition holds only while the number is its own (`streaming/owner.py`), so one that wakes up
after its lease is gone is refused whatever it believes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from online.script import Script
from streaming.keys import PartitionKeys, members_key

_ACQUIRE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
""")

_RENEW = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
""")

_RELEASE = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[2] or redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

_JOIN = Script("""
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
""")


@dataclass(frozen=True, slots=True)
class PartitionLease:
    """The right to apply a partition.

    Attributes:
        keys: The partition.
        fence: Larger than that of every owner before.
    """

    keys: PartitionKeys
    fence: int


class Leases:
    """Leases of one project's partitions, for one owner.

    Args:
        client: Connection to the store, whose clock decides what has run out.
        project: The Feast project.
        owner: Names this process among all; acquiring what it holds already gives a new number.
        ttl_ms: How long a lease, and a place among the members, lasts unless it is renewed.
    """

    def __init__(self, client: redis.Redis, project: str, owner: str, ttl_ms: int) -> None:
        self._client = client
        self._project = project
        self._owner = owner.encode()
        self._ttl_ms = ttl_ms

    def acquire(self, partition: int) -> PartitionLease | None:
        """Take a partition that nobody else holds; None where somebody does."""
        keys = PartitionKeys(self._project, partition)
        fence = self._call(_ACQUIRE, keys, self._owner, self._ttl_ms)
        return PartitionLease(keys, fence) if fence else None

    def renew(self, lease: PartitionLease) -> bool:
        """Keep a lease for another while; False where another owner has come after it."""
        return bool(self._call(_RENEW, lease.keys, self._owner, lease.fence, self._ttl_ms))

    def release(self, lease: PartitionLease) -> None:
        """Let others have the partition at once."""
        self._call(_RELEASE, lease.keys, self._owner, lease.fence)

    def join(self) -> list[str]:
        """Say that this owner is there, and learn who is, in one order that all see."""
        key = members_key(self._project).encode()
        (members,) = _JOIN.run(self._client, [(1, key, self._owner, self._ttl_ms)])
        assert isinstance(members, list)
        return sorted(member.decode() for member in members)

    def leave(self) -> None:
        """Be no longer counted among those that share the partitions."""
        self._client.zrem(members_key(self._project), self._owner)

    def _call(self, script: Script, keys: PartitionKeys, *arguments: bytes | int) -> int:
        reply: Any
        (reply,) = script.run(self._client, [(2, keys.lease.encode(), keys.fence.encode(), *arguments)])
        return int(reply)


def fair_share(member: str, members: Sequence[str], partition_count: int) -> int:
    """How many partitions a member should own; those first in order own one more where it does not come out even."""
    place = sorted(members).index(member)
    share, rest = divmod(partition_count, len(members))
    return share + (place < rest)
