"""Taking entities, or one view of all entities, out of the online store: their keys exactly, and nobody else's.

Keys are found by SCAN on every server, in bounded steps, and each is read whole before it is touched: a key of another
project whose name ends the same is another key. What is removed goes together with Waypost's state of it, in one
script, so that a stream which runs meanwhile finds its write refused and starts from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from online.errors import KeyEncodingError, StoreReplyError, StoreUnavailableError
from online.exchange import exchange
from online.keys import StoredKey, entity_key_of, parse_key, state_key
from online.script import Script
from online.store import nodes, place
from online.topology import told

SCAN_COUNT = 1_000

Progress = Callable[[int, int], None]
"""Called with (keys looked at so far, about how many there are)."""

_ERASE = Script("""
local values, state = redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2])
local kept = redis.call('HGET', KEYS[2], ARGV[2])
if ARGV[1] == '1' then redis.call('DEL', KEYS[1], KEYS[2]) end
return {values, state, kept or ''}
""")

_RETIRE = Script("""
local apply, stamp, count, names = ARGV[1] == '1', ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local fields, chunks, others = {}, {}, false
local wanted, exact = {[stamp] = true}, {}
for at = 5, 4 + count do wanted[ARGV[at]] = true end
for at = 5 + count, 4 + count + names do exact[ARGV[at]] = true end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if wanted[field] then fields[#fields + 1] = field
  elseif field:sub(1, 4) == '_ts:' then others = true end
end
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  local found = exact[name]
  for at = 5 + count + names, #ARGV do
    found = found or name:sub(1, #ARGV[at]) == ARGV[at]
  end
  if found then chunks[#chunks + 1] = name end
end
local whole = #fields > 0 and not others
if apply then
  if whole then redis.call('DEL', KEYS[1])
  else for _, field in ipairs(fields) do redis.call('HDEL', KEYS[1], field) end end
  for _, name in ipairs(chunks) do redis.call('HDEL', KEYS[2], name) end
  if #chunks > 0 then redis.call('HINCRBY', KEYS[2], 'rev', 1) end
end
return {#fields, #chunks, whole and 1 or 0}
""")


@dataclass(frozen=True, slots=True)
class Erased:
    """What an entity had.

    Attributes:
        fields: Fields of Feast's hash, values and timestamps.
        chunks: Fields of Waypost's state.
        kept: The chunk of state that was asked for, b"" where there was none.
    """

    key: bytes
    fields: int
    chunks: int
    kept: bytes


@dataclass(frozen=True, slots=True)
class Retired:
    """What an entity had of a view; `whole` says that nothing else of it was left and the hash went."""

    key: bytes
    fields: int
    chunks: int
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFields:
    """What one view occupies in an entity's two hashes.

    Attributes:
        stamp: Hash field of its event time.
        fields: Hash fields of its features.
        chunks: Fields of the state by name.
        chunk_prefixes: … and by how they begin.
    """

    stamp: bytes
    fields: tuple[bytes, ...]
    chunks: tuple[bytes, ...]
    chunk_prefixes: tuple[bytes, ...]


def find_entities(
    client: redis.Redis, pattern: bytes, wanted: Callable[[StoredKey], bool], progress: Progress
) -> Iterator[list[bytes]]:
    """Yield entity keys, in batches of some hundreds, also of entities of which state alone is left.

    SCAN may show a key twice while the store's tables grow; what was removed is then found empty.

    Args:
        client: The store.
        pattern: A glob that finds at least what is wanted (`key_pattern`).
        wanted: Decides on what a key says.
        progress: Told how far it is.

    Raises:
        StoreUnavailableError: A server stopped answering; it is named.
    """
    servers: list[Any] = list(nodes(client))
    sizes = [_asked(server, server.dbsize) for server in servers]
    total, done = sum(sizes), 0
    for server, size in zip(servers, sizes, strict=True):
        cursor, seen = 0, 0
        while True:
            cursor, keys = _asked(server, server.scan, cursor, match=pattern, count=SCAN_COUNT, _type="hash")
            seen = min(seen + SCAN_COUNT, size)
            found = _entities(client, keys, wanted)
            if found:
                yield found
            progress(done + seen, total)
            if cursor == 0:
                break
        done += size
    progress(total, total)


def erase_entities(client: redis.Redis, keys: Sequence[bytes], keep: bytes, *, apply: bool) -> list[Erased]:
    """Remove entities, values and state at once; or, without `apply`, only say what they have.

    Args:
        client: The store.
        keys: Entity keys.
        keep: Field of the state to return.
        apply: Whether to remove.

    Raises:
        StoreReplyError: The server refused.
        StoreUnavailableError: It did not answer; an entity is removed whole or not at all.
    """
    calls = [(2, key, state_key(key), int(apply), keep) for key in keys]
    found = []
    for key, reply in zip(keys, _ERASE.run(client, calls), strict=True):
        fields, chunks, kept = _parts(reply)
        found.append(Erased(key, fields, chunks, kept))
    return found


def retire_view(
    client: redis.Redis, keys: Sequence[bytes], view: ViewFields, *, apply: bool
) -> list[Retired]:
    """Remove one view from entities, and its state; or, without `apply`, only say what there is.

    A hash that no other view has a part in goes whole, as Feast does it.

    Raises:
        StoreReplyError: The server refused.
        StoreUnavailableError: It did not answer.
    """
    words = (
        view.stamp,
        len(view.fields),
        len(view.chunks),
        *view.fields,
        *view.chunks,
        *view.chunk_prefixes,
    )
    calls = [(2, key, state_key(key), int(apply), *words) for key in keys]
    found = []
    for key, reply in zip(keys, _RETIRE.run(client, calls), strict=True):
        fields, chunks, whole = _parts(reply)
        found.append(Retired(key, fields, chunks, bool(whole)))
    return found


def _parts(reply: object) -> tuple[Any, Any, Any]:
    if not isinstance(reply, list) or len(reply) != 3:
        raise StoreReplyError(
            f"the store answered a removal with {type(reply).__name__}, not with what it removed"
        )
    return reply[0], reply[1], reply[2]


def _entities(client: redis.Redis, keys: Sequence[bytes], wanted: Callable[[StoredKey], bool]) -> list[bytes]:
    """Entities of the keys found: by their own keys, and by their state's where they have no other."""
    entities = [(entity_key_of(key), key) for key in dict.fromkeys(keys)]
    named = [(entity, key) for entity, key in entities if _is(entity, wanted)]
    by_state = [entity for entity, key in named if entity != key]
    held = exchange(client, ((b"EXISTS", entity) for entity in by_state))
    orphans = [entity for entity, reply in zip(by_state, held, strict=True) if reply == 0]
    return [entity for entity, key in named if entity == key] + orphans


def _is(key: bytes, wanted: Callable[[StoredKey], bool]) -> bool:
    try:
        return wanted(parse_key(key))
    except KeyEncodingError:
        return False


def _asked(server: redis.Redis, command: Callable[..., Any], *words: Any, **options: Any) -> Any:
    try:
        return command(*words, **options)
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailableError(
            f"the store at {place(server)} stopped answering: {told(error)}"
        ) from error
