"""EventService: takes events in, each judged by itself."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.exceptions
import structlog
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from decision.errors import InvalidCustomerError
from decision.plan import typed_key
from decision.schema import ValueType
from server import status
from server.budget import CURRENT
from server.clock import Clock
from server.config import Limits
from server.errors import InvalidRequestError, RequestError, StoreUnavailableError, TooManyRequestsError
from server.metrics import Metrics
from streaming.dead_letters import DeadLetters, RefusedEvent
from streaming.errors import EventRefused, LogFull
from streaming.events import EventRecord, EventSchema
from streaming.log import EventLog
from waypost.events.v1 import events_pb2, events_pb2_grpc

RETRY_AFTER_S = 1.0
_PLACE = re.compile(r"^events\[\d+\]\.")
"""Where an event stood in its batch, which says nothing once it is alone."""
_log = structlog.get_logger("server")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """JSON that is no event."""

    data: bytes
    error: InvalidRequestError


class EventService(events_pb2_grpc.EventServiceServicer):
    """Validates every event of a batch and appends the good ones to the log.

    Args:
        schema: The repo's event types.
        customer_type: Type of the customer join key; an event whose customer is not of it is refused.
        log: Where accepted events go; when `append` returns they are durable.
        letters: Where refused ones go.
        clock: Logical time of arrival.
    """

    def __init__(
        self,
        schema: EventSchema,
        customer_type: Callable[[], ValueType],
        log: EventLog,
        letters: DeadLetters,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._schema = schema
        self._customer_type = customer_type
        self._log = log
        self._letters = letters
        self._gates = schema.gates()
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
        return await self.publish(request.events)

    async def publish_json(self, body: bytes) -> bytes:
        """`PublishEvents` over HTTP: `{"events": [...]}` in proto3's JSON, each event judged by itself."""
        items = _json_events(body, self._limits.max_events)
        parsed = [_parsed(item, index) for index, item in enumerate(items)]
        answer = await self.publish(parsed)
        fields = MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return json.dumps(fields, ensure_ascii=False).encode()

    async def publish(
        self, events: Sequence[events_pb2.Event | Unreadable], *, again: bool = False
    ) -> events_pb2.PublishEventsResponse:
        """Append the valid events; the answer has one result per event, in order.

        Args:
            events: As sent.
            again: They come from the dead-letter log: an operator has looked at them, so gates do not judge, and
                what is refused is there already.
        """
        now_us = self._clock.now_us()
        judged = [self._judge(event, index, now_us, gated=not again) for index, event in enumerate(events)]
        records = [verdict for verdict in judged if isinstance(verdict, EventRecord)]
        positions = iter(await self._append(records, now_us) if records else [])
        self._metrics.events_accepted.inc(len(records))
        pairs = list(zip(events, judged, strict=True))
        if not again:
            await self._keep(
                [(event, verdict) for event, verdict in pairs if isinstance(verdict, RequestError)]
            )
        results = [
            _accepted(event, next(positions))
            if isinstance(verdict, EventRecord)
            else self._refused(event, verdict)
            for event, verdict in pairs
        ]
        return events_pb2.PublishEventsResponse(results=results, accepted_count=len(records))

    def _judge(
        self, event: events_pb2.Event | Unreadable, index: int, now_us: int, *, gated: bool
    ) -> EventRecord | RequestError:
        if isinstance(event, Unreadable):
            return event.error
        try:
            record = self._schema.validate_event(event, now_us)
            typed_key(record.customer_id, self._customer_type())
            if gated:
                self._gates.judge(record.event_type, record.properties, now_us)
        except EventRefused as error:
            description = str(error).removeprefix(f"{error.field} ")
            return InvalidRequestError.of(error.reason, f"events[{index}].{error.field}", description)
        except InvalidCustomerError as error:
            return InvalidRequestError.of("INVALID_ID", f"events[{index}].customer_id", error.message)
        return record

    async def _keep(self, refused: Sequence[tuple[events_pb2.Event | Unreadable, RequestError]]) -> None:
        """Put refused events into the dead-letter log; the answer does not wait for a store that is away."""
        if not refused:
            return
        arrived_us = time.time_ns() // 1000
        letters = [
            RefusedEvent(
                reason=error.reason,
                field=error.metadata.get("field", "").partition("].")[2],
                detail=_PLACE.sub("", error.message),
                arrived_us=arrived_us,
                event=event.data if isinstance(event, Unreadable) else event.SerializeToString(),
                is_json=isinstance(event, Unreadable),
            )
            for event, error in refused
        ]
        try:
            async with asyncio.timeout(CURRENT.get().left_s()):
                await self._letters.put(letters)
        except (TimeoutError, redis.exceptions.RedisError, OSError) as error:
            self._metrics.dead_letters_lost.inc(len(letters))
            _log.warning("dead_letters.lost", count=len(letters), error=str(error))

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
            refused = isinstance(error, redis.exceptions.ResponseError)
            what = f"takes nothing for now ({error})" if refused else "does not answer"
            message = f"the event log {what}: nothing is acknowledged, send the same events again"
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error

    def _refused(self, event: events_pb2.Event | Unreadable, error: RequestError) -> events_pb2.PublishResult:
        self._metrics.events_refused.labels(error.reason).inc()
        event_id = "" if isinstance(event, Unreadable) else event.event_id
        return events_pb2.PublishResult(event_id=event_id, error=status.to_status(error))


def _json_events(body: bytes, max_events: int) -> list[Any]:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError.of("MESSAGE_MALFORMED", "body", f"is no JSON: {error}") from error
    events = sent.get("events") if isinstance(sent, dict) else None
    if not isinstance(events, list):
        description = 'must be {"events": [...]}, each an event as `waypost publish` takes it'
        raise InvalidRequestError.of("MESSAGE_MALFORMED", "body", description)
    if len(events) > max_events:
        description = f"has {len(events)} events, send at most {max_events}"
        raise InvalidRequestError.of("BATCH_TOO_LARGE", "events", description, maxEvents=str(max_events))
    return events


def _parsed(item: Any, index: int) -> events_pb2.Event | Unreadable:
    try:
        return ParseDict(item, events_pb2.Event())
    except (ParseError, TypeError, AttributeError, ValueError, OverflowError, SystemError) as error:
        # OverflowError is of a whole number beyond any double, SystemError of a map's name with half a surrogate pair.
        description = _escaped(f"is no event: {error}").decode()
        refusal = InvalidRequestError.of("MESSAGE_MALFORMED", f"events[{index}]", description)
        return Unreadable(_escaped(json.dumps(item, ensure_ascii=False)), refusal)


def _escaped(text: str) -> bytes:
    r"""UTF-8, with half a surrogate pair, which JSON can spell and UTF-8 cannot, as its escape in JSON, `\ud83d`."""
    return text.encode(errors="backslashreplace")


def _accepted(event: events_pb2.Event | Unreadable, position: str) -> events_pb2.PublishResult:
    assert isinstance(event, events_pb2.Event)
    return events_pb2.PublishResult(event_id=event.event_id, accepted=True, position=position)
