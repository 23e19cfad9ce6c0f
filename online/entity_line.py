"""Writes of few entities at a time, in one piece with what must happen before, over a connection of their own.

What is said on it is done in order. So the next entities may be looked at while the writes before are on their way, and
hang on what those will have left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from online.entity_calls import EntityWrites
from online.entity_commands import Commands, Wanted
from online.exchange import ask
from online.guarded import Guard
from online.line import Line
from online.routed import RoutedClient
from online.watched import Watched
from online.write import Announcement, EntityWriter, Outcomes

MOST_BEHIND = 256
"""Most entities that are written in one piece with what comes before; more go over several connections."""
DOUBTS = 64
"""So many writes are not looked at before, after one that was looked at in vain: that costs as much again."""

Answer = tuple[bool, list[Outcomes] | None]


class EntityLine:
    """For one thread that writes, and any that hears what came of it.

    Args:
        writer: What lays writes out, and decides by scripts.
    """

    def __init__(self, writer: EntityWriter) -> None:
        self._writer = writer
        self._line: Line | None = None
        self._watched: Watched | None = None
        self._doubts = 0  # counted by more than one thread: a look more or less is all that hangs on it

    def takes(self, entity_count: int) -> bool:
        """Whether so many entities can be written: few, of one server."""
        return not isinstance(self._writer.client, RoutedClient) and entity_count <= MOST_BEHIND

    def watch(self, guard: Guard, wanted: Sequence[Wanted]) -> bool:
        """Look at entities that are about to be written, for `write` to be faster.

        Args:
            guard: That of the announcement to come.
            wanted: The entities. Others, or more, may be written then; fewer cost nothing.

        Returns:
            Whether they are looked at: it would be of no use for many entities, or where others have lately changed
            what was looked at.

        Raises:
            StoreUnavailableError: The store did not answer.
        """
        self.unwatch()
        count = sum(len(some.keys) for some in wanted)
        if not count or not self.takes(count) or not all(some.stamps for some in wanted):
            return False
        if self._doubts:
            self._doubts -= 1
            return False
        self._watched = Watched(self._open(), guard, wanted)
        return True

    def unwatch(self) -> None:
        """Look no more: nothing is written."""
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.end()

    def write(self, announcement: Announcement, parts: Sequence[EntityWrites]) -> Callable[[], Answer]:
        """As `EntityWriter.ask_behind`, faster where the entities were looked at and are what they are taken to be.

        What has changed since they were looked at is sent again, when that is heard.

        Args:
            announcement: What must happen before.
            parts: What to write.

        Returns:
            As there.

        Raises:
            WriteTooLargeError: As there.
            StoreReplyError: As there.
            StoreUnavailableError: As there.
        """
        if self._watched is not None:
            try:
                asked = self._write_as_seen(self._watched, announcement, parts)
            finally:
                self.unwatch()
            if asked is not None:
                return asked
            self._doubts = DOUBTS
        return self._writer.ask_behind(announcement, parts, self._open().ask)

    def close(self) -> None:
        """Give the connection back; who waits for an answer is told that it broke."""
        self._watched = None
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _open(self) -> Line:
        """The connection; another where it broke, which knows nothing of what was said before."""
        if self._line is not None and not self._line.is_open():
            self.close()
        if self._line is None:
            self._line = Line(self._writer.client.connection_pool)
        return self._line

    def _write_as_seen(
        self, watched: Watched, announcement: Announcement, parts: Sequence[EntityWrites]
    ) -> Callable[[], Answer] | None:
        """Write as plain commands, where all entities are as the writes take them to be."""
        seen = watched.seen(announcement.guarded.held)
        if seen is None or not any(part.keys for part in parts):
            return None
        laid = self._writer.commands(parts, seen)
        if laid is None:
            return None
        written = watched.write(announcement.guarded, laid)
        outcomes = _all_written(parts, laid)  # while the store is at them

        def take() -> Answer:
            if written():
                return True, outcomes
            self._doubts = DOUBTS
            # Not on the line: that is the other thread's to speak on.
            return self._writer.ask_behind(announcement, parts, partial(ask, self._writer.client))()

        return take


def _all_written(parts: Sequence[EntityWrites], laid: Commands) -> list[Outcomes]:
    outcomes, entity = [], 0
    for part, written in zip(parts, laid.written, strict=True):
        stop = entity + len(part.keys)
        accepted = np.ones(len(part.keys), dtype=np.bool_)
        outcomes.append(Outcomes(accepted, written, int(laid.state_bytes[entity:stop].sum())))
        entity = stop
    return outcomes
