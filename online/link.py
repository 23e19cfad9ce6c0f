"""One connection of the read path: pipelines out, framed replies back in order, pushes to whom they concern."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import hiredis
import numpy as np
from numpy.typing import NDArray

from online.address import Node
from online.dumps import check
from online.errors import StoreLostError, StoreUnavailableError
from online.kernels import (
    DEPTH,
    END,
    ERRORS,
    FIRST,
    KIND,
    LEAVES_FULL,
    MALFORMED,
    MORE,
    PUSHES,
    REPLIES,
    REPLIES_FULL,
    STACK,
    START,
    STATE_SIZE,
    STOP,
    scan,
)
from online.replies import Replies
from online.topology import Topology

MAX_ODD: Final = 16
"""A connection that brought so many dumps that are not read brings no more."""
MAX_PENDING_BYTES: Final = 64 << 20
"""Most bytes of replies that wait for the rest of their pipeline."""
_ROOM_BYTES: Final = 256 << 10
_LEAST_BYTES: Final = 64 << 10
_PUSH: Final = ord(">")
_COMPRESSION: Final = b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$14\r\nrdbcompression\r\n"
_TRACK: Final = b"*4\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nOPTIN\r\n"

Push = list[Any]


class Pipeline(Protocol):
    """What was sent in one go, and who waits for it."""

    count: int
    sent_at: float

    def deliver(self, replies: Replies) -> None:
        """Take all replies."""

    def fail(self, error: StoreUnavailableError) -> None:
        """The connection was lost before all replies came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told what befalls a connection.

    Attributes:
        lost: It is gone; every pipeline has failed already.
        pushed: A push that nobody asked for, such as an invalidation.
    """

    lost: Callable[[Link, StoreLostError], None]
    pushed: Callable[[Push], None]


class Link(asyncio.BufferedProtocol):
    """Frames what one socket receives; the socket is closed on the first byte that is not RESP.

    Attributes:
        heard_at: When bytes came last, on the loop's clock; 0 before the first.
        dumps: Whether hashes may be read by DUMP.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._clock = asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None
        self._pending: deque[Pipeline] = deque()
        self._why = "the store closed the connection"
        self._closed = asyncio.get_running_loop().create_future()
        self._buffer: NDArray[np.uint8] = np.empty(_ROOM_BYTES, np.uint8)
        self._view = self._buffer.data
        self._filled = 0
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._leaves = np.empty((256, 2), np.int64)
        self._table = np.empty((64, 5), np.int64)
        self._unpacks = False
        self.dumps = False
        self._odd = 0
        self.heard_at = 0.0

    def read_dumps(self, *, asks: bool) -> None:
        """Take strings among the replies from now on for dumps.

        Args:
            asks: Whether hashes may be read by DUMP. Where they may not, dumps come all the same: of what was meant for
                another connection.
        """
        self._unpacks, self.dumps = True, asks

    def send(self, payload: bytes, pipeline: Pipeline) -> None:
        """Send packed commands; their replies go to `pipeline`, in order behind those of earlier ones."""
        assert self._transport is not None
        self._pending.append(pipeline)
        self._transport.write(payload)

    def silent_s(self) -> float:
        """Seconds for which an answer has been owed and nothing came; 0 where nothing is owed."""
        if not self._pending:
            return 0.0
        return self._clock() - max(self.heard_at, self._pending[0].sent_at)

    def abort(self, why: str) -> None:
        """Close at once, with all that is outstanding."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the socket is closed."""
        await asyncio.shield(self._closed)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        lost = StoreLostError(f"{self._why}: {error}" if error else self._why)
        pending, self._pending = self._pending, deque()
        for pipeline in pending:
            pipeline.fail(lost)
        if not self._closed.done():
            self._closed.set_result(None)
        self._listener.lost(self, lost)

    def eof_received(self) -> bool:
        """A half-closed socket brings no more replies: close the other half too."""
        return False

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        if len(self._buffer) - self._filled < _LEAST_BYTES:
            grown = np.empty(2 * len(self._buffer), np.uint8)
            grown[: self._filled] = self._buffer[: self._filled]
            self._set_buffer(grown)
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self.heard_at = self._clock()
        try:
            while self._frame():
                pass
        except StoreUnavailableError as error:
            self.abort(str(error))

    def _frame(self) -> bool:
        """Frame what has come and hand it out; whether bytes were moved and must be framed again."""
        while (outcome := scan(self._buffer, self._filled, self._state, self._leaves, self._table)) != MORE:
            if outcome == MALFORMED:
                raise StoreUnavailableError("the store's answer is not RESP; is this a Redis server?")
            if outcome == LEAVES_FULL:
                self._leaves = _grown(self._leaves)
            elif outcome == REPLIES_FULL:
                self._table = _grown(self._table)
        if self._filled > MAX_PENDING_BYTES:
            raise StoreUnavailableError(
                f"an answer has more than {MAX_PENDING_BYTES >> 20} MiB; read fewer entities at a time"
            )
        if self._state[PUSHES]:
            self._take_pushes()
        return self._hand_out()

    def _take_pushes(self) -> None:
        table = self._table[: self._state[REPLIES]]
        is_push = table[:, KIND] == _PUSH
        for start, end in table[is_push][:, [START, END]].tolist():
            parser = hiredis.Reader()
            parser.feed(bytes(self._view[start:end]))
            self._listener.pushed(list(parser.gets()))
        rest = table[~is_push]
        if self._state[DEPTH]:
            # The row of the reply that is being framed moves with those before it.
            rest = np.concatenate([rest, self._table[[len(table)]]])
        self._table[: len(rest)] = rest
        self._state[REPLIES] -= np.count_nonzero(is_push)
        self._state[PUSHES] = 0

    def _hand_out(self) -> bool:
        """Give every pipeline whose replies are all there its replies; whether bytes were moved."""
        position, _, ready, _, _, depth = self._state[:STACK].tolist()
        taken, end = 0, 0
        while self._pending and self._pending[0].count <= ready - taken:
            pipeline = self._pending.popleft()
            replies, end = self._cut(taken, taken + pipeline.count)
            taken += pipeline.count
            pipeline.deliver(replies)
        if ready > taken and not self._pending:
            raise StoreUnavailableError("the store answered what was not asked; is this a Redis server?")
        if ready == taken and depth == 0 and position == self._filled:
            self._keep_from(self._filled)
        elif taken:
            self._keep_from(end)
            return True
        return False

    def _cut(self, first: int, stop: int) -> tuple[Replies, int]:
        """A copy of some replies, and the place behind their last byte."""
        table = self._table[first:stop].copy()
        _, first_leaf, _, start, _ = table[0].tolist()
        _, _, last_leaf, _, end = table[-1].tolist()
        leaves = self._leaves[first_leaf:last_leaf].copy()
        if start:
            leaves[:, 0] -= start
            table[:, START:] -= start
        if first_leaf:
            table[:, FIRST : STOP + 1] -= first_leaf
        data = self._buffer[start:end].copy()
        odd = check(data, leaves, table) if self._unpacks else 0
        if odd:
            self._odd += odd
            self.dumps = self.dumps and self._odd < MAX_ODD
        return Replies(data, leaves, table, int(self._state[ERRORS]), odd), end

    def _keep_from(self, position: int) -> None:
        """Drop the bytes before `position`; what is left is framed from the start (a push in it is told twice)."""
        rest_bytes = self._filled - position
        if len(self._buffer) > _ROOM_BYTES and rest_bytes < _LEAST_BYTES:
            smaller = np.empty(_ROOM_BYTES, np.uint8)
            smaller[:rest_bytes] = self._buffer[position : self._filled]
            self._set_buffer(smaller)
        elif rest_bytes:
            self._buffer[:rest_bytes] = self._buffer[position : self._filled].copy()
        self._filled = rest_bytes
        self._state[:] = 0

    def _set_buffer(self, buffer: NDArray[np.uint8]) -> None:
        self._buffer = buffer
        self._view = buffer.data


