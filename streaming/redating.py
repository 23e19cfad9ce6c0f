"""The first values of a view that was built anew, where they are of an earlier time than those that stand there.

Writers leave values alone that are of a later time. With other windows an entity's last change is often an earlier one
than before: a tile that has left the window of thirty days still lies in one of forty-five.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from online.keys import state_key, timestamp_field
from online.script import Script
from online.values import encode_timestamp
from streaming.entity import WINDOWS_PREFIX, EntityState
from streaming.writes import PreparedWrites

_REDATE = Script("""
if (redis.call('HGET', KEYS[2], 'rev') or '0') ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
return 1
""")


def former_mark(view: str) -> bytes:
    """A field of a state that stands for what a former definition has left, also where that went already.

    An owner takes it for a chunk of a generation that is not its own, and drops it with the first write.
    """
    return b"%b%b@:h" % (WINDOWS_PREFIX, view.encode())


def redate(client: redis.Redis, prepared: Sequence[PreparedWrites]) -> int:
    """Give what stands in the store of a former definition the time of the values that are about to be written.

    Only of entities that nobody has written since they were read, so that who owns them no more changes nothing.

    Args:
        client: Connection to the store.
        prepared: The writes; a state that has fields of a former definition was not written since the switch.

    Returns:
        Of how many entities and views that may be.

    Raises:
        StoreUnavailableError: The store did not answer.
    """
    calls = [
        call for part in prepared if any(state.unwanted for state in part.states) for call in _calls(part)
    ]
    if calls:
        _REDATE.run(client, calls)
    return len(calls)


def _calls(part: PreparedWrites) -> Iterator[tuple[int | bytes, ...]]:
    for view, (plan, values) in enumerate(zip(part.kind.shown, part.values, strict=True)):
        if values is None or plan.windows is None:
            continue
        field = timestamp_field(plan.view.stored_name)
        for key, state, row in zip(part.keys, part.states, part.places[view].tolist(), strict=True):
            if row >= 0 and _was_defined_otherwise(state, plan.view.name):
                stamp = encode_timestamp(int(values.value_us[row]))
                yield 2, key, state_key(key), b"%d" % state.revision, field, stamp


def _was_defined_otherwise(state: EntityState, view: str) -> bool:
    """Whether fields of another generation of a view with windows go with the next write."""
    begin = WINDOWS_PREFIX + view.encode()
    return any(name.startswith((begin + b":", begin + b"@")) for name in state.unwanted)
