"""Entities that a transaction stands on: as they were seen, and untouched until it is carried out.

The store discards the transaction where anybody has changed one of them, or what guards it, since they were looked at
(WATCH). So it needs no conditions, which only a script could check in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis

from online.entity_commands import Commands, Seen, Wanted, look_commands
from online.errors import StoreUnavailableError
from online.guarded import Guard, Guarded
from online.line import Line
from online.pipes import pack
from online.script import carried_out, checked

_MULTI, _EXEC, _UNWATCH = (pack((name,)) for name in (b"MULTI", b"EXEC", b"UNWATCH"))
_NO_KEY = b"none"
_AROUND = 2
"""Replies to a transaction beside those of its commands when they are queued."""


class Watched:
    """A look at entities, on its way or there; it must be written by, or ended.

    Args:
        line: To the store, one server; nothing on it is watched.
        guard: Of the writes.
        wanted: The entities, one at least.

    Raises:
        StoreUnavailableError: The store did not answer.
    """

    def __init__(self, line: Line, guard: Guard, wanted: Sequence[Wanted]) -> None:
        self._line = line
        self._guard = guard
        self._wanted = wanted
        count = 2 * sum(len(some.keys) for some in wanted)
        self._look = line.say(look_commands(guard, wanted), 2 + count + len(guard.types))
        self._is_open = True

    def seen(self, held: bytes) -> dict[bytes, Seen] | None:
        """Wait for what the store has; None where the guard holds something else, or a key is of another type.

        Raises:
            StoreUnavailableError: The store did not answer.
        """
        replies: list[Any] = self._look()
        keys = [key for some in self._wanted for key in some.keys]
        behind = 1 + 2 * len(keys)
        found, (guard, *types) = replies[1:behind], replies[behind:]
        if guard != held or any(isinstance(reply, redis.RedisError) for reply in replies):
            return None
        if any(own not in (kind, _NO_KEY) for own, (_, kind) in zip(types, self._guard.types, strict=True)):
            return None
        return dict(zip(keys, zip(found[::2], found[1::2], strict=True), strict=True))

    def write(self, first: Guarded, then: Commands) -> Callable[[], bool]:
        """Have commands carried out in one transaction, those that the guard is for first.

        Returns:
            Waits until it is done, and tells whether it was: not where anything that is watched has changed. It must be
            called, in any thread.

        Raises:
            StoreUnavailableError: The store did not answer, or takes no writes for now; so does what is returned.
            StoreReplyError: The store refused a command, by what is returned; those around it are carried out. Of what
                was looked at no key is of another type, so there is no reason for it that is known.
        """
        payload = b"".join((_MULTI, *map(pack, first.commands), then.data, _EXEC))
        self._is_open = False
        hear = self._line.say(payload, len(first.commands) + then.size + _AROUND)

        def take() -> bool:
            replies = hear()
            if replies[-1] is None:
                return False
            checked(carried_out(replies))
            return True

        return take

    def end(self) -> None:
        """Look no more; twice, or after writing, does nothing."""
        if self._is_open:
            self._is_open = False
            with suppress(StoreUnavailableError):  # nothing is watched on what is broken
                self._line.say(_UNWATCH, 1)
