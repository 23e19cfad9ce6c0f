"""Replies of slow-moving entities kept in memory, and dropped the moment that the store says they changed.

The server tracks what a connection read (`CLIENT TRACKING`) and names each key on that connection when it changes. So
an entry is right as long as the connection is: whoever loses it drops the node's entries before the next read, and an
entry is used only while the node was heard from a moment ago.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from online.replies import Replies, merge

MAX_ENTRIES: Final = 50_000
MAX_BYTES: Final = 64 << 20
MAX_SETS: Final = 256
_ENTRY_BYTES: Final = 512
"""What an entry costs beside its reply: keys, tables, the objects around them."""

_INVALIDATE: Final = b"invalidate"


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    replies: Replies
    node: Hashable
    key: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Entries of several commands, in their order, as one.

    Attributes:
        nodes: Where they were read.
    """

    replies: Replies
    nodes: frozenset[Hashable]


@dataclass(slots=True, eq=False)
class Fill:
    """A read on its way whose reply is to be kept, unless an invalidation overtakes it."""

    key: bytes
    node: Hashable
    valid: bool = field(default=True)


class NearCache:
    """Replies by command. Whoever has been kept longest leaves first when a bound is met.

    Args:
        max_entries: Most entries.
        max_bytes: Most bytes of replies and what surrounds them.

    Attributes:
        hits: Commands answered from here.
        misses: Commands that had to be sent.
        size_bytes: What the entries take.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: dict[bytes, _Entry] = {}
        self._commands: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._fills: defaultdict[bytes, list[Fill]] = defaultdict(list)
        self._sets: dict[tuple[bytes, ...], Kept] = {}
        self.hits = 0
        self.misses = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, command: bytes) -> bool:
        return command in self._entries

    def all_of(self, commands: tuple[bytes, ...]) -> Kept | None:
        """The replies of all commands as one, or None where one is missing; what was put together is kept, too."""
        kept = self._sets.get(commands)
        if kept is None:
            entries = [self._entries.get(command) for command in commands]
            found = [entry for entry in entries if entry is not None]
            if len(found) < len(commands):
                return None
            if len(self._sets) >= MAX_SETS:
                self._sets.clear()
            merged = merge([entry.replies for entry in found])
            kept = self._sets[commands] = Kept(merged, frozenset(entry.node for entry in found))
        return kept

    def begin(self, key: bytes, node: Hashable) -> Fill:
        """Announce a read of an entity before it is sent; `keep` or `forget` it afterwards."""
        fill = Fill(key, node)
        self._fills[key].append(fill)
        return fill

    def forget(self, fill: Fill) -> None:
        """Nothing came of a read."""
        fills = self._fills.get(fill.key)
        if fills is not None and fill in fills:
            fills.remove(fill)
            if not fills:
                del self._fills[fill.key]

    def keep(self, fill: Fill, command: bytes, replies: Replies) -> bool:
        """Keep the reply of a command, unless its entity changed since; whether it is kept."""
        self.forget(fill)
        size_bytes = replies.size_bytes + 2 * len(command) + _ENTRY_BYTES
        if not fill.valid or size_bytes > self._max_bytes:
            return False
        self._drop(command)
        self._entries[command] = _Entry(replies, fill.node, fill.key, size_bytes)
        self._commands[fill.key].add(command)
        self.size_bytes += size_bytes
        while len(self._entries) > self._max_entries or self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return True

    def take_push(self, push: Sequence[object]) -> None:
        """Take an invalidation; other pushes are nobody's business."""
        if len(push) != 2 or push[0] not in (_INVALIDATE, _INVALIDATE.decode()):
            return
        keys = push[1]
        if isinstance(keys, list):
            for key in keys:
                self._invalidate(key)
        else:
            self.clear()

    def lose(self, node: Hashable) -> None:
        """The connection that tracked a node's entries is gone."""
        for command, entry in list(self._entries.items()):
            if entry.node == node:
                self._drop(command)
        for fills in self._fills.values():
            for fill in fills:
                fill.valid = fill.valid and fill.node != node

    def clear(self) -> None:
        """Everything changed, as by FLUSHALL."""
        for fills in self._fills.values():
            for fill in fills:
                fill.valid = False
        self._entries.clear()
        self._commands.clear()
        self._sets.clear()
        self.size_bytes = 0

    def _invalidate(self, key: bytes) -> None:
        for command in list(self._commands.get(key, ())):
            self._drop(command)
        for fill in self._fills.get(key, ()):
            fill.valid = False

    def _drop(self, command: bytes) -> None:
        entry = self._entries.pop(command, None)
        if entry is None:
            return
        self._sets.clear()
        self.size_bytes -= entry.size_bytes
        commands = self._commands[entry.key]
        commands.discard(command)
        if not commands:
            del self._commands[entry.key]
