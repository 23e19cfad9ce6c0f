"""Writes that cannot corrupt: one conditional script call per entity, for windowed state and for plain rows.

One rule for every writer: a view's values are written unless the store holds values of a later event time, so the
newest wins whatever the order and the number of writers; at equal event times the last writer wins, so a correction
is never lost. Times are compared to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import redis
import redis.asyncio

from online.errors import StoreReplyError, WriteTooLargeError
from online.exchange import exchange
from online.keys import US_PER_SECOND, state_key, timestamp_field
from online.pipes import Packed
from online.route import Command
from online.script import Script
from online.values import encode_timestamp

REVISION_FIELD = b"rev"
MAX_FIELDS = 3_500
"""Most fields of each view, and of the state, in one write: Lua unpacks at most some 8,000 arguments."""

_REFUSED = b""
_WRITTEN = b"1"

_WRITE = Script("""
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
local function is_later(stored, seconds, nanos)
  local parts, at = {[8] = 0, [16] = 0}, 1
  while at and parts[stored:byte(at)] do
    local tag = stored:byte(at)
    parts[tag], at = varint(stored, at + 1)
  end
  if not (parts[8] and parts[16] and at > #stored) then return false end
  return parts[8] > seconds or (parts[8] == seconds and parts[16] > nanos)
end
local values, state, revision = KEYS[1], KEYS[2], ARGV[1]
local kept, views, state_words = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if state and (redis.call('HGET', state, 'rev') or '0') ~= revision then return '' end
local at = 7
for _ = 1, kept do
  if redis.call('HEXISTS', values, ARGV[at]) == 0 then return '' end
  at = at + 1
end
local written, any = {}, false
for view = 1, views do
  local stamp, last = ARGV[at + 3], at + 4 + tonumber(ARGV[at + 4])
  local stored = redis.call('HGET', values, ARGV[at])
  if stored and stored ~= stamp and is_later(stored, tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])) then
    written[view] = '0'
  else
    redis.call('HSET', values, ARGV[at], stamp, unpack(ARGV, at + 5, last))
    written[view], any = '1', true
  end
  at = last + 1
end
if any and ARGV[2] ~= '0' then redis.call('EXPIRE', values, ARGV[2]) end
if state then
  redis.call('HSET', state, 'rev', revision + 1, unpack(ARGV, at, at + state_words - 1))
  at = at + state_words
  if #ARGV >= at then redis.call('HDEL', state, unpack(ARGV, at)) end
  if ARGV[3] ~= '0' then redis.call('EXPIRE', state, ARGV[3]) else redis.call('PERSIST', state) end
  return '+' .. table.concat(written)
