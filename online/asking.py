"""One fetch's way to the servers and back: which commands go to which, what comes of them, and what is asked again.

A read has no effect, so whatever got no answer because a connection broke or a key moved is asked once more, within
the caller's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from online.address import Kind, Node
from online.channel import Answer, Channel
from online.column_kernels import NO_KEY, UNANSWERED
from online.columns import GroupReplies
from online.commands import DUMP, Commands, Packed, joined, undumped
from online.errors import ReadTooLargeError, StoreLostError, StoreTopologyError, StoreUnavailableError
from online.kernels import KIND
from online.link import open_link
from online.near import Fill, Kept, NearCache
from online.plan import ReadGroup
from online.replies import Replies, merge
from online.rows import Rows
from online.slots import slot_of
from online.topology import SlotMap, Topology

MAX_ENTITIES: Final = 10_000
MAX_ROUNDS: Final = 3
"""How often a command is sent, at most; once more where a dump has to be asked for by HGETALL, since nothing is wrong
then."""
FRESH_S: Final = 1.0
"""Kept replies are used while their server was heard from within this time."""

_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"
_CACHING: Final = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n"
_OK: Final = ord("+")
_BULK: Final = ord("$")
_ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
_UNSETTLED: Final = frozenset({"CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"})


Places = slice | NDArray[np.int64]


class Batch:
    """The distinct commands of a fetch; a command's place is its index."""

    def __init__(self) -> None:
        self.commands: Sequence[bytes] = ()
        self.near: set[int] = set()
        self._kinds: set[bytes] = set()

    def add(self, commands: Commands, kind: bytes, *, near: bool = False) -> Places:
        """Return the places of commands, -1 for None.

        Args:
            commands: Packed.
            kind: Commands of two kinds are never the same.
            near: Their replies may be kept.

        Raises:
            ReadTooLargeError: There are more than `MAX_ENTITIES`.
        """
        count = len(self.commands)
        places: Places
        if kind not in self._kinds and _are_distinct(commands):
            own = cast("Sequence[bytes]", commands)
            self.commands = [*self.commands, *own] if count else own
            places = slice(count, len(self.commands))
        else:
            places = self._shared(commands)
        self._kinds.add(kind)
        if len(self.commands) > MAX_ENTITIES:
            raise ReadTooLargeError(f"more than {MAX_ENTITIES} entities in one fetch; ask for fewer rows")
        if near:
            self.near.update(range(count, len(self.commands)))
        return places

    def _shared(self, commands: Commands) -> NDArray[np.int64]:
        """The places of commands some of which come twice."""
        known = {command: place for place, command in enumerate(self.commands)}
        places = np.array([-1 if c is None else known.setdefault(c, len(known)) for c in commands], np.int64)
        self.commands = list(known)
        return places


def _are_distinct(commands: Commands) -> bool:
    """Whether none comes twice or is missing."""
    if type(commands) is Packed:
        return True
    distinct = set(commands)
    return len(distinct) == len(commands) and None not in distinct


@dataclass(slots=True, eq=False)
class Found:
    """What came of a batch.

    Attributes:
        rows: int64[places + 1]: each command's reply, or `UNANSWERED`; `NO_KEY` at the end, where index -1 finds it.
        error: Why commands are unanswered, or None.
    """

    replies: Replies
    rows: NDArray[np.int64]
    error: str | None


@dataclass(slots=True, eq=False)
class Wanted:
    """One group's rows of a request, before the answer.

    Attributes:
        places: Each row's place in the batch; -1 where it has none.
        kept: Replies that need not be asked for.
        kept_rows: Each row's index among them, or -1 where the batch has it.
    """

    group: ReadGroup
    places: Places
    kept: Kept | None = None
    kept_rows: NDArray[np.int64] | None = None

    def of(self, found: Found) -> GroupReplies:
        """The group's replies, row by row."""
        rows = found.rows[self.places]
        kept_rows = self.kept_rows
        if self.kept is None or kept_rows is None:
            return GroupReplies(self.group, found.replies, rows)
        if (rows == NO_KEY).all():
            return GroupReplies(self.group, self.kept.replies, np.where(kept_rows >= 0, kept_rows, rows))
        rows = np.where(rows >= 0, rows + len(self.kept.replies), rows)
        merged = merge([self.kept.replies, found.replies])
        return GroupReplies(self.group, merged, np.where(kept_rows >= 0, kept_rows, rows))


@dataclass(slots=True, eq=False)
class _Run:
    """A batch on its way.

    Attributes:
        undumped: A command was sent as DUMP and is to be sent as HGETALL; that befalls each of them once at most.
    """

    batch: Batch
    commands: Sequence[bytes]
    rows: NDArray[np.int64]
    parts: list[Replies] = field(default_factory=list)
    reply_count: int = 0
    asked: dict[int, Node] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    undumped: bool = False

    def undump(self, place: int, command: bytes) -> None:
        """Have a command sent as HGETALL."""
        if not self.undumped:
            self.commands = list(self.commands)
        cast("list[bytes]", self.commands)[place] = undumped(command)
        self.undumped = True

    def fail(self, places: Sequence[int], reason: str) -> None:
        self.errors.update(dict.fromkeys(places, reason))

    def found(self) -> Found:
        error = next(iter(self.errors.values()), None)
        replies = merge(self.parts)
        return Found(replies, self.rows, f"the store gave no answer: {error}" if error else None)


