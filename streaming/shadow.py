"""New and changed views, built from the archive in the shadow of those that serve, and put in their place.

First all of the past is swept, as a backfill does it, while the owners of the partitions follow the log with the views
that are built already. Then the archive is followed, round after round, until little is left. In a pause of the owners
(`streaming/generations.py`) the rest is taken in, and what was built is put into the entities' states under a name that
nobody reads yet. The switch is one script. From then on the owners take the views as their own; a timer for each
entity has them show its values.

A build that dies leaves nothing that is read: the next one begins again, under another name.
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import redis
import structlog

from decision.schema import Catalog, View
from online.exchange import exchange
from online.keys import feature_field, key_pattern, state_key, timestamp_field
from online.removal import find_entities
from online.script import Script
from online.write import EntityWrite, EntityWriter, revision_of
from streaming.advance import advance
from streaming.archive import archived_events, backfilled_count, read_backfilled, read_live
from streaming.backfill import announce
from streaming.entity import LATEST_PREFIX, POSITIONS, WINDOWS_PREFIX, EntityState, small_fields
from streaming.errors import StreamingError
from streaming.events import Events, EventSchema
from streaming.file_locks import outlast_writers
from streaming.fill import ViewFill, state_of
from streaming.frame import events_frame
from streaming.generations import Definition, Generations, Standing, Unfinished
from streaming.history import ENVELOPE, history_frame
from streaming.keys import PartitionKeys
from streaming.kind_feeds import KindFeeds, Progress, parts_for
from streaming.plan import EntityKind, SourceEvents, StreamPlan, ViewPlan
from streaming.redating import former_mark
from streaming.sink import parts_folder
from streaming.windows.state import encode

log = structlog.get_logger()

ENTITIES_PER_WRITE = 2_000
EVENTS_AT_ONCE = 100_000
"""Fewer than a backfill has in memory: materializers are at work beside."""
BYTES_AT_ONCE = 32 * 2**20
"""Fewer events where they are of more bytes than this."""
FEW_EVENTS = 20_000
"""So many events are taken in during the pause without another round before it."""
MAX_ROUNDS = 20
MAX_ATTEMPTS = 20
PAUSE_S = 10.0
REST_S = 20.0
"""Between a pause in which not all owners came to stand and the next: those that did must get on."""
POLL_S = 0.05
_TIME = struct.Struct("<q")
_STAGED = ".build-"

_PRUNE = Script("""
local view, own, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local built, before = false, {}
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  local kind, after = name:sub(1, 2), name:sub(3 + #view, 3 + #view)
  local of_view = (kind == 'w:' or kind == 'l:') and name:sub(3, 2 + #view) == view
  if of_view and (after == '' or after == ':' or after == '@') then
    local generation = name:sub(3 + #view):match('^@([^:]*)') or ''
    if generation > own then return 0 end
    if generation == own then built = true else before[#before + 1] = name end
  end
end
-- Where it was built, its owner drops them with the first write, which they tell from others.
if not built then
  for _, name in ipairs(before) do redis.call('HDEL', KEYS[2], name) end
end
for at = 4 + (built and count or 0), #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
return 1
""")
"""Fields of an entity's hash that the view has now come first, so many; then those that it has no more.

Whoever stood still since a generation was switched leaves alone what later ones have.
"""


class BuildAbandoned(StreamingError):
    """A build cannot go on now; it begins again."""


@dataclass(slots=True)
class _Reached:
    """How far the archive is taken in: position by partition, events archived up to there, and logical time."""

    positions: dict[int, int] = field(default_factory=dict)
    archived: dict[int, int] = field(default_factory=dict)
    until_us: int = 0


class ShadowBuild:
    """One build of some views.

    Args:
        client: Connection to the store.
        writer: The conditional write.
        plan: The views to be built, in a generation of their own, and nothing else.
        whole: The plan of all views; for how long states live.
        schema: For the types of properties.
        archive: The project's archive.
        partition_count: Of the log.
        progress: Called with (stage, done, total).
        at_once: About so many events, or rows of a view, are in memory.
    """

    def __init__(
        self,
        *,
        client: redis.Redis,
        writer: EntityWriter,
        plan: StreamPlan,
        whole: StreamPlan,
        schema: EventSchema,
        archive: Path,
        partition_count: int,
        progress: Progress,
        at_once: int = EVENTS_AT_ONCE,
    ) -> None:
        self._client: Any = client
        self._writer = writer
        self._plan = plan
        self._whole = whole
        self._schema = schema
        self._archive = archive
        self._keys = [PartitionKeys(plan.project, number) for number in range(partition_count)]
        self._progress = progress
        self._at_once = at_once
        # Segments are evaluated once the views serve.
        self._kinds = [
            replace(kind, segments=(), segments_view=None, borrowed=()) for kind in plan.kinds if kind.views
        ]
        self._states: dict[str, dict[bytes, EntityState]] = {kind.name: {} for kind in self._kinds}
        self._touched: dict[str, set[bytes]] = {kind.name: set() for kind in self._kinds}
        self._reached = _Reached()

    def sweep(self, generation: str) -> None:
        """Take all of the past in, and leave its offline rows where nobody reads them.

        Raises:
            StreamingError: If the archive does not hold what was archived, or a view cannot be computed.
        """
        reached = self._checkpoints()
        count = backfilled_count(self._archive) + sum(reached.archived.values())
        with ExitStack() as files:
            part_count = parts_for(count, self._at_once)
            feeds = [KindFeeds(kind, part_count, self._archive, files, self._at_once) for kind in self._kinds]
            done = 0
            for events in self._past(reached):
                source = SourceEvents.of(events)
                reached.until_us = max(reached.until_us, int(source.event_us.max()))
                rows = self._plan.rows(source)
                for own in feeds:
                    own.add(rows)
                done += len(events)
                self._progress("past", done, max(count, done))
            for own in feeds:
                self._fill(own, generation, reached.until_us)
        for kind in self._kinds:
            self._touched[kind.name] = set(self._states[kind.name])
        self._reached = reached

    def _fill(self, feeds: KindFeeds, generation: str, until_us: int) -> None:
        """Bring the entities of a kind to a logical time."""
        kind = feeds.kind
        fills = {
            plan.view.name: ViewFill(kind, plan, _parts(plan.view, generation), nullcontext())
            for plan in kind.views
            if plan.windows is not None
        }
        for part in range(feeds.part_count):
            feeds.bring(part, fills, self._states[kind.name], until_us, self._progress)

    def follow(self) -> None:
        """Take in what was archived meanwhile, until that is little."""
        for _ in range(MAX_ROUNDS):
            if self.catch_up() <= FEW_EVENTS:
                return

    def catch_up(self) -> int:
        """Take in what is behind the checkpoints now; returns how many events that were."""
        reached = self._checkpoints()
        reached.until_us = max(reached.until_us, self._reached.until_us)
        count = 0
        for events in self._published(reached, self._reached.positions):
            feeds = self._plan.rows(SourceEvents.of(events))
            for kind in self._kinds:
                states = self._states[kind.name]
                fed = list(dict.fromkeys(key for plan in kind.views for key in feeds[plan.view.name].keys))
                own = [state_of(states, key, reached.until_us) for key in fed]
                self._touched[kind.name].update(fed)
                advance(kind, fed, own, feeds, None, {}, reached.until_us)
            count += len(events)
            self._progress("following", count, count)
        self._reached = reached
        return count

    def prepare(self) -> None:
        """Put what is built so far into the entities' states, while the owners go on; `install` has less to write then.

        An owner that writes an entity afterwards drops what it does not know, and `install` sees that.
        """
        for kind in self._kinds:
            touched = list(self._touched[kind.name])
            for chunk in self._chunks(kind, touched):
                self._put(kind, chunk, at_us=None)
            self._touched[kind.name].clear()

    def install(self) -> None:
        """Bring the entities' states to what is built; the owners stand still.

        Each entity is left a moment before the time it was brought to, so that it has something to show at that time.

        Raises:
            BuildAbandoned: They do not: this process did, for longer than they wait.
        """
        at_us = self._reached.until_us
        for kind in self._kinds:
            for chunk in self._chunks(kind, list(self._states[kind.name])):
                self._put(kind, self._outdated(kind, chunk), at_us=at_us - 1)
                due = ((key, at_us) for key in chunk)
                announce(self._client, self._plan.kind_by_name[kind.name], self._plan, due, len(self._keys))
            self._touched[kind.name].clear()

    def _chunks(self, kind: EntityKind, keys: list[bytes]) -> Iterator[list[bytes]]:
        for start in range(0, len(keys), ENTITIES_PER_WRITE):
            chunk = keys[start : start + ENTITIES_PER_WRITE]
            yield chunk
            self._progress(f"writing {kind.name}", start + len(chunk), len(keys))

    def _outdated(self, kind: EntityKind, keys: list[bytes]) -> list[bytes]:
        """Those that lack something of what is built, or stand at the time at which they are to show it."""
        names = [_marker(plan) for plan in kind.views]
        replies = exchange(self._client, ((b"HMGET", state_key(key), POSITIONS, *names) for key in keys))
        states, touched = self._states[kind.name], self._touched[kind.name]
        found = []
        for key, reply in zip(keys, replies, strict=True):
            if not isinstance(reply, list):
                raise BuildAbandoned(f"the state of {key!r} cannot be read: {reply}")
            positions, *held = reply
            wanted = _markers(kind, states[key])
            lacks = any(name in wanted and data is None for name, data in zip(names, held, strict=True))
            late = positions is not None and _TIME.unpack_from(positions)[0] >= self._reached.until_us
            if lacks or late or key in touched:
                found.append(key)
        return found

    def intents(self) -> dict[int, int]:
        """The last intent behind each partition's checkpoint."""
        return {keys.partition: int(self._client.hget(keys.checkpoint, "intent") or 0) for keys in self._keys}

    def has_reached(self, standing: Mapping[int, Standing]) -> bool:
        """Whether what the owners have behind them is what was taken in."""
        return all(self._reached.positions[number] == at.position for number, at in standing.items())

    def _put(self, kind: EntityKind, keys: list[bytes], *, at_us: int | None) -> None:
        for _ in range(MAX_ATTEMPTS):
            if not keys:
                return
            stored = self._writer.load(keys)
            writes = [self._write(kind, key, held, at_us) for key, held in zip(keys, stored, strict=True)]
            replies = self._writer.apply(writes)
            keys = [key for key, reply in zip(keys, replies, strict=True) if reply is None]
        if keys:
            raise BuildAbandoned(f"{len(keys)} entities changed {MAX_ATTEMPTS} times while they were written")

    def _write(
        self, kind: EntityKind, key: bytes, held: Mapping[bytes, bytes], at_us: int | None
    ) -> EntityWrite:
        state = self._states[kind.name][key]
        fields = small_fields(state)
        for windows, tiles in zip(kind.windows.values(), state.tiles, strict=False):
            if tiles is not None:
                fields |= encode(windows, tiles)
        fields |= {former_mark(plan.view.name): b"" for plan in kind.views if plan.windows is not None}
        own = tuple(b"%b%b:" % (WINDOWS_PREFIX, name.encode()) for name in kind.windows)
        dropped = tuple(name for name in held if name.startswith(own) and name not in fields)
        if at_us is not None:
            # No view stands at a later time than the build: that is the latest of all partitions.
            positions = held.get(POSITIONS, _TIME.pack(0))
            if _TIME.unpack_from(positions)[0] > self._reached.until_us:
                raise BuildAbandoned("the owners have gone on meanwhile")
            fields[POSITIONS] = _TIME.pack(at_us) + positions[_TIME.size :]
        return EntityWrite(
            key=key,
            revision=revision_of(held),
            views=(),
            state=fields,
            dropped=dropped,
            memory_s=self._whole.kind_by_name[kind.name].memory_s,
        )

    def _checkpoints(self) -> _Reached:
        reached = _Reached()
        for keys in self._keys:
            names = ["position", "archived", "time_us"]
            position, archived, time_us = self._client.hmget(keys.checkpoint, names)
            reached.positions[keys.partition] = int(position or 0)
            reached.archived[keys.partition] = int(archived or 0)
            reached.until_us = max(reached.until_us, int(time_us or 0))
        return reached

    def _past(self, reached: _Reached) -> Iterator[pd.DataFrame]:
        """All events up to where the owners are, some at a time."""
        known = {*ENVELOPE, *self._schema.property_types}
        for table in read_backfilled(self._archive):
            for some in self._cut(table.select([name for name in table.column_names if name in known])):
                yield history_frame(some, self._schema)
        yield from self._published(reached, {})

    def _published(self, reached: _Reached, after: Mapping[int, int]) -> Iterator[pd.DataFrame]:
        """Events that counted, of all partitions, some at a time.

        Args:
            reached: Up to where.
            after: Behind which positions; nothing for all.
        """
        for partition, until in reached.positions.items():
            found, size, texts = 0, 0, list[bytes]()
            for table in read_live(self._archive, partition, after.get(partition, 0), until):
                found += len(table)
                for some in self._cut(table):
                    own = archived_events(some)
                    texts += own
                    size += sum(map(len, own))
                    if len(texts) >= self._at_once or size >= BYTES_AT_ONCE:
                        yield self._frame(texts)
                        size, texts = 0, []
            if texts:
                yield self._frame(texts)
            self._check_found(partition, found, reached, is_all=not after)

    def _cut(self, table: pa.Table) -> Iterator[pa.Table]:
        for start in range(0, len(table), self._at_once):
            yield table.slice(start, self._at_once)

    def _frame(self, texts: Sequence[bytes]) -> pd.DataFrame:
        return events_frame(Events.from_bytes(texts), self._schema.property_types)

    def _check_found(self, partition: int, found: int, reached: _Reached, *, is_all: bool) -> None:
        expected = reached.archived[partition] - (0 if is_all else self._reached.archived[partition])
        if found < expected:
            raise StreamingError(
                f"the archive {self._archive} has {found} events of partition {partition} where {expected} were "
                "archived: start the materializer with the data folder (--data-dir) that it ran with before"
            )
        if found > expected:
            log.warning("view.archive_has_more", partition=partition, events=found, expected=expected)


def build_views(
    build: ShadowBuild,
    generations: Generations,
    *,
    name: str,
    definitions: Mapping[str, Definition],
    generation: str,
    partition_count: int,
    stopping: threading.Event,
) -> bool:
    """Build views and have them serve; False where that was cut short.

    Raises:
        BuildAbandoned: It lost the lock while it stood still.

    Args:
        build: The build.
        generations: Which definitions serve.
        name: Of the build, which holds the lock.
        definitions: The views that are built.
        generation: Theirs.
        partition_count: Of the log.
        stopping: Cuts it short.
    """
    build.sweep(generation)
    while not stopping.is_set():
        build.prepare()
        build.follow()
        if not generations.keep(name):
            raise BuildAbandoned("another build has begun meanwhile")
        if not generations.are_owned(partition_count):
            _miss_owners(partition_count, stopping)
            continue
        generations.ask_for_pause(name)
        try:
            standing = _wait_for_owners(generations, partition_count, stopping)
            if standing is None:
                generations.end_pause()
                _miss_owners(partition_count, stopping)
                continue
            build.catch_up()
            if not build.has_reached(standing):
                continue
            build.install()
            if generations.switch(name, standing, definitions, generation, build.intents()):
                return True
        finally:
            generations.end_pause()
    return False


def _wait_for_owners(
    generations: Generations, partition_count: int, stopping: threading.Event
) -> dict[int, Standing] | None:
    for _ in range(int(PAUSE_S / POLL_S)):
        standing = generations.standing(partition_count)
        if standing is not None:
            return standing
        if stopping.wait(POLL_S):
            return None
    return None


def _miss_owners(partition_count: int, stopping: threading.Event) -> None:
    log.warning("view.owners_missing", partitions=partition_count)
    stopping.wait(REST_S)


def finish_switch(client: redis.Redis, catalog: Catalog, archive: Path, left: Unfinished) -> None:
    """Take away what the definition before left; may be done any number of times, while the stream runs.

    Offline rows go to a folder `superseded-GENERATION` beside the new ones. Online, entities of which the new
    definition says nothing lose the view's values, and all lose features that it has no more.

    Raises:
        FilesHeld: A former owner stands still while it writes rows of the definition before; the rest is done.
    """
    view = catalog.view_by_name[left.view]
    names = tuple(sorted(view.key_names)) or ("__dummy_id",)
    shown = view.stored_name
    fields = [timestamp_field(shown)] + [feature_field(shown, item.name) for item in view.features]
    gone = [feature_field(shown, item) for item in left.features if item not in view.feature_by_name]
    words = (view.name.encode(), left.generation.encode(), len(fields), *fields, *gone)
    for keys in find_entities(
        client,
        key_pattern(catalog.project, names),
        lambda key: (key.project, key.names) == (catalog.project, names),
        lambda _done, _total: None,
    ):
        _PRUNE.run(client, [(2, key, state_key(key), *words) for key in keys])
    if view.offline_path:
        for partition in left.intents:
            outlast_writers(archive, partition)
        _switch_offline(view, left)


def staged(view: View, generation: str) -> Path:
    """Where a build leaves the offline rows of a view until they take the place of what is there."""
    return parts_folder(view) / f"{_STAGED}{generation}"


def _parts(view: View, generation: str) -> tuple[Path | None, str]:
    """Where the offline rows of a view go, and how their names begin."""
    return staged(view, generation) if view.offline_path else None, f"build-{generation}"


def staged_folders(catalog: Catalog) -> list[Path]:
    """What builds have left of offline rows, those at work now among them."""
    views = [view for view in catalog.views if view.stream and view.offline_path]
    return sorted(folder for view in views for folder in parts_folder(view).glob(f"{_STAGED}*"))


def remove_staged(folders: Sequence[Path], unfinished: Sequence[Unfinished]) -> list[Path]:
    """Remove what builds that died have left of offline rows; returns what could not be removed.

    Args:
        folders: As they were before this process took the lock of builds. None but the one who has it can switch, and
            nobody gets it twice, so what was there then can only be wanted by a switch that has happened.
        unfinished: What was left to be done of switches since then; their rows still go to their place.
    """
    wanted = {left.generation for left in unfinished}
    for folder in folders:
        if folder.name.removeprefix(_STAGED) not in wanted:
            shutil.rmtree(folder, ignore_errors=True)
    return [
        folder for folder in folders if folder.name.removeprefix(_STAGED) not in wanted and folder.exists()
    ]


def _switch_offline(view: View, left: Unfinished) -> None:
    folder, aside = parts_folder(view), parts_folder(view) / f"superseded-{left.generation}"
    for part in list(folder.glob("*.parquet")):
        if _is_superseded(part.name, left):
            aside.mkdir(exist_ok=True)
            _move(part, aside)
    built = staged(view, left.generation)
    for part in list(built.glob("*.parquet")):
        _move(part, folder)
    with suppress(FileNotFoundError):
        built.rmdir()


def _move(part: Path, folder: Path) -> None:
    """Another may have moved it, where this process stood still."""
    with suppress(FileNotFoundError):
        part.rename(folder / part.name)


def _is_superseded(name: str, left: Unfinished) -> bool:
    kind, _, rest = name.partition("-")
    if kind == "live":
        partition, first, _ = rest.split("-")
        return int(first) <= left.intents.get(int(partition), 0)
    return kind == "backfill" or (kind == "build" and rest.partition("-")[0] < left.generation)


def _marker(plan: ViewPlan) -> bytes:
    """The field of a state that is there if anything of the view is."""
    stored = plan.stored.encode()
    return LATEST_PREFIX + stored if plan.windows is None else b"%b%b:h" % (WINDOWS_PREFIX, stored)


def _markers(kind: EntityKind, state: EntityState) -> set[bytes]:
    """Those that the state has when it is written."""
    tiles = iter(state.tiles or (None,) * len(kind.windows))
    return {
        _marker(plan)
        for plan in kind.views
        if (plan.stored in state.latest if plan.windows is None else next(tiles) is not None)
    }
