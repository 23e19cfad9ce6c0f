"""SegmentService: follows the log of segment changes for clients, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import redis.exceptions

from decision.schema import ValueType
from server.bundles import BundleKeeper
from server.errors import InvalidRequestError, PositionGoneError, StoreUnavailableError, UnknownResourceError
from server.values import timestamp, to_proto
from streaming.changes import ChangeLog, LoggedChange, Position
from streaming.errors import PositionInvalid, PositionTrimmed
from waypost.segments.v1 import segments_pb2, segments_pb2_grpc

CHANGES_PER_RESPONSE = 1_000
POLL_S = 0.05
HEARTBEAT_S = 10.0
RETRY_AFTER_S = 1.0


class Doorbell:
    """Looks for new changes once for all who wait, and only while somebody waits."""

    def __init__(self, newest: Callable[[], Any], poll_s: float = POLL_S) -> None:
        self._newest = newest
        self._poll_s = poll_s
        self._waiting = 0
        self._condition = asyncio.Condition()
        self._seen: Position | None = None
        self._task: asyncio.Task[None] | None = None

    async def wait(self, position: Position, timeout_s: float) -> bool:
        """Wait until the log is not at `position` any more; False if it still is after `timeout_s`."""
        self._waiting += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look())
            async with asyncio.timeout(timeout_s), self._condition:
                await self._condition.wait_for(lambda: self._seen not in {None, position})
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    async def _look(self) -> None:
        while self._waiting:
            try:
                self._seen = await self._newest()
            except (redis.exceptions.RedisError, OSError):
                self._seen = None  # whoever reads next finds out
            async with self._condition:
                self._condition.notify_all()
            await asyncio.sleep(self._poll_s)


class SegmentService(segments_pb2_grpc.SegmentServiceServicer):
    """Sends changes of membership.

    Nothing is queued for a client: it is read for from the log where it stands, and as fast as it takes.

    Args:
        bundles: For the names of segments.
        changes: The log.
    """

    def __init__(self, bundles: BundleKeeper, changes: ChangeLog) -> None:
        self._bundles = bundles
        self._changes = changes
        self._doorbell = Doorbell(changes.newest)

    async def WatchSegments(  # noqa: N802 - the name in the proto
        self,
        request: segments_pb2.WatchSegmentsRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> AsyncIterator[segments_pb2.WatchSegmentsResponse]:
        """Send what lies behind the position, then what happens."""
        self._check_names(request.segments)
        wanted = frozenset(request.segments)
        try:
            position = await self._start(request.position)
            yield segments_pb2.WatchSegmentsResponse(position=str(position))
            while True:
                changes, behind = await self._changes.read(position, CHANGES_PER_RESPONSE)
                await self._changes.check(position)
                sent = [_to_proto(change) for change in changes if not wanted or change.segment in wanted]
                is_idle = behind == position and not await self._doorbell.wait(position, HEARTBEAT_S)
                position = behind
                if sent or is_idle:
                    yield segments_pb2.WatchSegmentsResponse(changes=sent, position=str(position))
        except PositionTrimmed as error:
            raise PositionGoneError("POSITION_TRIMMED", str(error), {"position": request.position}) from error
        except (redis.exceptions.RedisError, OSError) as error:
            message = "the store does not answer: resume from the last position later"
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error

    async def _start(self, text: str) -> Position:
        if not text:
            return await self._changes.newest()
        try:
            return self._changes.position(text)
        except PositionInvalid as error:
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "position", str(error)) from error

    def _check_names(self, names: Sequence[str]) -> None:
        known = {segment.name for segment in self._bundles.current.bundle.policy.segments}
        for name in names:
            if name not in known:
                message = f"there is no segment {name!r}; the policy has {', '.join(sorted(known)) or 'none'}"
                raise UnknownResourceError("UNKNOWN_SEGMENT", message, "segment", name)


def _to_proto(change: LoggedChange) -> segments_pb2.SegmentChange:
    return segments_pb2.SegmentChange(
        id=change.id,
        segment=change.segment,
        keys={
            name: to_proto(value, ValueType.INT64 if isinstance(value, int) else ValueType.STRING)
            for name, value in change.keys.items()
        },
        entered=change.entered,
        time=timestamp(change.at_us),
    )