class Asker:
    """Sends batches and remembers what may be kept.

    Args:
        topology: Which server has which key, and how to reach it.
        near: Where replies may be kept, or None.
    """

    def __init__(self, topology: Topology, near: NearCache | None) -> None:
        self._topology = topology
        self._clustered = topology.address.kind is Kind.CLUSTER
        self._near = near
        self._channels: dict[Node, Channel] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._past_round_trips = 0

    @property
    def round_trips(self) -> int:
        """Pipelines sent so far."""
        return self._past_round_trips + sum(channel.round_trips for channel in self._channels.values())

    def want(self, batch: Batch, group: ReadGroup, rows: Rows) -> Wanted:
        """Put a group's rows into the batch, but for those whose replies are kept.

        Raises:
            KeyEncodingError: A row's join key does not fit its type.
            ReadTooLargeError: The batch is full.
        """
        if group.near and self._near is not None:
            return self._want_near(batch, group, group.packer.commands(rows), self._near)
        packer = group.dumper if group.dumper is not None and self._dumps() else group.packer
        return Wanted(group, batch.add(packer.commands(rows), packer.kind))

    async def ask(self, batch: Batch, ends_at: float) -> Found:
        """Send a batch and wait for its replies until `ends_at` on the loop's clock; nothing is raised."""
        commands = batch.commands
        rows = np.empty(len(commands) + 1, np.int64)
        rows[:-1], rows[-1] = UNANSWERED, NO_KEY
        run = _Run(batch, commands, rows)
        places: Sequence[int] = range(len(commands))
        rounds = 0
        while places and rounds < MAX_ROUNDS + run.undumped:
            places = await self._round(run, places, ends_at)
            rounds += 1
        return run.found()

    async def aclose(self) -> None:
        """Close all connections."""
        for channel in self._channels.values():
            await channel.aclose()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _dumps(self) -> bool:
        """Whether every server that is connected to may be asked for dumps; by others they are read all the same."""
        for channel in self._channels.values():
            if not channel.dumps:
                return False
        return bool(self._channels)

    def _want_near(
        self, batch: Batch, group: ReadGroup, commands: Sequence[bytes | None], near: NearCache
    ) -> Wanted:
        asked = [command for command in dict.fromkeys(commands) if command is not None]
        hits = asked
        kept = near.all_of(tuple(hits))
        if kept is None:
            hits = [command for command in asked if command in near]
            kept = near.all_of(tuple(hits))
        if not hits or kept is None or not self._fresh(kept):
            hits, kept = [], None
        near.hits += len(hits)
        near.misses += len(asked) - len(hits)
        index: dict[bytes | None, int] = {command: number for number, command in enumerate(hits)}
        missing = [None if command in index else command for command in commands]
        return Wanted(
            group,
            batch.add(missing, group.packer.kind, near=True),
            kept,
            np.array([index.get(command, -1) for command in commands], np.int64),
        )

    def _fresh(self, kept: Kept) -> bool:
        oldest = asyncio.get_running_loop().time() - FRESH_S
        return all(node in self._channels and self._channels[node].heard_at > oldest for node in kept.nodes)

    async def _round(self, run: _Run, places: Sequence[int], ends_at: float) -> Sequence[int]:
        """Ask once; returns the places that are to be asked again."""
        try:
            slots = self._topology.settled
            if slots is None:
                async with asyncio.timeout_at(ends_at):
                    slots = await self._topology.slots_async()
            parts = self._split(run, places, slots)
        except (TimeoutError, StoreUnavailableError, StoreTopologyError) as error:
            run.fail(places, str(error) or "out of time")
            return ()
        if len(parts) == 1:
            return await self._part(run, *parts[0], ends_at)
        again = await asyncio.gather(*(self._part(run, node, chosen, ends_at) for node, chosen in parts))
        return sorted(place for chosen in again for place in chosen)

    def _split(self, run: _Run, places: Sequence[int], slots: SlotMap) -> list[tuple[Node, Sequence[int]]]:
        """Who is to be asked for what."""
        if not self._clustered:
            return [(slots.nodes[0], places)]
        parts: dict[Node, list[int]] = {}
        for place in places:
            node = run.asked.get(place) or slots.node_of(slot_of(key_in(run.commands[place])))
            parts.setdefault(node, []).append(place)
        return list(parts.items())

    async def _part(self, run: _Run, node: Node, places: Sequence[int], ends_at: float) -> Sequence[int]:
        """Ask one server; returns the places that are to be asked again."""
        payload, offsets, fills = self._prepared(run, node, places)
        try:
            answer = await self._channel(node).exchange(payload, offsets[-1] + 1, ends_at)
        except TimeoutError:
            run.fail(places, "out of time")
            return ()
        except StoreUnavailableError as error:
            run.fail(places, str(error))
            self._topology.suspect()
            return places if isinstance(error, StoreLostError) or self._topology.doubtful else ()
        else:
            return self._take(run, node, places, offsets, answer, fills)
        finally:
            for fill in fills.values():
                assert self._near is not None
                self._near.forget(fill)

    def _prepared(
        self, run: _Run, node: Node, places: Sequence[int]
    ) -> tuple[bytes, Sequence[int], dict[int, Fill]]:
        """What to send, which reply is each command's, and what may be kept of them."""
        if not run.asked and not run.batch.near:
            whole = len(places) == len(run.commands)
            asked = run.commands if whole else [run.commands[place] for place in places]
            return joined(asked), range(len(places)), {}
        commands: list[bytes] = []
        offsets: list[int] = []
        fills: dict[int, Fill] = {}
        for place in places:
            if place in run.asked:
                commands.append(_ASKING)
            elif place in run.batch.near and self._near is not None:
                commands.append(_CACHING)
                fills[place] = self._near.begin(key_in(run.commands[place]), node)
            offsets.append(len(commands))
            commands.append(run.commands[place])
        return joined(commands), offsets, fills

    def _take(
        self,
        run: _Run,
        node: Node,
        places: Sequence[int],
        offsets: Sequence[int],
        answer: Answer,
        fills: Mapping[int, Fill],
    ) -> Sequence[int]:
        replies, first = answer
        first_row = first + run.reply_count
        if isinstance(places, range) and isinstance(offsets, range):
            run.rows[places.start : places.stop] = np.arange(first_row, first_row + len(places))
        else:
            run.rows[places] = np.array(offsets, np.int64) + first_row
        run.parts.append(replies)
        run.reply_count += len(replies)
        for place in places if run.errors else ():
            run.errors.pop(place, None)
        again = self._judge(run, node, places, offsets, answer) if replies.errors or replies.odd else ()
        for place, fill in fills.items():
            row = first + offsets[places.index(place)]
            if self._near is not None and replies.table[row - 1, KIND] == _OK and not replies.error(row):
                self._near.keep(fill, run.commands[place], replies.one(row))
        return again

    def _judge(
        self, run: _Run, node: Node, places: Sequence[int], offsets: Sequence[int], answer: Answer
    ) -> Sequence[int]:
        """Find out which errors mean "ask elsewhere", which "no answer", and which are the key's own fault.

        What came as a dump that cannot be read, or was refused as one, is asked for by HGETALL.
        """
        again: list[int] = []
        for place, offset in zip(places, offsets, strict=True):
            row = answer.first + offset
            text = answer.replies.error(row)
            is_odd = text is None and answer.replies.table[row, KIND] == _BULK
            if not is_odd and (text is None or text.startswith("WRONGTYPE")):
                continue
            run.rows[place] = UNANSWERED
            run.fail([place], text or "a dump could not be read")
            code, *words = (text or "").split(" ")
            command = run.commands[place]
            if command.startswith(DUMP) and code not in _ELSEWHERE | _UNSETTLED:
                run.undump(place, command)
                again.append(place)
                if text is not None:
                    self._channel(node).refuse_dumps()
                continue
            run.asked.pop(place, None)
            if code in _ELSEWHERE and len(words) == 2:
                again.append(place)
                self._redirect(run, place, code, words, node)
            elif code in _UNSETTLED:
                again.append(place)
                self._topology.suspect()
        return again

    def _redirect(self, run: _Run, place: int, code: str, words: Sequence[str], asked: Node) -> None:
        host, _, port = words[1].rpartition(":")
        node = Node(host or asked.host, int(port))
        if code == "ASK":
            run.asked[place] = node
        else:
            self._topology.moved(int(words[0]), node)

    def _channel(self, node: Node) -> Channel:
        channel = self._channels.get(node)
        if channel is None:
            self._leave_strangers()
            near = self._near
            channel = self._channels[node] = Channel(
                partial(open_link, self._topology, node, near is not None),
                lost=(lambda: None) if near is None else partial(near.lose, node),
                pushed=(lambda _: None) if near is None else near.take_push,
            )
        return channel

    def _leave_strangers(self) -> None:
        """Close the connections to servers that have left the store."""
        known = self._topology.known
        for node in list(self._channels):
            if known is not None and node not in known.nodes:
                channel = self._channels.pop(node)
                self._past_round_trips += channel.round_trips
                task = asyncio.get_running_loop().create_task(channel.aclose())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)


def key_in(command: bytes) -> bytes:
    """The key in a packed command of `online.plan`: its second word."""
    _, _, _, size, rest = command.split(b"\r\n", 4)
    return rest[: int(size[1:])]
