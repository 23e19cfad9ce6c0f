"""Pushes told to the materializer, so that segments which read a pushed view follow at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import redis.exceptions

from decision.bundle import Bundle
from online.keys import parse_key
from server.budget import CURRENT
from server.clock import Clock
from server.errors import StoreUnavailableError, TooManyRequestsError
from server.feast.writing import WrittenRows
from streaming.errors import LogFull
from streaming.log import EventLog
from streaming.touch import Touch, readers

RETRY_AFTER_S = 1.0


class PushTouches:
    """Appends a touch for each entity of which a push changed what its segments read.

    Args:
        bundle: The policy that serves now.
        log: The event log.
        clock: Logical time.
    """

    def __init__(self, bundle: Callable[[], Bundle], log: EventLog, clock: Clock) -> None:
        self._bundle = bundle
        self._log = log
        self._clock = clock

    async def __call__(self, written: Sequence[WrittenRows]) -> None:
        """Log the touches; the rows are stored already, and a client that sends them again does no harm.

        Raises:
            RequestError: The log is full or does not answer.
        """
        bundle = self._bundle()
        kinds = readers(bundle.policy.segments)
        touches = {
            (kinds[item.view.name], row.key): None
            for item in written
            if item.view.name in kinds
            for row in item.rows
        }
        if not touches:
            return
        budget = CURRENT.get()
        try:
            async with asyncio.timeout(budget.left_s()):
                await self._log.touch(
                    [Touch(_owner(member[1], bundle.customer_key), member) for member in touches],
                    self._clock.now_us(),
                )
        except LogFull as error:
            raise TooManyRequestsError("LOG_FULL", str(error), error.retry_after_ms / 1_000) from error
        except TimeoutError:
            raise budget.spent_error("tell the materializer of the write") from None
        except (redis.exceptions.RedisError, OSError) as error:
            message = (
                "the rows are stored, but the log does not answer, so segments lag behind: send them again"
            )
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error


def _owner(key: bytes, customer_key: str) -> str:
    stored = parse_key(key)
    values = dict(zip(stored.names, map(str, stored.values), strict=True))
    return values.get(customer_key) or "\0".join(values.values())
