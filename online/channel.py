"""All traffic with one server of the store: one connection, reads of the same moment in one pipeline.

Reads gather until the event loop has turned a few times without a further one (`QUIET_TURNS`), but no longer than
`MAX_HOLD_S`: an idle loop turns in a microsecond, a busy one brings the next read first, and sending, waking up and
reading what came cost as much for one read as for ten. While `MAX_IN_FLIGHT` pipelines are unanswered, further reads
gather for the next one, which leaves with the next answer; each caller waits no longer than its own deadline. A read
that finds nothing in flight and expects no company leaves at once. A caller that gives up is forgotten: its replies
are skipped, nobody else notices.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from online.breaker import Breaker
from online.company import Company
from online.errors import OnlineStoreError, StoreLostError, StoreUnavailableError
from online.link import Link, Listener, Push
from online.replies import Replies

MAX_IN_FLIGHT: Final = 2
QUIET_TURNS: Final = 8
"""For each read that waits: the more there are, the likelier come more."""
MOST_QUIET_TURNS: Final = 24
MAX_HOLD_S: Final = 0.002
MAX_PIPELINE_COMMANDS: Final = 1_000
"""A pipeline has no more, unless one caller alone asks for more."""
MAX_WAITING: Final = 10_000
"""Most callers that wait for a pipeline; more are refused at once."""
PATIENCE_S: Final = 0.05
"""A server that owes an answer for so long has failed whoever gave up on it."""
SWEEP_S: Final = 0.003
"""Callers that are out of time within so long are told together."""
DROP_S: Final = 2.0
"""A connection that owes an answer for so long is given up."""

OpenLink = Callable[[Listener], Awaitable[Link]]


class Answer(NamedTuple):
    """A caller's part of a pipeline's replies: the rows from `first` on."""

    replies: Replies
    first: int


class _Call:
    __slots__ = ("future", "payload", "reply_count")

    def __init__(self, payload: bytes, reply_count: int, future: asyncio.Future[Answer]) -> None:
        self.payload = payload
        self.reply_count = reply_count
        self.future = future


class _Pipeline:
    """Calls whose commands were sent together."""

    __slots__ = ("_calls", "_finished", "count", "sent_at")

    def __init__(self, calls: Sequence[_Call], sent_at: float, finished: Callable[[], None]) -> None:
        self._calls = calls
        self._finished = finished
        self.count = sum([call.reply_count for call in calls])
        self.sent_at = sent_at

    def deliver(self, replies: Replies) -> None:
        first = 0
        for call in self._calls:
            if not call.future.done():
                call.future.set_result(Answer(replies, first))
            first += call.reply_count
        self._finished()

    def fail(self, error: StoreUnavailableError) -> None:
        _fail(self._calls, error)


class Channel:
    """The traffic with one server. It connects when it is first used, and again whenever it is used after a loss.

    Args:
        open_link: Opens a connection and greets; bounded in time.
        breaker: Who may try while the server fails.
        lost: Told whenever the connection is lost, before anybody reads on the next one.
        pushed: Told what the server pushes.

    Attributes:
        round_trips: Pipelines sent.
    """

    def __init__(
        self,
        open_link: OpenLink,
        breaker: Breaker | None = None,
        lost: Callable[[], None] = lambda: None,
        pushed: Callable[[Push], None] = lambda _: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._open_link = open_link
        self._breaker = breaker or Breaker(self._loop.time, random.random)
        self._told_lost = lost
        self._listener = Listener(lost=self._lost, pushed=pushed)
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[_Call] = deque()
        self._in_flight = 0
        self._ends: dict[asyncio.Future[Answer], float] = {}
        self._next_end = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._flush_by = 0.0
        self._quiet_turns = 0
        self._company = Company()
        self._closed = False
        self._why = StoreUnavailableError("the store has not answered yet")
        self.round_trips = 0

    @property
    def heard_at(self) -> float:
        """When the server was last heard from on the connection there is, on the loop's clock; 0 without one."""
        return self._link.heard_at if self._link is not None else 0.0

    @property
    def dumps(self) -> bool:
        """Whether hashes may be read by DUMP on the connection there is."""
        return self._link is not None and self._link.dumps

    def refuse_dumps(self) -> None:
        """Read hashes by HGETALL for as long as the connection there is lives."""
        if self._link is not None:
            self._link.dumps = False

    def exchange(self, payload: bytes, reply_count: int, ends_at: float) -> Awaitable[Answer]:
        """Send packed commands and return their replies; those of other callers may be in the same pipeline.

        Args:
            payload: The commands.
            reply_count: Replies that they bring.
            ends_at: When to give up, on the loop's clock.

        Raises:
            TimeoutError: No answer came in time.
            StoreLostError: The connection broke before the answer came; the commands may have been carried out.
            StoreUnavailableError: The server cannot be reached, or was not asked because it has been failing.
        """
        once = self._exchange if self._breaker.closed else self._try
        return once(payload, reply_count, ends_at)

    async def aclose(self) -> None:
        """Close the connection; whoever waits is told."""
        self._closed = True
        connecting, link = self._connecting, self._link
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        if link is not None:
            link.abort("the reader was closed")
            await link.wait_closed()
        self._fail_waiting(StoreUnavailableError("the reader was closed"))
        if self._timer is not None:
            self._timer.cancel()

    async def _try(self, payload: bytes, reply_count: int, ends_at: float) -> Answer:
        """Exchange with a server that has been failing, if it is time for that."""
        wait_s = self._breaker.admit(ends_at)
        if wait_s is None:
            raise StoreUnavailableError(f"not asked: {self._why}")
        try:
            if wait_s:
                await asyncio.sleep(wait_s)
            return await self._exchange(payload, reply_count, ends_at)
        finally:
            self._breaker.end_trial()

    async def _exchange(self, payload: bytes, reply_count: int, ends_at: float) -> Answer:
        if self._closed or len(self._waiting) >= MAX_WAITING:
            self._make_room()
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append(_Call(payload, reply_count, future))
        self._quiet_turns = 0
        if self._link is None:
            self._connect()
        elif not self._flush_due and self._in_flight < MAX_IN_FLIGHT:
            self._flush_due = True
            self._flush_by = self._loop.time() + MAX_HOLD_S
            self._loop.call_soon(self._gather)
        self._ends[future] = ends_at
        if ends_at < self._next_end:
            self._watch(ends_at)
        try:
            return await future
        finally:
            del self._ends[future]

    def _make_room(self) -> None:
        """Forget callers that gave up.

        Raises:
            StoreUnavailableError: There is no room even so, or there will be no answers any more.
        """
        if self._closed:
            raise StoreUnavailableError("the reader is closed")
        self._waiting = deque(call for call in self._waiting if not call.future.done())
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailableError(f"{MAX_WAITING} reads wait for the store already")

    def _gather(self) -> None:
        """Flush, or look again after the loop's next turn."""
        if self._quiet_turns < self._turns() and self._loop.time() < self._flush_by:
            self._quiet_turns += 1
            self._loop.call_soon(self._gather)
        else:
            self._flush()

    def _turns(self) -> int:
        """For how many quiet turns of the loop those that wait are held."""
        count = len(self._waiting)
        if count == 1 and not self._in_flight and not self._company.expected():
            return 0
        return min(QUIET_TURNS * count, MOST_QUIET_TURNS)

    def _flush(self) -> None:
        self._flush_due = False
        while self._waiting and self._link is not None and self._in_flight < MAX_IN_FLIGHT:
            calls = self._next_calls()
            if calls:
                payload = b"".join([call.payload for call in calls])
                self._company.sent(len(calls))
                self._in_flight += 1
                self.round_trips += 1
                self._link.send(payload, _Pipeline(calls, self._loop.time(), self._finished))

    def _next_calls(self) -> list[_Call]:
        """Take calls that somebody still waits for, up to the bound of a pipeline."""
        calls: list[_Call] = []
        room = MAX_PIPELINE_COMMANDS
        while self._waiting and (not calls or self._waiting[0].reply_count <= room):
            call = self._waiting.popleft()
            if not call.future.done():
                calls.append(call)
                room -= call.reply_count
        return calls

    def _finished(self) -> None:
        self._in_flight -= 1
        self._breaker.success()
        if self._waiting and not self._flush_due:
            self._flush()

    def _watch(self, ends_at: float) -> None:
        """Look for callers that are out of time then. One timer for all: most answers come long before."""
        if self._timer is not None:
            self._timer.cancel()
        self._next_end = ends_at
        self._timer = self._loop.call_at(ends_at, self._expire_due)

    def _expire_due(self) -> None:
        now = self._loop.time()
        self._timer, self._next_end = None, math.inf
        for future, ends_at in self._ends.items():
            if ends_at > now:
                self._next_end = min(self._next_end, ends_at)
            elif not future.done():
                self._expire(future)
        if self._next_end < math.inf:
            self._watch(max(self._next_end, now + SWEEP_S))

    def _expire(self, future: asyncio.Future[Answer]) -> None:
        future.set_exception(TimeoutError("out of time"))
        silent_s = 0.0 if self._link is None else self._link.silent_s()
        if silent_s >= PATIENCE_S:
            self._why = StoreUnavailableError(f"the store owes an answer for {silent_s:.2f} s")
            self._breaker.failure()
        if silent_s >= DROP_S and self._link is not None:
            self._link.abort(str(self._why))

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._run_connect())

    async def _run_connect(self) -> None:
        try:
            link = await self._open_link(self._listener)
        except (OSError, TimeoutError, OnlineStoreError) as error:
            self._why = StoreUnavailableError(f"the store cannot be reached: {str(error) or 'out of time'}")
            self._breaker.failure()
        else:
            self._link = link
            self._breaker.success()
            self._flush()
        finally:
            self._connecting = None
            if self._link is None:
                # Nobody is left waiting, whatever went wrong.
                self._fail_waiting(self._why)

    def _lost(self, link: Link, error: StoreLostError) -> None:
        self._told_lost()
        if link is not self._link:
            return
        self._link = None
        if self._in_flight:
            self._why = error
            self._breaker.failure()
        self._in_flight = 0
        if self._closed:
            self._fail_waiting(error)
        elif self._waiting:
            self._connect()

    def _fail_waiting(self, error: StoreUnavailableError) -> None:
        waiting, self._waiting = self._waiting, deque()
        _fail(waiting, error)


def _fail(calls: Sequence[_Call] | deque[_Call], error: StoreUnavailableError) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(type(error)(str(error)))
