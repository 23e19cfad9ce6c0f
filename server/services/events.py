"""EventService: takes events in, each judged by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis.exceptions

from decision.errors import InvalidCustomerError
from decision.plan import typed_key
from decision.schema import ValueType
from server import status
from server.budget import CURRENT
from server.clock import Clock
from server.config import Limits
from server.errors import InvalidRequestError, RequestError, StoreUnavailableError, TooManyRequestsError
from server.metrics import Metrics
from streaming.errors import EventRefused, LogFull
from streaming.events import EventRecord, EventSchema
from streaming.log import EventLog
from waypost.events.v1 import events_pb2, events_pb2_grpc

RETRY_AFTER_S = 1.0


class EventService(events_pb2_grpc.EventServiceServicer):
    """Validates every event of a batch and appends the good ones to the log.

    Args:
        schema: The repo's event types.
        customer_type: Type of the customer join key; an event whose customer is not of it is refused.
        log: Where accepted events go; when `append` returns they are durable.
        clock: Logical time of arrival.
    """

    def __init__(
        self,
        schema: EventSchema,
        customer_type: Callable[[], ValueType],
        log: EventLog,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._schema = schema
        self._customer_type = customer_type
        self._log = log
        self._clock = clock
        self._limits = limits
        self._metrics = metrics

    async def PublishEvents(  # noqa: N802 - the name in the proto
        self,
        request: events_pb2.PublishEventsRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> events_pb2.PublishEventsResponse:
        """Append the valid events of the batch; the answer has one result per event, in order."""
        count = len(request.events)
        if count > self._limits.max_events:
            limit = self._limits.max_events
            raise InvalidRequestError.of(
                "BATCH_TOO_LARGE", "events", f"has {count} events, send at most {limit}", maxEvents=str(limit)
            )
        now_us = self._clock.now_us()
        judged = [self._judge(event, index, now_us) for index, event in enumerate(request.events)]
        records = [verdict for verdict in judged if isinstance(verdict, EventRecord)]
        positions = iter(await self._append(records, now_us) if records else [])
        self._metrics.events_accepted.inc(len(records))
        results = [
            _accepted(event, next(positions))
            if isinstance(verdict, EventRecord)
            else self._refused(event, verdict)
            for event, verdict in zip(request.events, judged, strict=True)
        ]
        return events_pb2.PublishEventsResponse(results=results, accepted_count=len(records))

    def _judge(self, event: events_pb2.Event, index: int, now_us: int) -> EventRecord | RequestError:
        try:
            record = self._schema.validate_event(event, now_us)
            typed_key(record.customer_id, self._customer_type())
        except EventRefused as error:
            description = str(error).removeprefix(f"{error.field} ")
            return InvalidRequestError.of(error.reason, f"events[{index}].{error.field}", description)
        except InvalidCustomerError as error:
            return InvalidRequestError.of("INVALID_ID", f"events[{index}].customer_id", error.message)
        return record

    async def _append(self, records: list[EventRecord], now_us: int) -> list[str]:
        budget = CURRENT.get()
        try:
            async with asyncio.timeout(budget.left_s()):
                return await self._log.append(records, now_us)
        except LogFull as error:
            raise TooManyRequestsError("LOG_FULL", str(error), error.retry_after_ms / 1_000) from error
        except TimeoutError as error:
            raise budget.spent_error("log") from error
        except (redis.exceptions.RedisError, OSError) as error:
            message = "the event log does not answer: nothing is acknowledged, send the same events again"
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error

    def _refused(self, event: events_pb2.Event, error: RequestError) -> events_pb2.PublishResult:
        self._metrics.events_refused.labels(error.reason).inc()
        return events_pb2.PublishResult(event_id=event.event_id, error=status.to_status(error))


def _accepted(event: events_pb2.Event, position: str) -> events_pb2.PublishResult:
    return events_pb2.PublishResult(event_id=event.event_id, accepted=True, position=position)
