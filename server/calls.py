"""What surrounds every call of a served method: size check, parsing, deadline budget, error mapping, metrics."""

from __future__ import annotations

import contextlib
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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

SERVED = ("waypost.", "feast.serving.", "GrpcFeatureServer")
"""How the services begin that this server implements itself; health and reflection are gRPC's."""
MAX_STREAMS = 100
"""Open health watches and reflection streams, together."""
STATUS_TRAILER = "grpc-status-details-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OK = grpc.StatusCode.OK.value[0]
_log = structlog.get_logger("server")

Handler = Any  # grpc.RpcMethodHandler, whose stub lacks the attributes that every handler has
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class Border:
    """Stands where generated code adds a service to a server: wraps every method and registers it by its full name.

    A call then costs one look-up; an interceptor would be asked anew for each.
    """

    def __init__(self, server: grpc.aio.Server, settings: Settings, metrics: Metrics) -> None:
        self._server = server
        self._settings = settings
        self._metrics = metrics
        self._streams = _Streams(MAX_STREAMS)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code adds the same methods by `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add a service's methods by name."""
        wrapped = {name: self._wrapped(service, name, handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, wrapped)

    def _wrapped(self, service: str, method: str, handler: Handler) -> Handler:
        exit_ = _Exit(service, method, self._metrics)
        parser = _Parser(handler, self._settings)
        if handler.response_streaming:
            return self._streams.bounded(handler, parser, exit_)
        if not service.startswith(SERVED):
            return handler
        call = _Call(exit_, handler, parser, self._settings)
        return grpc.unary_unary_rpc_method_handler(
            call.answer, request_deserializer=None, response_serializer=handler.response_serializer
        )


class _Streams:
    """Bounds calls that stay open (health's Watch, reflection), so that they leave room for those that decide."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    def bounded(self, handler: Handler, parser: _Parser, exit_: _Exit) -> Handler:
        """The handler of a streaming method, refusing a stream beyond the bound."""
        parse: Callable[[Any], Any]
        if handler.request_streaming:
            behaviour, parse = handler.stream_stream, parser.messages
            make = grpc.stream_stream_rpc_method_handler
        else:
            behaviour, parse = handler.unary_stream, parser.message
            make = grpc.unary_stream_rpc_method_handler
        wrap = self._generator if inspect.isasyncgenfunction(behaviour) else self._coroutine
        return make(
            wrap(behaviour, parse, exit_),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _generator(self, behaviour: Any, parse: Callable[[Any], Any], exit_: _Exit) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            async with self._place(context), exit_.guarded(context):
                async for message in behaviour(parse(request), context):
                    yield message

        return answer

    def _coroutine(self, behaviour: Any, parse: Callable[[Any], Any], exit_: _Exit) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            async with self._place(context):
                async with exit_.guarded(context):
                    message = parse(request)
                return await behaviour(message, context)

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


class _Exit:
    """How calls of a method end: observed, and failures with a status of ours and nothing of an error's text."""

    def __init__(self, service: str, method: str, metrics: Metrics) -> None:
        self._service = service
        self._method = method
        self._metrics = metrics
        self._observe_by_code: dict[int, Callable[[float], None]] = {}

    def failure(self, error: Exception) -> Status:
        """The status of an error."""
        if isinstance(error, RequestError):
            return status.to_status(error)
        incident = secrets.token_hex(8)
        _log.error(
            "call.failed", service=self._service, method=self._method, incident=incident, exc_info=error
        )
        self._metrics.internal_errors.labels(self._service, self._method).inc()
        return status.internal(incident)

    def observe(self, code: int, seconds: float) -> None:
        """Note how long a call took that ended with a code, by its number: an enum's members hash slowly."""
        observe = self._observe_by_code.get(code)
        if observe is None:
            name = _CODES[code].name
            observe = self._metrics.rpc_seconds.labels(self._service, self._method, name).observe
            self._observe_by_code[code] = observe
        observe(seconds)

    @contextlib.asynccontextmanager
    async def guarded(self, context: Any) -> AsyncIterator[None]:
        """End the call with a status where what runs inside fails."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the border: nothing unexpected may reach a client as text
            await _abort(context, self.failure(error))


class _Call:
    """One method's behaviour on raw request bytes."""

    def __init__(self, exit_: _Exit, handler: Handler, parser: _Parser, settings: Settings) -> None:
        self._exit = exit_
        self._request = parser.message
        self._behaviour: Behaviour = handler.unary_unary
        self._deadlines = settings.deadlines

    async def answer(self, data: bytes, context: Any) -> Any:
        """Answer a request, or end the call with a status."""
        started = time.perf_counter()
        CURRENT.set(Budget.start(context.time_remaining(), self._deadlines))
        try:
            response = await self._behaviour(self._request(data), context)
        except Exception as error:  # noqa: BLE001 - the border: nothing unexpected may reach a client as text
            failure = self._exit.failure(error)
        else:
            self._exit.observe(_OK, time.perf_counter() - started)
            return response
        self._exit.observe(failure.code, time.perf_counter() - started)
        return await _abort(context, failure)


class _Parser:
    """Makes a method's requests from their bytes."""

    def __init__(self, handler: Handler, settings: Settings) -> None:
        self._parse = handler.request_deserializer
        self._max_bytes = settings.limits.max_message_bytes

    def message(self, data: bytes) -> Any:
        """The request.

        Raises:
            InvalidRequestError: It is too large, or none.
        """
        limit = self._max_bytes
        if len(data) > limit:
            description = f"is {len(data)} bytes, at most {limit} are taken: send fewer or smaller items"
            raise InvalidRequestError.of("MESSAGE_TOO_LARGE", "request", description, maxBytes=str(limit))
        try:
            return self._parse(data)
        except DecodeError as error:
            description = "is no message of the method's request type: generate the client from protos/ anew"
            raise InvalidRequestError.of("MESSAGE_MALFORMED", "request", description) from error

    async def messages(self, stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """The requests of a stream, one by one; raises as `message`."""
        async for data in stream:
            yield self.message(data)


async def _abort(context: Any, failure: Status) -> Any:
    trailers = ((STATUS_TRAILER, failure.SerializeToString()),)
    await context.abort(_CODES[failure.code], failure.message, trailers)
