"""Calls that are open and whose request has not come: none waits long, and none keeps a place from others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from server.errors import BudgetSpentError, RequestError, TooManyRequestsError

RETRY_AFTER_S = 0.1
End = Callable[[Any, RequestError, float], Awaitable[None]]
"""Ends a call with an error, given how long it was open, in seconds."""


class Waiting:
    """Gives calls their requests.

    The transport hands a call over once its head has come. A request follows within moments, so one that does not is
    ended after a while; and where too many wait, the one that has waited longest makes room for the next.

    Args:
        limit: Calls that may wait.
        patience_s: How long each may.
    """

    def __init__(self, limit: int, patience_s: float) -> None:
        self._limit = limit
        self._patience_s = patience_s
        self._since: dict[Any, tuple[float, End]] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._ending: dict[Any, asyncio.Task[None]] = {}

    async def request(self, context: Any, end: End) -> bytes | None:
        """The serialized request of a call, the first where there are several; None where the client sends none.

        Args:
            context: The call's, of a method whose requests stream.
            end: Ends it.

        Raises:
            AbortError: It did not come in time, or had to make room: the call has ended.
        """
        if len(self._since) >= self._limit:
            message = f"{self._limit} calls are open whose requests have not come: send each with its call"
            self._end(next(iter(self._since)), TooManyRequestsError("TOO_MANY_CALLS", message, RETRY_AFTER_S))
        self._since[context] = time.monotonic(), end
        if self._timer is None:
            self._look_after(self._patience_s)
        try:
            data = await context.read()
        finally:
            self._since.pop(context, None)
        ending = self._ending.get(context)
        if ending is not None:  # it came while the call was being ended
            await ending
            await context.read()
        return None if data is grpc.aio.EOF else data

    def _look_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """End those that have waited too long, and look again when the next one will have."""
        self._timer = None
        now_s = time.monotonic()
        for context, (since_s, _) in list(self._since.items()):
            left_s = since_s + self._patience_s - now_s
            if left_s > 0:
                self._look_after(left_s)
                return
            message = f"the request did not come within {self._patience_s:g} s: send it with its call"
            stage = {"budgetMs": f"{self._patience_s * 1_000:.0f}", "stage": "request"}
            self._end(context, BudgetSpentError("BUDGET_SPENT", message, stage))

    def _end(self, context: Any, error: RequestError) -> None:
        since_s, end = self._since.pop(context)
        task = asyncio.create_task(self._ended(end(context, error, time.monotonic() - since_s)))
        self._ending[context] = task
        task.add_done_callback(lambda _: self._ending.pop(context))

    async def _ended(self, end: Awaitable[None]) -> None:
        with contextlib.suppress(Exception):  # the status is sent, or the client has gone: the call is over
            await end
