"""A Lua script called by its hash, sent whole where the server does not know it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import redis

from online.errors import StoreReplyError
from online.exchange import exchange
from online.route import Command


class Script:
    """One script; each call is one command, so it runs on any node that has its keys."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest().encode()

    def run(self, client: redis.Redis, calls: Sequence[Command]) -> list[object]:
        """Call the script once for each (key count, keys…, arguments…), in order; return the replies.

        Raises:
            StoreReplyError: The server refused a call; others of the batch may have been carried out.
            StoreUnavailableError: The store did not answer.
        """
        replies = _call(client, b"EVALSHA", self._sha, calls)
        unknown = [
            place for place, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)
        ]
        if unknown:
            again = _call(client, b"EVAL", self._source, [calls[place] for place in unknown])
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise StoreReplyError(f"the store refused a write: {reply}") from reply
        return replies


def _call(client: redis.Redis, verb: bytes, script: bytes, calls: Sequence[Command]) -> list[object]:
    return exchange(client, ((verb, script, *call) for call in calls))
