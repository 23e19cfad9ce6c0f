"""Writes that cannot corrupt: an entity changes whole and on conditions, for windowed state and for plain rows.

A script checks the conditions of each entity; where they were looked at beforehand, a transaction does without it.

One rule for every writer: a view's values are written unless the store holds values of a later event time, so the
newest wins whatever the order and the number of writers; at equal event times the last writer wins, so a correction
is never lost. Times are compared to the nanosecond.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import redis
import redis.asyncio

from online.entity_calls import EntityCalls, EntityWrites, check_size, entity_calls
from online.entity_commands import Commands, Seen, entity_commands
from online.errors import StoreReplyError
from online.exchange import LANE_LOADS, ask, exchange_apart
from online.guarded import GUARDED, Guarded
from online.keys import state_key, timestamp_field
from online.route import Command
from online.routed import RoutedClient
from online.script import Script, Send
from online.values import encode_timestamp
from online.words import word

BoolArray = npt.NDArray[np.bool_]

REVISION_FIELD = b"rev"
ENTITIES_PER_CALL = 16
"""Entities of one call of the script, where one server has them all: a call costs as much as half an entity."""

_KEPT = 1
"""Stands for the size of a view that is not written but counted on."""
_LASTING = 0
"""Time to live of a state that shall have none."""
_ACCEPTED, _WRITTEN = b"+", ord("1")
_HEAD = struct.Struct("<IHH")
_SIZE = struct.Struct("<H")

_VIEWS = """
local call = redis.call
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
local function instant(stamp)
  local parts, at = {[8] = 0, [16] = 0}, 1
  while at and parts[stamp:byte(at)] do
    local tag = stamp:byte(at)
    parts[tag], at = varint(stamp, at + 1)
  end
  if parts[8] and parts[16] and at > #stamp then return parts[8], parts[16] end
end
-- Seconds of five bytes (1978 to 3058), and nothing or nanoseconds behind them: the last byte counts most.
local function seconds_of(stamp)
  local tag, a, b, c, d, e, rest = stamp:byte(1, 7)
  if tag == 8 and e and a > 127 and b > 127 and c > 127 and d > 127 and e < 128
    and (not rest or (rest == 16 and stamp:find('^[\\128-\\255]*[%z\\1-\\127]$', 8))) then
    return e * 268435456 + (d - 128) * 2097152 + (c - 128) * 16384 + (b - 128) * 128 + (a - 128)
  end
end
local function is_later(stored, stamp)
  local stored_s, stamp_s = seconds_of(stored), seconds_of(stamp)
  if stored_s and stamp_s and stored_s ~= stamp_s then return stored_s > stamp_s end
  local seconds, nanos = instant(stored)
  if not seconds then return false end
  local new_s, new_ns = instant(stamp)
  return seconds > new_s or (seconds == new_s and nanos > new_ns)
end
-- The words of a view are its timestamp's field and value, and its features' fields and values.
local function put(values, at, size)
  local stamp, stored = ARGV[at + 1], call('HGET', values, ARGV[at])
  if stored and stored ~= stamp and is_later(stored, stamp) then return false end
  call('HSET', values, unpack(ARGV, at, at + size - 1))
  return true
end
local ttl, at = ARGV[1], 2
"""

_ROWS = Script(
    _VIEWS
    + """