class _Greeting:
    """The replies to a connection's first commands."""

    def __init__(self, count: int, sent_at: float) -> None:
        self.count = count
        self.sent_at = sent_at
        self.replies: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()

    def deliver(self, replies: Replies) -> None:
        if not self.replies.done():
            self.replies.set_result(replies)

    def fail(self, error: StoreUnavailableError) -> None:
        if not self.replies.done():
            self.replies.set_exception(error)


async def open_link(topology: Topology, node: Node, track: bool, listener: Listener) -> Link:
    """Open a connection, log in and speak RESP3.

    Args:
        topology: How to reach the store's servers.
        node: Which one.
        track: Have the server name the keys that change of those read behind `CLIENT CACHING YES`. One that cannot
            refuses that command too, and nothing is kept.
        listener: Who is told what befalls the connection.

    Raises:
        OSError: The server cannot be reached.
        TimeoutError: It did not greet back in time.
        StoreUnavailableError: It refused, or is no Redis server.
    """
    commands = topology.handshake(resp=3)
    required = len(commands)
    commands = [*commands, _COMPRESSION, *([_TRACK] if track else [])]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(topology.connect_timeout_s):
        _, link = await topology.open(node, lambda: Link(listener))
        greeting = _Greeting(len(commands), loop.time())
        try:
            link.send(b"".join(commands), greeting)
            replies = await greeting.replies
        except BaseException:
            link.abort("the connection could not be set up")
            raise
    refusals = [replies.error(row) for row in range(required)]
    for text in filter(None, refusals):
        link.abort(text)
        raise StoreUnavailableError(f"{node} refused the connection: {text}")
    # What is compressed takes both sides longer than HGETALL; who may not know reads by that, too.
    link.read_dumps(asks=replies.texts(required) == [b"rdbcompression", b"no"])
    return link


def _grown(table: NDArray[np.int64]) -> NDArray[np.int64]:
    grown = np.empty((2 * len(table), table.shape[1]), np.int64)
    grown[: len(table)] = table
    return grown
