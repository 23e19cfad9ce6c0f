"""One pipeline's way through a store of several servers: which commands go where, and which must go again.

No I/O: the synchronous and the asynchronous client take the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from online.address import Kind, Node
from online.slots import slot_of
from online.topology import Topology

Command = tuple[Any, ...]
"""A command's words: bytes, text or numbers."""

MAX_ROUNDS = 8
PAUSE_S = 0.05
"""Before a command that a failover or a migration held up is sent again."""

_KEY_PLACE = {b"EVAL": 3, b"EVALSHA": 3, b"XINFO": 2, b"MEMORY": 2, b"OBJECT": 2}
_AFTER_STREAMS = frozenset({b"XREAD", b"XREADGROUP"})
_KEYLESS = frozenset(b"CLIENT CONFIG DBSIZE FLUSHALL FLUSHDB INFO PING SCAN SCRIPT TIME WAIT".split())
_HELD_UP = (redis.exceptions.TryAgainError, redis.exceptions.ClusterDownError)


class Route:
    """Commands of one pipeline on their way; take rounds while there are `parts`.

    Attributes:
        replies: In the order of the commands; an error of one command is its reply.
        stale: The last round showed that the map of slots has changed: refresh it before the next.
        held_up: The last round met a failover or a migration: wait `PAUSE_S` before the next.
    """

    def __init__(self, topology: Topology, commands: Sequence[Command]) -> None:
        self.replies: list[object] = [None] * len(commands)
        self.stale = False
        self.held_up = False
        self._topology = topology
        self._commands = commands
        self._todo = list(range(len(commands)))
        self._asked: dict[int, Node] = {}
        self._rounds = 0
        clustered = topology.address.kind is Kind.CLUSTER
        self._slots = [key_slot(command) if clustered else 0 for command in commands]

    def parts(self) -> list[tuple[Node, list[int], list[Command]]]:
        """Split what is left by server: each server, the places of its commands, and what to send.

        A command that was sent on by ASK is preceded by ASKING, whose place is -1. Empty when nothing is left.

        Raises:
            StoreUnavailableError: Nobody serves a slot.
        """
        slots = self._topology.slots() if self._todo else None
        parts: dict[Node, tuple[list[int], list[Command]]] = {}
        for place in self._todo:
            assert slots is not None
            node = self._asked.get(place) or slots.node_of(self._slots[place])
            places, commands = parts.setdefault(node, ([], []))
            if place in self._asked:
                places.append(-1)
                commands.append((b"ASKING",))
            places.append(place)
            commands.append(self._commands[place])
        return [(node, places, commands) for node, (places, commands) in parts.items()]

    def take(self, rounds: Sequence[tuple[list[int], Sequence[object]]]) -> None:
        """Take the replies of a round in; what was redirected or held up is left for the next."""
        self._rounds += 1
        self._todo, self._asked, self.stale, self.held_up = [], {}, False, False
        for places, replies in rounds:
            for place, reply in zip(places, replies, strict=True):
                if place >= 0:
                    self.replies[place] = reply
                    if self._rounds < MAX_ROUNDS and isinstance(reply, redis.ResponseError):
                        self._redirect(place, reply)
        self._todo.sort()

    def _redirect(self, place: int, error: redis.ResponseError) -> None:
        """Put a command back that its server did not carry out because it is not, or not yet, the one to ask."""
        if isinstance(error, redis.exceptions.MovedError):
            self._topology.moved(self._slots[place], Node(error.host, error.port))
            self.stale = True
        elif isinstance(error, redis.exceptions.AskError):
            self._asked[place] = Node(error.host, error.port)
        elif isinstance(error, redis.exceptions.ReadOnlyError):
            self._topology.suspect()
            self.stale = self.held_up = True
        elif isinstance(error, _HELD_UP):
            self._topology.suspect()
            self.held_up = True
        else:
            return
        self._todo.append(place)


def key_slot(command: Command) -> int:
    """Return the slot of the key that a command is sent by.

    Raises:
        ValueError: The command has no key; such a command is for one server, not for a cluster.
    """
    name = _bytes(command[0]).upper()
    if name in _KEYLESS:
        raise ValueError(f"{name.decode()} names no key: send it to each of `nodes(client)`")
    if name in _AFTER_STREAMS:
        words = [_bytes(word).upper() if isinstance(word, str | bytes) else b"" for word in command]
        return slot_of(_bytes(command[words.index(b"STREAMS") + 1]))
    return slot_of(_bytes(command[_KEY_PLACE.get(name, 1)]))


def _bytes(word: object) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