end
return table.concat(written)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWrite:
    """One view's values of an entity.

    Attributes:
        view: Name of the view.
        values: Encoded values by hash field, without the timestamp.
        event_us: Event time in microseconds.
        event_rest_ns: Nanoseconds of the event time beyond that, 0 to 999.
    """

    view: str
    values: Mapping[bytes, bytes]
    event_us: int
    event_rest_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWrite(ViewWrite):
    """One row of a view, for the entity at `key`."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityWrite:
    """The change of one entity by a micro-batch.

    Attributes:
        key: Entity key.
        revision: Revision of the state this change was computed from; 0 where there was none.
        views: What is written to Feast's hash; may be empty.
        kept: Views whose values the writer takes to be in the store already; where one is not (Feast deleted the hash,
            or it expired), the write is refused, so that the next one brings them all.
        state: Changed chunks of Waypost's state.
        dropped: Fields of the state that are no longer needed.
        memory_s: How long after the entity's time to live its state can still count for something; None is for ever.
    """

    key: bytes
    revision: int
    views: tuple[ViewWrite, ...]
    state: Mapping[bytes, bytes]
    kept: tuple[str, ...] = ()
    dropped: tuple[bytes, ...] = ()
    memory_s: int | None = None


class PackedWrite(NamedTuple):
    """The change of one entity, as `EntityWrite`, of words that are packed already.

    Attributes:
        key: Entity key.
        revision: As there.
        views: Names of the views that are written.
        values: For each of them the words of `online.view_words`.
        kept: As there, as fields of the views' timestamps.
        state: Names and chunks of Waypost's state in turn.
        dropped: As there.
        memory_s: As there.
    """

    key: bytes
    revision: int
    views: tuple[str, ...]
    values: Packed
    kept: Packed
    state: Packed
    dropped: Packed
    memory_s: int | None


class EntityWriter:
    """Applies entity writes on condition of their revision, and loads the state they start from.

    Args:
        client: The store.
        key_ttl_s: Feast's `key_ttl_seconds`: how long an entity lives after its last write; None is for ever.
        grace_s: How much longer its state lives, at least: events may still be late, and be read again.
    """

    def __init__(self, client: redis.Redis, key_ttl_s: int | None = None, grace_s: int = 0) -> None:
        self._client = client
        self._key_ttl_s = key_ttl_s or 0
        self._grace_s = grace_s

    def apply(self, writes: Sequence[EntityWrite]) -> list[frozenset[str] | None]:
        """Apply each write whose revision is the stored one and raise that by one.

        Each write is atomic by itself. A refused writer loads the state again, recomputes and tries again. So does
        one that got an error: what was applied shows in the revision.

        Returns:
            For each write the names of its views that were written (the others have a later event time in the
            store); None is a refusal, of which nothing is stored.

        Raises:
            WriteTooLargeError: A write has more than `MAX_FIELDS` values of a view, chunks or dropped fields.
            StoreReplyError: The server refused a write for another reason (memory full, wrong type of a key).
            StoreUnavailableError: The store did not answer.
        """
        replies = _WRITE.run(self._client, [self._call(write) for write in writes])
        return [
            _outcome([view.view for view in write.views], reply)
            for write, reply in zip(writes, replies, strict=True)
        ]

    def apply_packed(self, writes: Sequence[PackedWrite]) -> list[frozenset[str] | None]:
        """As `apply`, of writes that are packed already."""
        replies = _WRITE.run(self._client, [self._packed_call(write) for write in writes], apart=True)
        return [_outcome(write.views, reply) for write, reply in zip(writes, replies, strict=True)]

    def load(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Return the state of each entity, revision included; empty where there is none.

        Raises:
            StoreReplyError: A state key holds something else.
            StoreUnavailableError: The store did not answer.
        """
        replies = exchange(self._client, ((b"HGETALL", state_key(key)) for key in keys))
        return [_as_dict(reply) for reply in replies]

    def _call(self, write: EntityWrite) -> Command:
        state, dropped = write.state, write.dropped
        _check_size(write.key, max(len(state), len(dropped)))
        if REVISION_FIELD in state or REVISION_FIELD in dropped:
            raise ValueError(
                f"the state field {REVISION_FIELD!r} is kept by the writer; leave it out of the write"
            )
        return (
            2,
            write.key,
            state_key(write.key),
            write.revision,
            self._key_ttl_s,
            self._state_ttl_s(write.memory_s),
            len(write.kept),
            len(write.views),
            2 * len(state),
            *(timestamp_field(view) for view in write.kept),
            *chain.from_iterable(_view_words(write.key, view) for view in write.views),
            *chain.from_iterable(state.items()),
            *dropped,
        )

    def _packed_call(self, write: PackedWrite) -> Command:
        key, revision, views, values, kept, state, dropped, memory_s = write
        _check_size(key, max(values.size // 2, state.size // 2, dropped.size))
        numbers = (revision, self._key_ttl_s, self._state_ttl_s(memory_s), kept.size, len(views), state.size)
        rest = Packed(
            6 + kept.size + values.size + state.size + dropped.size,
            b"".join([_words_of(numbers), kept.data, values.data, state.data, dropped.data]),
        )
        return 2, key, state_key(key), rest

    def _state_ttl_s(self, memory_s: int | None) -> int:
        mortal = self._key_ttl_s and memory_s is not None
        return self._key_ttl_s + self._grace_s + (memory_s or 0) if mortal else 0


class RowWriter:
    """Writes rows so that the newest event time wins, whatever the order and the number of writers.

    Args:
        client: The store.
        key_ttl_s: Feast's `key_ttl_seconds`: how long an entity lives after its last write; None is for ever.
    """

    def __init__(self, client: redis.Redis, key_ttl_s: int | None = None) -> None:
        self._client = client
        self._key_ttl_s = key_ttl_s or 0

    def apply(self, rows: Sequence[RowWrite]) -> list[bool]:
        """Write each row unless the view's stored event time is later; False is such a refusal.

        At equal event times the last writer wins, so a correction is never lost. An unreadable stored time loses to
        any row.

        Raises:
            WriteTooLargeError: A row has more than `MAX_FIELDS` values.
            StoreReplyError: The server refused a row for another reason.
            StoreUnavailableError: The store did not answer.
        """
        replies = _WRITE.run(self._client, [_row_call(row, self._key_ttl_s) for row in rows])
        return [reply == _WRITTEN for reply in replies]


class AsyncRowWriter:
    """As `RowWriter`, on an event loop."""

    def __init__(self, client: redis.asyncio.Redis, key_ttl_s: int | None = None) -> None:
        self._client = client
        self._key_ttl_s = key_ttl_s or 0

    async def apply(self, rows: Sequence[RowWrite]) -> list[bool]:
        """As `RowWriter.apply`. Whether the rows of a caller that is cancelled were written is unknown."""
        replies = await _WRITE.run_async(self._client, [_row_call(row, self._key_ttl_s) for row in rows])
        return [reply == _WRITTEN for reply in replies]


def revision_of(state: Mapping[bytes, bytes]) -> int:
    """Return the revision of a loaded state, 0 where there is none."""
    return int(state.get(REVISION_FIELD, b"0"))


@lru_cache(65_536)
def _words_of(numbers: tuple[int, ...]) -> bytes:
    texts = [b"%d" % number for number in numbers]
    return b"".join([b"$%d\r\n%b\r\n" % (len(text), text) for text in texts])


def _outcome(views: Sequence[str], reply: object) -> frozenset[str] | None:
    if reply == _REFUSED:
        return None
    if not isinstance(reply, bytes):
        raise StoreReplyError(f"the store answered a write with {type(reply).__name__}, not with its outcome")
    marks = reply[1:]
    return frozenset(view for view, mark in zip(views, marks, strict=True) if mark == _WRITTEN[0])


def _row_call(row: RowWrite, key_ttl_s: int) -> Command:
    return (1, row.key, b"", key_ttl_s, 0, 0, 1, 0, *_view_words(row.key, row))


def _view_words(key: bytes, view: ViewWrite) -> Iterator[bytes | int]:
    _check_size(key, len(view.values))
    seconds, rest_us = divmod(view.event_us, US_PER_SECOND)
    yield timestamp_field(view.view)
    yield seconds
    yield rest_us * 1_000 + view.event_rest_ns
    yield encode_timestamp(view.event_us, view.event_rest_ns)
    yield 2 * len(view.values)
    yield from chain.from_iterable(view.values.items())


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
