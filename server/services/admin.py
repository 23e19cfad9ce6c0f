"""AdminService: status, the virtual clock, reloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis.exceptions

from server.bundles import BundleKeeper
from server.clock import Clock, VirtualClock
from server.decision_log import DecisionLog
from server.errors import ConditionError, InvalidRequestError, ServerError, StoreUnavailableError
from server.services.dead_letters import DeadLetterDesk
from server.services.decision import DecisionService
from server.values import micros, timestamp
from streaming.log import EventLog
from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

MAX_SECONDS = 253_402_300_799
"""The end of the year 9999, where protobuf's timestamps end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """How far one partition of the log is applied.

    Attributes:
        lag: Records appended and not yet applied.
        watermark_us: Logical time up to which features are current.
        owner: The materializer that holds the lease, or nothing.
        figures: What it has left at its last checkpoint.
    """

    partition: int
    lag: int
    watermark_us: int
    owner: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBuild:
    """How far stream views are that are built from the archive.

    Attributes:
        views: Their names.
        stage: What is at work.
        done: How much of the stage, of `total`.
    """

    views: Sequence[str]
    stage: str
    done: int
    total: int


RETRY_AFTER_S = 1.0
Answer = TypeVar("Answer")
Partitions = Callable[[], Awaitable[Sequence[PartitionLag]]]
Building = Callable[[], Awaitable[ViewBuild | None]]
Announce = Callable[[str], Awaitable[None]]


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """For operators.

    Args:
        bundles: What decides, and how to swap it.
        clock: Can be advanced only if it is virtual.
        log: Gets a tick when the clock moves, so that the materializer follows.
        partitions: Asks how far the log is applied.
        announce: Tells materializers that the policy has changed.
        desk: The dead-letter log.
        building: Asks how far views are that are being built.
        refused: Counts the events that were refused, by reason.
    """

    def __init__(
        self,
        bundles: BundleKeeper,
        clock: Clock,
        log: EventLog,
        partitions: Partitions,
        announce: Announce,
        decisions: DecisionService,
        decision_log: DecisionLog,
        desk: DeadLetterDesk,
        *,
        building: Building,
        refused: Callable[[], Mapping[str, int]],
    ) -> None:
        self._bundles = bundles
        self._clock = clock
        self._log = log
        self._partitions = partitions
        self._building = building
        self._refused = refused
        self._announce = announce
        self._decisions = decisions
        self._decision_log = decision_log
        self._desk = desk

    async def GetStatus(  # noqa: N802 - the name in the proto
        self,
        request: admin_pb2.GetStatusRequest,  # noqa: ARG002 - gRPC's signature
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> admin_pb2.GetStatusResponse:
        """What the server runs on."""
        bundle = self._bundles.current.bundle
        build = await stored(self._building())
        return admin_pb2.GetStatusResponse(
            bundle_version=bundle.version,
            model_versions=[str(bundle.models[name]) for name in sorted(bundle.models)],
            project=bundle.catalog.project,
            now=timestamp(self._clock.now_us()),
            partitions=[
                admin_pb2.PartitionStatus(
                    partition=p.partition,
                    lag=p.lag,
                    watermark=timestamp(p.watermark_us),
                    owner=p.owner,
                    figures=p.figures,
                )
                for p in await stored(self._partitions())
            ],
            decision_count=self._decisions.count,
            decision_records_lost=self._decision_log.lost_count,
            build=None
            if build is None
            else admin_pb2.ViewBuild(
                views=build.views, stage=build.stage, done=build.done, total=build.total
            ),
            events_refused=self._refused(),
        )

    async def AdvanceClock(  # noqa: N802 - the name in the proto
        self,
        request: admin_pb2.AdvanceClockRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> admin_pb2.AdvanceClockResponse:
        """Move a virtual clock forward, and the log's time with it."""
        if not isinstance(self._clock, VirtualClock):
            message = "the server runs on the system's clock: start it with --clock virtual to advance time"
            raise ConditionError("CLOCK_NOT_VIRTUAL", message)
        if not 0 <= request.now.seconds <= MAX_SECONDS:
            description = (
                f"is {request.now.seconds} s since the epoch; a timestamp lies between 1970 and 9999"
            )
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "now", description)
        before_us = self._clock.now_us()
        now_us = self._clock.advance(micros(request.now))
        if now_us > before_us:
            await stored(self._log.tick(now_us))
        return admin_pb2.AdvanceClockResponse(now=timestamp(now_us))

    async def Reload(  # noqa: N802 - the name in the proto
        self,
        request: admin_pb2.ReloadRequest,  # noqa: ARG002 - gRPC's signature
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> admin_pb2.ReloadResponse:
        """Compile policy and models anew and swap them in; a bad one is refused and the old one goes on."""
        try:
            serving = await asyncio.to_thread(self._bundles.reload)
        except ServerError as error:
            message = f"the new policy is refused, the old one goes on deciding:\n{error}"
            raise ConditionError("RELOAD_REFUSED", message) from error
        try:
            await self._announce(serving.bundle.version)
        except (redis.exceptions.RedisError, OSError) as error:
            message = (
                "the new policy decides here, but the store does not answer, so materializers go on with the old one: "
                "reload again when it does"
            )
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error
        return admin_pb2.ReloadResponse(bundle_version=serving.bundle.version)

    async def ListDeadLetters(  # noqa: N802 - the name in the proto
        self,
        request: admin_pb2.ListDeadLettersRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> admin_pb2.ListDeadLettersResponse:
        """A page of dead letters, or those named."""
        return await stored(self._desk.show(request))

    async def RedriveDeadLetters(  # noqa: N802 - the name in the proto
        self,
        request: admin_pb2.RedriveDeadLettersRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> admin_pb2.RedriveDeadLettersResponse:
        """Publish letters anew; those accepted leave the dead-letter log."""
        return await stored(self._desk.redrive(request))


async def stored(work: Awaitable[Answer]) -> Answer:
    """What the store answers; StoreUnavailableError where it does not."""
    try:
        return await work
    except (redis.exceptions.RedisError, OSError) as error:
        raise StoreUnavailableError("the store does not answer: is it running?", RETRY_AFTER_S) from error
