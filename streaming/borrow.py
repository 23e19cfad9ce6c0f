"""Features of other views that an entity's segments read, straight from the store."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from decision.schema import Value
from streaming.plan import EntityKind


def borrow(client: redis.Redis, kind: EntityKind, keys: Sequence[bytes]) -> dict[bytes, dict[str, Value]]:
    """Values by canonical name, by entity key; one round trip, none where segments read nothing foreign."""
    if not kind.borrowed or not keys:
        return {}
    names = [field for _, field, _ in kind.borrowed_fields]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.execute_command("HMGET", key, *names)  # type: ignore[no-untyped-call]
    return {
        key: {
            name: decode(data)
            for (name, _, decode), data in zip(kind.borrowed_fields, row, strict=True)
            if data is not None
        }
        for key, row in zip(keys, pipeline.execute(), strict=True)
    }