if not put(KEYS[1], at, #ARGV - 1) then return 0 end
if ttl ~= '0' then call('EXPIRE', KEYS[1], ttl) end
return 1
"""
)

_ENTITIES = Script(
    _VIEWS
    + """
-- One key more than the entities have: it must hold what comes first.
if #KEYS % 2 == 1 then
  if call('GET', KEYS[#KEYS]) ~= ARGV[2] then return '' end
  at = 3
end
local marks = {}
for n = 1, #KEYS - 1, 2 do
  local values, state, head = KEYS[n], KEYS[n + 1], ARGV[at]
  local memory, words, dropped = struct.unpack('<I4I2I2', head)
  local holds, sizes, place = (call('HGET', state, 'rev') or '0') == ARGV[at + 1], {}, at + 3
  for from = 9, #head, 2 do
    local size = struct.unpack('<I2', head, from)
    if size == 1 and holds and call('HEXISTS', values, ARGV[place]) == 0 then holds = false end
    sizes[#sizes + 1], place = size, place + size
  end
  marks[#marks + 1] = holds and '+' or '-'
  local view, any = at + 3, false
  for v = 1, #sizes do
    local written = holds and sizes[v] > 1 and put(values, view, sizes[v])
    marks[#marks + 1] = written and '1' or '0'
    view, any = view + sizes[v], any or written
  end
  if holds then
    if any and ttl ~= '0' then call('EXPIRE', values, ttl) end
    call('HSET', state, 'rev', ARGV[at + 2], unpack(ARGV, place, place + words - 1))
    if dropped > 0 then call('HDEL', state, unpack(ARGV, place + words, place + words + dropped - 1)) end
    if memory == 0 then call('PERSIST', state)
    elseif memory < 4294967295 then call('EXPIRE', state, memory) end
  end
  at = place + words + dropped
end
return table.concat(marks)
"""
)


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


class Announcement(NamedTuple):
    """What must have happened before entities may be written, and leaves its sign in the store.

    Attributes:
        guarded: Does it.
        key: Holds the sign.
        sign: What no other announcement leaves there.
    """

    guarded: Guarded
    key: bytes
    sign: bytes


class Outcomes(NamedTuple):
    """What became of entity writes.

    Attributes:
        accepted: Shape (entities,). Of what was refused nothing is stored.
        written: Shape (entities, views); a view of an accepted write that was not written has a later event time in the
            store.
        state_bytes: How much of the accepted ones' state was written.
    """

    accepted: BoolArray
    written: BoolArray
    state_bytes: int


class EntityWriter:
    """Applies entity writes on condition of their revision, and loads the state they start from.

    Args:
        client: The store.
        key_ttl_s: Feast's `key_ttl_seconds`: how long an entity lives after its last write; None is for ever.
        grace_s: How much longer its state lives, at least: events may still be late, and be read again.

    Attributes:
        client: As above.
    """

    def __init__(self, client: redis.Redis, key_ttl_s: int | None = None, grace_s: int = 0) -> None:
        self.client = client
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
            StoreReplyError: The server refused a write for another reason (wrong type of a key).
            StoreUnavailableError: The store did not answer, or takes no writes for now (memory full).
        """
        replies = _ENTITIES.run(self.client, [self._call(write) for write in writes])
        return [_outcome(write.views, reply) for write, reply in zip(writes, replies, strict=True)]

    def apply_many(self, parts: Sequence[EntityWrites]) -> list[Outcomes]:
        """As `apply`, of many entities at once, in any order.

        Raises:
            WriteTooLargeError: As there, and so the others.
        """
        laid = self._calls(parts, 1 if isinstance(self.client, RoutedClient) else ENTITIES_PER_CALL)
        return _outcomes(parts, laid, _ENTITIES.run(self.client, laid.calls, apart=True))

    def ask_behind(
        self, announcement: Announcement, parts: Sequence[EntityWrites], send: Send
    ) -> Callable[[], tuple[bool, list[Outcomes] | None]]:
        """As `apply_many`, in one piece with what must happen before, sent at once: the store syncs once for both.

        Args:
            announcement: What must happen before.
            parts: What to write.
            send: Sends commands to the store, one server.

        Returns:
            Waits for whether the announcement was made, and for what became of the writes, or None where its sign was
            not there for all of them, of which the others may have been made. It must be called, in any thread.

        Raises:
            WriteTooLargeError: As in `apply`, and so the others, by what is returned too.
            StoreReplyError: As there.
            StoreUnavailableError: As there.
        """
        laid = self._calls(parts, ENTITIES_PER_CALL, announcement)
        first = GUARDED, announcement.guarded.call()
        called = _ENTITIES.ask_behind(self.client, send, first, laid.calls)

        def take() -> tuple[bool, list[Outcomes] | None]:
            reply, replies = called()
            return bool(reply), _outcomes(parts, laid, replies) if all(replies) else None

        return take

    def commands(self, parts: Sequence[EntityWrites], seen: Mapping[bytes, Seen]) -> Commands | None:
        """The writes as plain commands, which hold for entities as they were seen, as `entity_commands` says it."""
        return entity_commands(parts, self._ttls_s(parts), self._key_ttl_s, seen)

    def load(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Return the state of each entity, revision included; empty where there is none.

        Raises:
            StoreReplyError: A state key holds something else.
            StoreUnavailableError: The store did not answer.
        """
        replies = exchange_apart(self.client, _loads(keys), LANE_LOADS)
        return [_as_dict(reply) for reply in replies]

    def ask(self, keys: Sequence[bytes]) -> Callable[[], list[dict[bytes, bytes]]]:
        """As `load`; the states of few entities are read once they are asked for, which must happen."""
        if len(keys) >= 2 * LANE_LOADS:
            states = self.load(keys)
            return lambda: states
        replies = ask(self.client, _loads(keys))
        return lambda: [_as_dict(reply) for reply in replies()]

    def _call(self, write: EntityWrite) -> Command:
        state, dropped = write.state, write.dropped
        check_size(write.key, max(len(state), len(dropped)))
        if REVISION_FIELD in state or REVISION_FIELD in dropped:
            raise ValueError(
                f"the state field {REVISION_FIELD!r} is kept by the writer; leave it out of the write"
            )
        views = [tuple(_view_words(write.key, view)) for view in write.views]
        sizes = [_KEPT] * len(write.kept) + [len(words) for words in views]
        memory_s = self._state_ttl_s(write.memory_s)
        head = _HEAD.pack(memory_s, 2 * len(state), len(dropped)) + b"".join(map(_SIZE.pack, sizes))
        return (
            2,
            write.key,
            state_key(write.key),
            self._key_ttl_s,
            head,
            write.revision,
            write.revision + 1,
            *(timestamp_field(view) for view in write.kept),
            *chain.from_iterable(views),
            *chain.from_iterable(state.items()),
            *dropped,
        )

    def _calls(
        self, parts: Sequence[EntityWrites], each: int, announcement: Announcement | None = None
    ) -> EntityCalls:
        ttls_s = self._ttls_s(parts)
        ttl = word(b"%d" % self._key_ttl_s)
        if announcement is None:
            return entity_calls(parts, ttls_s, ttl, 0, each)
        return entity_calls(parts, ttls_s, word(announcement.key) + ttl + word(announcement.sign), 1, each)

    def _ttls_s(self, parts: Sequence[EntityWrites]) -> list[int]:
        return [self._state_ttl_s(part.memory_s) for part in parts]

    def _state_ttl_s(self, memory_s: int | None) -> int:
        mortal = self._key_ttl_s and memory_s is not None
        return self._key_ttl_s + self._grace_s + (memory_s or 0) if mortal else _LASTING


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
        replies = _ROWS.run(self._client, [_row_call(row, self._key_ttl_s) for row in rows])
        return [reply == 1 for reply in replies]


class AsyncRowWriter:
    """As `RowWriter`, on an event loop."""

    def __init__(self, client: redis.asyncio.Redis, key_ttl_s: int | None = None) -> None:
        self._client = client
        self._key_ttl_s = key_ttl_s or 0

    async def apply(self, rows: Sequence[RowWrite]) -> list[bool]:
        """As `RowWriter.apply`. Whether the rows of a caller that is cancelled were written is unknown."""
        replies = await _ROWS.run_async(self._client, [_row_call(row, self._key_ttl_s) for row in rows])
        return [reply == 1 for reply in replies]


def revision_of(state: Mapping[bytes, bytes]) -> int:
    """Return the revision of a loaded state, 0 where there is none."""
    return int(state.get(REVISION_FIELD, b"0"))


def _outcome(views: Sequence[ViewWrite], reply: object) -> frozenset[str] | None:
    marks = _marks(reply)
    if marks[:1] != _ACCEPTED:
        return None
    own = marks[len(marks) - len(views) :]
    return frozenset(view.view for view, mark in zip(views, own, strict=True) if mark == _WRITTEN)


def _outcomes(parts: Sequence[EntityWrites], laid: EntityCalls, replies: Sequence[object]) -> list[Outcomes]:
    marks = np.frombuffer(b"".join(map(_marks, replies)), dtype=np.uint8)
    outcomes, entity, mark = [], 0, 0
    for part in parts:
        count, width = len(part.keys), 1 + len(part.views)
        table = marks[mark : mark + count * width].reshape(count, width)
        accepted = table[:, 0] == _ACCEPTED[0]
        state_bytes = int(laid.state_bytes[entity : entity + count][accepted].sum())
        outcomes.append(Outcomes(accepted, table[:, 1:] == _WRITTEN, state_bytes))
        entity, mark = entity + count, mark + count * width
    return outcomes


def _marks(reply: object) -> bytes:
    if not isinstance(reply, bytes):
        raise StoreReplyError(f"the store answered a write with {type(reply).__name__}, not with its outcome")
    return reply


def _row_call(row: RowWrite, key_ttl_s: int) -> Command:
    return (1, row.key, key_ttl_s, *_view_words(row.key, row))


def _view_words(key: bytes, view: ViewWrite) -> Iterator[bytes]:
    check_size(key, len(view.values))
    yield timestamp_field(view.view)
    yield encode_timestamp(view.event_us, view.event_rest_ns)
    yield from chain.from_iterable(view.values.items())


def _loads(keys: Sequence[bytes]) -> list[Command]:
    return [(b"HGETALL", state_key(key)) for key in keys]


def _as_dict(reply: object) -> dict[bytes, bytes]:
    if isinstance(reply, redis.RedisError):
        raise StoreReplyError(f"the store refused to read a state: {reply}") from reply
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=True))
    raise StoreReplyError(f"the store answered a read of state with {type(reply).__name__}, not fields")
