"""A Lua script called by its hash, sent whole where the server does not know it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import redis
import redis.asyncio

from online.errors import StoreReplyError, StoreUnavailableError
from online.exchange import exchange, exchange_apart, exchange_async
from online.route import Command

_PASSING = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.MasterDownError,
)
_PASSING_CODES = ("MISCONF", "NOREPLICAS", "BUSY ", "OOM ", "READONLY ", "LOADING ", "MASTERDOWN ")
"""Refusals of any write, until there is memory, room on the disk, a replica or a master again."""
_DISCARDED = "Transaction discarded because of: "

Send = Callable[[Sequence[Command]], Callable[[], list[object]]]
"""Sends commands, and returns what reads their replies; in any thread."""

MOST_TOGETHER = 4
"""Most calls of one transaction: what others ask of the server waits for all of it."""


class Script:
    """One script; each call is one command, so it runs on any node that has its keys."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest().encode()

    def run(self, client: redis.Redis, calls: Sequence[Command], *, apart: bool = False) -> list[object]:
        """Call the script once for each (key count, keys…, arguments…), in order; return the replies.

        Args:
            client: The store.
            calls: As above.
            apart: Whether the calls may be carried out in any order, which is faster.

        Raises:
            StoreReplyError: The server refused a call; others of the batch may have been carried out.
            StoreUnavailableError: The store did not answer, or takes no writes at all for now.
        """
        send = exchange_apart if apart else exchange
        replies = send(client, list(map(self.by_hash, calls)))
        unknown = _unknown(replies)
        if unknown:
            _replace(replies, unknown, exchange(client, self._whole(calls, unknown)))
        return checked(replies)

    async def run_async(self, client: redis.asyncio.Redis, calls: Sequence[Command]) -> list[object]:
        """As `run`, on an event loop."""
        replies = await exchange_async(client, map(self.by_hash, calls))
        unknown = _unknown(replies)
        if unknown:
            _replace(replies, unknown, await exchange_async(client, self._whole(calls, unknown)))
        return checked(replies)

    def ask_behind(
        self, client: redis.Redis, send: Send, first: tuple[Script, Command], calls: Sequence[Command]
    ) -> Callable[[], tuple[object, list[object]]]:
        """Call another script once and then this one for each call, in order, all in one piece, sent at once.

        A few are one transaction: a server that syncs every write reads 16 KiB from a connection at a time, carries
        out what it has, and would sync each such part.

        Args:
            client: The store, one server.
            send: Sends commands to it.
            first: The other script and its call. Where it is not carried out, those of this one must do nothing.
            calls: As in `run`.

        Returns:
            Reads the replies: that of the other script, and those of this one; it must be called, in any thread.

        Raises:
            StoreReplyError: As in `run`, by what is returned.
            StoreUnavailableError: As there, by both.
        """
        before, call = first
        commands = [before.by_hash(call), *map(self.by_hash, calls)]
        are_few = len(calls) <= MOST_TOGETHER
        asked = send([(b"MULTI",), *commands, (b"EXEC",)] if are_few else commands)

        def take() -> tuple[object, list[object]]:
            reply, *replies = carried_out(asked()) if are_few else asked()
            if _unknown([reply]):
                (reply,) = before.run(client, [call])
                return reply, self.run(client, calls)
            checked([reply])
            unknown = _unknown(replies)
            if unknown:
                _replace(replies, unknown, exchange(client, self._whole(calls, unknown)))
            return reply, checked(replies)

        return take

    def by_hash(self, call: Command) -> Command:
        """The command of a call, for a server that knows the script."""
        return (b"EVALSHA", self._sha, *call)

    def _whole(self, calls: Sequence[Command], places: Sequence[int]) -> Iterator[Command]:
        return ((b"EVAL", self._source, *calls[place]) for place in places)


def carried_out(replies: Sequence[object]) -> list[object]:
    """What the commands of a transaction were answered, of all that came back.

    Raises:
        StoreReplyError: It was not carried out, or not as one.
        StoreUnavailableError: As `Script.run`.
    """
    *queued, done = replies
    if isinstance(done, list):
        return done
    refused = [reply for reply in queued if isinstance(reply, redis.RedisError)]
    checked([*refused, done])
    raise StoreReplyError(
        f"the store answered a transaction with {type(done).__name__}, not with its replies"
    )


def _unknown(replies: Sequence[object]) -> list[int]:
    return [place for place, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]


def _replace(replies: list[object], places: Sequence[int], others: Sequence[object]) -> None:
    for place, reply in zip(places, others, strict=True):
        replies[place] = reply


def checked(replies: list[object]) -> list[object]:
    """Replies of which none is an error.

    Raises:
        StoreReplyError: One is.
        StoreUnavailableError: One says that the store takes no writes at all for now.
    """
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise _refusal(reply) from reply
    return replies


def _refusal(reply: redis.RedisError) -> StoreUnavailableError | StoreReplyError:
    if isinstance(reply, _PASSING) or str(reply).removeprefix(_DISCARDED).startswith(_PASSING_CODES):
        return StoreUnavailableError(f"the store takes no writes for now: {reply}")
    return StoreReplyError(f"the store refused a write: {reply}")
