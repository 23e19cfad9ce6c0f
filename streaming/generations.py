"""Which definition of each stream view serves, and how another one takes over in one instant.

One hash of the project holds it all, so that a switch is one script. A view has the digest of the definition that
serves and a generation, which is part of the names under which states keep the view: what was built under another
definition is never taken for its own. A view without a digest waits to be built (`streaming/shadow.py`).

A build ends with a pause. Each owner moves its checkpoint behind everything it has read, says where it stands, and
waits. The switch holds only if all still stand there. An owner leaves by taking back what it said, before anything
else, and only then asks which definitions serve; so does one that takes a partition over.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from online.script import Script
from streaming.errors import StreamingError
from streaming.keys import PartitionKeys, build_key, members_key, views_key

BUILD_TTL_MS = 10_000
VERSIONS_MAX = 100
"""So many versions of a repo's definitions are remembered that others have come after."""
BUILDS = "builds"
"""Field: how many builds there have been."""
PROGRESS = "progress"
"""Field: JSON of the arguments of `Generations.tell`."""
POLL_S = 0.05

_SETTLE = Script("""
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local whole, owner, life_ms, version = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local newest = redis.call('HGET', KEYS[1], 'newest')
local past = cjson.decode(redis.call('HGET', KEYS[1], 'past') or '[]')
local is_past, others = false, {}
for _, each in ipairs(past) do
  if each == version then is_past = true else others[#others + 1] = each end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field:sub(1, 5) == 'runs:' then
    local score = redis.call('ZSCORE', KEYS[2], field:sub(6))
    if not score or tonumber(score) <= now_ms then
      redis.call('HDEL', KEYS[1], field)
    elseif is_past and redis.call('HGET', KEYS[1], field) == newest then
      return field:sub(6)
    end
  end
end
if newest ~= version then
  if newest then others[#others + 1] = newest end
  while #others > tonumber(ARGV[5]) do table.remove(others, 1) end
  redis.call('HSET', KEYS[1], 'newest', version)
  if #others > 0 then redis.call('HSET', KEYS[1], 'past', cjson.encode(others)) end
  redis.call('DEL', KEYS[3])
  redis.call('HDEL', KEYS[1], 'pause')
end
if life_ms > 0 then
  redis.call('HSET', KEYS[1], 'runs:' .. owner, version)
  redis.call('ZADD', KEYS[2], now_ms + life_ms, owner)
end
local known, wanted = redis.call('HEXISTS', KEYS[1], 'whole') == 1, {}
if not known then redis.call('HSET', KEYS[1], 'whole', whole) end
for at = 6, #ARGV, 3 do
  local view, digest = ARGV[at], ARGV[at + 1]
  wanted[view] = true
  local held = redis.call('HGET', KEYS[1], 'digest:' .. view)
  if not known then
    redis.call('HSET', KEYS[1], 'digest:' .. view, digest, 'generation:' .. view, '', 'features:' .. view, ARGV[at + 2])
  elseif held and held ~= digest then
    redis.call('HSET', KEYS[1], 'digest:' .. view, '')
  end
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field:sub(1, 7) == 'digest:' and not wanted[field:sub(8)] then
    redis.call('HDEL', KEYS[1], field, 'generation:' .. field:sub(8))
  end
end
return ''
""")
_ARRIVE = Script("""
if redis.call('HGET', KEYS[1], 'pause') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) and 1
""")
_LEAVE = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")
_SWITCH = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('HGET', KEYS[1], 'pause') ~= ARGV[1] then return 0 end
local count = tonumber(ARGV[2])
for at = 3, 2 + 2 * count, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then return 0 end
end
for at = 3, 2 + 2 * count, 2 do redis.call('HDEL', KEYS[1], ARGV[at]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 3 + 2 * count))
redis.call('HDEL', KEYS[1], 'pause')
return 1
""")
_TAKE = Script("""
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
local name = string.format('g%08x', redis.call('HINCRBY', KEYS[1], ARGV[1], 1)) .. ARGV[2]
redis.call('SET', KEYS[2], name, 'PX', ARGV[3])
return name
""")
_RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[2], 'pause')
return redis.call('DEL', KEYS[1])
""")
_FINISHED = Script("""
local left = redis.call('HGET', KEYS[1], ARGV[1])
if not left or cjson.decode(left).generation ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")


_OUTDATED = (
    "another definition serves, or is to serve, than that of this process's repo: bring the repo up to date and start "
    "the materializer again"
)


class DefinitionsOutdated(StreamingError):
    """Another definition of a view serves, or is to, than this process knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a view's values depend on.

    Attributes:
        digest: Changes with it.
        features: Names of the view's features.
    """

    digest: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What is left to be done of a switch: values and rows of the definition before must go.

    Attributes:
        view: Its name.
        generation: That serves now.
        features: That the definition before had.
        intents: By partition, the last intent before the switch.
    """

    view: str
    generation: str
    features: tuple[str, ...]
    intents: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the owner of a partition stands in a pause."""

    said: str
    fence: int
    position: int


class Generations:
    """The hash of one project.

    Args:
        client: Connection to the store.
        project: The Feast project.
    """

    def __init__(self, client: redis.Redis, project: str) -> None:
        self._client: Any = client
        self._project = project
        self._key = views_key(project)
        self._lock = build_key(project)

    def settle(
        self, definitions: Mapping[str, Definition], partition_count: int, owner: str = "", life_ms: int = 0
    ) -> None:
        """Take the definitions of a repo down: all as they serve in a new store, later the changed ones as waiting.

        A store on which materializers ran before there were generations serves what the repo defines, and its archive
        does not go back to the beginning.

        Definitions that were not seen before are newer than all that were. Those that others have come after may come
        back, and are the newest then, once no materializer runs with the ones that are newest now. A build of what is
        the newest no more can no longer switch.

        Args:
            definitions: Of all stream views of the repo.
            partition_count: Of the log.
            owner: The materializer that is to run with them; it is counted among the members from then on.
            life_ms: How long it stays one unless it says again that it is there; 0 for who is none.

        Raises:
            DefinitionsOutdated: Somebody runs with newer ones; nothing is changed.
        """
        keys = [PartitionKeys(self._project, number) for number in range(partition_count)]
        began = any(self._client.exists(key.checkpoint, key.applied) for key in keys)
        words = [
            word
            for view, definition in sorted(definitions.items())
            for word in (view, definition.digest, json.dumps(definition.features))
        ]
        newer = self._call(
            _SETTLE,
            [int(not began), owner, life_ms, _version(definitions), VERSIONS_MAX, *words],
            members_key(self._project),
            self._lock,
        )
        if newer:
            assert isinstance(newer, bytes)
            raise DefinitionsOutdated(
                f"materializer {newer.decode()} runs with newer definitions of stream views than this process's repo "
                "has: bring the repo up to date; to go back to these, stop those that run with the newer ones first"
            )

    def check_newest(self, definitions: Mapping[str, Definition]) -> None:
        """See that nobody has settled others since.

        Raises:
            DefinitionsOutdated: Somebody has.
        """
        if self._fields().get("newest") != _version(definitions):
            raise DefinitionsOutdated(_OUTDATED)

    def serving(self, definitions: Mapping[str, Definition]) -> dict[str, str]:
        """Generation by view of those that are built as they are defined; the others wait.

        Raises:
            DefinitionsOutdated: Of a view another definition serves, or one serves that is not among them: its events
                would be passed over.
        """
        held = self._fields()
        found = {}
        for name, digest in held.items():
            if name.startswith("digest:") and digest and name.removeprefix("digest:") not in definitions:
                raise DefinitionsOutdated(f"view {name.removeprefix('digest:')!r}: {_OUTDATED}")
        for view, definition in definitions.items():
            digest = held.get(f"digest:{view}", "")
            if digest == definition.digest:
                found[view] = held[f"generation:{view}"]
            elif digest:
                raise DefinitionsOutdated(f"view {view!r}: {_OUTDATED}")
        return found

    def is_whole(self) -> bool:
        """Whether the archive goes back to the beginning."""
        return self._fields().get("whole") == "1"

    def features_before(self, view: str) -> tuple[str, ...]:
        """Features of the definition that was built last."""
        return tuple(json.loads(self._fields().get(f"features:{view}", "[]")))

    def enter(self, partition: int) -> None:
        """Before an owner does anything else: nobody of the partition stands in a pause."""
        self._client.hdel(self._key, _place(partition))

    def pause(self) -> str:
        """The build that asks for a pause and is at work; nothing where none does."""
        asked, holder = (
            self._client.pipeline(transaction=False).hget(self._key, "pause").get(self._lock).execute()
        )
        return asked.decode() if asked and asked == holder else ""

    def stand(self, build: str, partition: int, fence: int, position: int, stopping: threading.Event) -> None:
        """Say where an owner stands, and wait until the pause is over."""
        said = f"{fence}:{position}"
        if not self._run(_ARRIVE, [build, _place(partition), said]):
            return
        while not stopping.wait(POLL_S) and self.pause() == build:
            pass
        self._run(_LEAVE, [_place(partition), said])

    def build_count(self) -> int:
        """How many builds there were so far."""
        return int(self._client.hget(self._key, BUILDS) or 0)

    def take(self) -> str:
        """Become the one that builds; returns the build's name, nothing where another is at it.

        Names are texts in the order of the builds, so that whoever stood still knows what came after it. In a store
        that was set back to a copy it is none that was there before, either.
        """
        name = self._call(_TAKE, [BUILDS, secrets.token_hex(2), BUILD_TTL_MS], self._lock)
        assert name is None or isinstance(name, bytes)
        return (name or b"").decode()

    def keep(self, build: str) -> bool:
        """Stay it for another while; False where another has come."""
        (held,) = _RENEW.run(self._client, [(1, self._lock.encode(), build.encode(), BUILD_TTL_MS)])
        return bool(held)

    def give_up(self, build: str) -> None:
        """Let another build, and end the pause."""
        _RELEASE.run(self._client, [(2, self._lock.encode(), self._key.encode(), build.encode())])

    def ask_for_pause(self, build: str) -> None:
        """Have the owners stand still once they see it."""
        self._client.hset(self._key, "pause", build)

    def end_pause(self) -> None:
        """Let them go on."""
        self._client.hdel(self._key, "pause")

    def are_owned(self, partition_count: int) -> bool:
        """Whether every partition has an owner now."""
        pipeline = self._client.pipeline(transaction=False)
        for number in range(partition_count):
            pipeline.exists(PartitionKeys(self._project, number).lease)
        return all(pipeline.execute())

    def standing(self, partition_count: int) -> dict[int, Standing] | None:
        """Where the owners stand; None while one does not, or what is there was said by an owner before."""
        held = self._fields()
        found = {}
        for partition in range(partition_count):
            said = held.get(_place(partition))
            if said is None:
                return None
            fence, position = map(int, said.split(":"))
            if int(self._client.get(PartitionKeys(self._project, partition).fence) or 0) != fence:
                return None
            found[partition] = Standing(said=said, fence=fence, position=position)
        return found

    def switch(
        self,
        build: str,
        standing: Mapping[int, Standing],
        built: Mapping[str, Definition],
        generation: str,
        intents: Mapping[int, int],
    ) -> bool:
        """Have definitions serve from now on; False, and nothing happens, where an owner has moved since.

        So it is where the build holds the lock no more: then another may have taken away what it left.
        """
        places = [word for number, at in standing.items() for word in (_place(number), at.said)]
        changed: list[str] = []
        for view, definition in built.items():
            unfinished = {
                "generation": generation,
                "features": self.features_before(view),
                "intents": intents,
            }
            changed += [f"digest:{view}", definition.digest, f"generation:{view}", generation]
            changed += [f"features:{view}", json.dumps(definition.features)]
            changed += [f"unfinished:{view}", json.dumps(unfinished)]
        return bool(self._run(_SWITCH, [build, len(standing), *places, *changed], self._lock))

    def unfinished(self) -> list[Unfinished]:
        """What is left to be done of switches."""
        found = []
        for name, text in self._fields().items():
            if name.startswith("unfinished:"):
                left = json.loads(text)
                found.append(
                    Unfinished(
                        view=name.removeprefix("unfinished:"),
                        generation=left["generation"],
                        features=tuple(left["features"]),
                        intents={int(number): intent for number, intent in left["intents"].items()},
                    )
                )
        return found

    def finished(self, left: Unfinished) -> None:
        """Nothing is left to be done of a switch; of a later one of the view there may be."""
        self._run(_FINISHED, [f"unfinished:{left.view}", left.generation])

    def tell(self, views: Sequence[str], stage: str, done: int, total: int) -> None:
        """Leave word of how far a build is, for `waypost status`."""
        told = {"views": list(views), "stage": stage, "done": done, "total": total}
        self._client.hset(self._key, PROGRESS, json.dumps(told))

    def untell(self) -> None:
        """Nothing is being built."""
        self._client.hdel(self._key, PROGRESS)

    def _fields(self) -> dict[str, str]:
        stored = self._client.hgetall(self._key)
        return {name.decode(): value.decode() for name, value in stored.items()}

    def _run(self, script: Script, words: Sequence[str | int], *more_keys: str) -> int:
        reply = self._call(script, words, *more_keys)
        assert isinstance(reply, int)
        return reply

    def _call(self, script: Script, words: Sequence[str | int], *more_keys: str) -> object:
        arguments = [word.encode() if isinstance(word, str) else word for word in words]
        keys = [key.encode() for key in (self._key, *more_keys)]
        (reply,) = script.run(self._client, [(len(keys), *keys, *arguments)])
        return reply


def _version(definitions: Mapping[str, Definition]) -> str:
    """Of all definitions of a repo together."""
    known = sorted((view, definition.digest) for view, definition in definitions.items())
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _place(partition: int) -> str:
    return f"stands:{partition}"
