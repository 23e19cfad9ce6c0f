"""What surrounds every call of a served method: size check, parsing, deadline budget, error mapping, metrics."""

from __future__ import annotations

import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from server import status
from server.budget import CURRENT, Budget
from server.config import Settings
from server.errors import InvalidRequestError, RequestError
from server.metrics import Metrics

SERVED = ("/waypost.", "/feast.serving.", "/GrpcFeatureServer/")
"""Paths of the services that this server implements itself; health and reflection are gRPC's."""
MAX_STREAMS = 100
"""Open health watches and reflection streams, together."""
STATUS_TRAILER = "grpc-status-details-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = structlog.get_logger("server")

Handler = Any  # grpc.RpcMethodHandler, whose stub lacks the attributes that every handler has
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each unary call once; wrapped handlers are kept, so a call costs one look-up."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._wrapped: dict[str, Handler] = {}
        self._streams = _Streams(MAX_STREAMS)

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """Give grpc the handler of a method, wrapped if the method is one of ours."""
        method = details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(details)
        if handler is not None and handler.response_streaming:
            self._wrapped[method] = self._streams.bounded(handler, _Border(method, self._metrics))
            return self._wrapped[method]
        if handler is None or not method.startswith(SERVED) or handler.unary_unary is None:
            return handler
        call = _Call(method, handler, self._settings, self._metrics)
        self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
            call.answer, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return self._wrapped[method]


class _Streams:
    """Bounds calls that stay open (health's Watch, reflection), so that they leave room for those that decide."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    def bounded(self, handler: Handler, border: _Border) -> Handler:
        """The handler of a streaming method, refusing a stream beyond the bound."""
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(
            self._generator(behaviour, border)
            if inspect.isasyncgenfunction(behaviour)
            else self._coroutine(behaviour),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _generator(self, behaviour: Any, border: _Border) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            async with self._place(context), border.guarded(context):
                async for message in behaviour(request, context):
                    yield message

        return answer

    def _coroutine(self, behaviour: Any) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            async with self._place(context):
                return await behaviour(request, context)

        return answer

    @contextlib.asynccontextmanager
    async def _place(self, context: Any) -> AsyncIterator[None]:
        if self._open >= self._limit:
            message = f"{self._limit} streams are open already; close some, or poll Check instead of Watch"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class _Border:
    """What leaves a method as an error: a status of ours, and nothing of an unexpected error's text."""

    def __init__(self, method: str, metrics: Metrics) -> None:
        self.name = method.rpartition("/")[2]
        self._metrics = metrics

    def failure(self, error: Exception) -> Status:
        """The status of an error."""
        if isinstance(error, RequestError):
            return status.to_status(error)
        incident = secrets.token_hex(8)
        _log.error("call.failed", method=self.name, incident=incident, exc_info=error)
        self._metrics.internal_errors.labels(self.name).inc()
        return status.internal(incident)

    @contextlib.asynccontextmanager
    async def guarded(self, context: Any) -> AsyncIterator[None]:
        """End the call with a status where what runs inside fails."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the border: nothing unexpected may reach a client as text
            await _abort(context, self.failure(error))


class _Call:
    """One method's behaviour on raw request bytes."""

    def __init__(self, method: str, handler: Handler, settings: Settings, metrics: Metrics) -> None:
        self._border = _Border(method, metrics)
        self._parse = handler.request_deserializer
        self._behaviour: Behaviour = handler.unary_unary
        self._settings = settings
        self._metrics = metrics

    async def answer(self, data: bytes, context: Any) -> Any:
        """Answer a request, or end the call with a status."""
        started = time.perf_counter()
        CURRENT.set(Budget.start(context.time_remaining(), self._settings.deadlines))
        try:
            response = await self._behaviour(self._request(data), context)
        except Exception as error:  # noqa: BLE001 - the border: nothing unexpected may reach a client as text
            failure = self._border.failure(error)
        else:
            self._observe(grpc.StatusCode.OK, started)
            return response
        self._observe(_CODES[failure.code], started)
        return await _abort(context, failure)

    def _request(self, data: bytes) -> Any:
        limit = self._settings.limits.max_message_bytes
        if len(data) > limit:
            description = f"is {len(data)} bytes, at most {limit} are taken: send fewer or smaller items"
            raise InvalidRequestError.of("MESSAGE_TOO_LARGE", "request", description, maxBytes=str(limit))
        try:
            return self._parse(data)
        except DecodeError as error:
            description = "is no message of the method's request type: generate the client from protos/ anew"
            raise InvalidRequestError.of("MESSAGE_MALFORMED", "request", description) from error

    def _observe(self, code: grpc.StatusCode, started: float) -> None:
        self._metrics.rpc_seconds.labels(self._border.name, code.name).observe(time.perf_counter() - started)


async def _abort(context: Any, failure: Status) -> Any:
    trailers = ((STATUS_TRAILER, failure.SerializeToString()),)
    await context.abort(_CODES[failure.code], failure.message, trailers)
