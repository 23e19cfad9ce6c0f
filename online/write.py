"""Writes that cannot corrupt: one conditional script call per entity, for windowed state and for plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import redis

from online.errors import StoreReplyError, WriteTooLargeError
from online.exchange import exchange
from online.keys import US_PER_SECOND, state_key, timestamp_field
from online.route import Command
from online.script import Script
from online.values import encode_timestamp

REVISION_FIELD = b"rev"
MAX_FIELDS = 3_500
"""Most fields of each hash in one write: Lua unpacks at most some 8,000 arguments."""

_APPLY_ENTITY = Script("""
if (redis.call('HGET', KEYS[2], 'rev') or '0') ~= ARGV[1] then return 0 end
local values_end = 3 + tonumber(ARGV[2])
local state_end = values_end + tonumber(ARGV[3])
if values_end > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4, values_end)) end
redis.call('HSET', KEYS[2], unpack(ARGV, values_end + 1, state_end))
if #ARGV > state_end then redis.call('HDEL', KEYS[2], unpack(ARGV, state_end + 1)) end
return 1
""")

_APPLY_ROW = Script("""
local function varint(data, at)
  local value, complement, unit, count = 0, 0, 1, 0
  while true do
    local byte = data:byte(at)
    if not byte then return nil end
    at, count = at + 1, count + 1
    local low = byte % 128
    if count < 10 then
      value, complement, unit = value + low * unit, complement + (127 - low) * unit, unit * 128
    end
    if byte < 128 then return count == 10 and -1 - complement or value, at end
  end
end
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local parts, at = {[8] = 0, [16] = 0}, 1
  while at and parts[stored:byte(at)] do
    local tag = stored:byte(at)
    parts[tag], at = varint(stored, at + 1)
  end
  local seconds, nanos = tonumber(ARGV[2]), tonumber(ARGV[3])
  local intact = parts[8] and parts[16] and at > #stored
  if intact and (parts[8] > seconds or (parts[8] == seconds and parts[16] > nanos)) then return 0 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
return 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityWrite:
    """The change of one entity by a micro-batch.

    Attributes:
        key: Entity key.
        revision: Revision of the state this change was computed from; 0 where there was none.
        values: Hash fields of Feast's hash, values and `_ts:` fields; may be empty.
        state: Changed chunks of Waypost's state.
        dropped: Fields of the state that are no longer needed.
    """

    key: bytes
    revision: int
    values: Mapping[bytes, bytes]
    state: Mapping[bytes, bytes]
    dropped: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWrite:
    """One row of a view without aggregations.

    Attributes:
        key: Entity key.
        view: Name of the view.
        values: Encoded values by hash field, without the timestamp.
        event_us: Event time in microseconds.
    """

    key: bytes
    view: str
    values: Mapping[bytes, bytes]
    event_us: int


class EntityWriter:
    """Applies entity writes on condition of their revision, and loads the state they start from."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def apply(self, writes: Sequence[EntityWrite]) -> list[bool]:
        """Apply each write whose revision is the stored one and raise that by one; False is a refusal.

        Each write is atomic by itself. A refused writer loads the state again, recomputes and tries again. So does
        one that got an error: what was applied shows in the revision.

        Raises:
            WriteTooLargeError: A write has more than `MAX_FIELDS` values, chunks or dropped fields.
            StoreReplyError: The server refused a write for another reason (memory full, wrong type of a key).
            StoreUnavailableError: The store did not answer.
        """
        return [
            reply == 1 for reply in _APPLY_ENTITY.run(self._client, [_entity_call(write) for write in writes])
        ]

    def load(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Return the state of each entity, revision included; empty where there is none.

        Raises:
            StoreReplyError: A state key holds something else.
            StoreUnavailableError: The store did not answer.
        """
        replies = exchange(self._client, ((b"HGETALL", state_key(key)) for key in keys))
        return [_as_dict(reply) for reply in replies]


class RowWriter:
    """Writes rows so that the newest event time wins, whatever the order and the number of writers."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def apply(self, rows: Sequence[RowWrite]) -> list[bool]:
        """Write each row unless the view's stored event time is later; False is such a refusal.

        At equal event times the last writer wins, so a correction is never lost. An unreadable stored time loses to
        any row.

        Raises:
            WriteTooLargeError: A row has more than `MAX_FIELDS` values.
            StoreReplyError: The server refused a row for another reason.
            StoreUnavailableError: The store did not answer.
        """
        return [reply == 1 for reply in _APPLY_ROW.run(self._client, [_row_call(row) for row in rows])]


def revision_of(state: Mapping[bytes, bytes]) -> int:
    """Return the revision of a loaded state, 0 where there is none."""
    return int(state.get(REVISION_FIELD, b"0"))


def _entity_call(write: EntityWrite) -> Command:
    values, state, dropped = write.values, write.state, write.dropped
    _check_size(write.key, max(len(values), len(state), len(dropped)))
    if REVISION_FIELD in state or REVISION_FIELD in dropped:
        raise ValueError(
            f"the state field {REVISION_FIELD!r} is kept by the writer; leave it out of the write"
        )
    return (
        2,
        write.key,
        state_key(write.key),
        write.revision,
        2 * len(values),
        2 * len(state) + 2,
        *chain.from_iterable(values.items()),
        *chain.from_iterable(state.items()),
        REVISION_FIELD,
        write.revision + 1,
        *dropped,
    )


def _row_call(row: RowWrite) -> Command:
    _check_size(row.key, len(row.values))
    field = timestamp_field(row.view)
    seconds, rest_us = divmod(row.event_us, US_PER_SECOND)
    stamp = encode_timestamp(row.event_us)
    return (
        1,
        row.key,
        field,
        seconds,
        rest_us * 1_000,
        *chain.from_iterable(row.values.items()),
        field,
        stamp,
    )


def _check_size(key: bytes, count: int) -> None:
    if count > MAX_FIELDS:
        raise WriteTooLargeError(
            f"a write of {key!r} has {count} fields; at most {MAX_FIELDS} fit one script call"
        )


def _as_dict(reply: object) -> dict[bytes, bytes]:
    if isinstance(reply, redis.RedisError):
        raise StoreReplyError(f"the store refused to read a state: {reply}") from reply
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=True))
    raise StoreReplyError(f"the store answered a read of state with {type(reply).__name__}, not fields")
