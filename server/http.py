"""The HTTP port, on the server's event loop: /metrics, /health, and the routes that other parts bring."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast

import structlog
import uvicorn
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server import status
from server.budget import CURRENT, Budget
from server.config import Settings
from server.errors import BudgetSpentError, InvalidRequestError, RequestError
from server.metrics import Metrics

REQUEST_TIMEOUT_S = 10
"""Of a request's head, of its body, and of the pause before a connection's next request."""
MAX_HEAD_BYTES = 65_536
SERVICE = "http"
"""What metrics call the service of the routes."""
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
Post = Callable[[bytes], Awaitable[bytes]]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_HTTP_CODES: Mapping[int, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
_log = structlog.get_logger("server")


class HttpEndpoint:
    """Serves until it is closed.

    Args:
        metrics: Shown at /metrics; times of the routes are noted there.
        healthy: Whether the gRPC side serves.
        settings: Address, bounds and deadlines.
        posts: What POSTs to further paths answer: body to body, both JSON.

    Raises:
        OSError: The address cannot be had.
    """

    def __init__(
        self,
        metrics: Metrics,
        healthy: Callable[[], bool],
        settings: Settings,
        posts: Mapping[str, Post] | None = None,
    ) -> None:
        app = _App(metrics, healthy, settings, posts or {})
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.create_server((settings.host, settings.http_port), family=family)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=settings.limits.max_concurrent_calls,
                timeout_keep_alive=REQUEST_TIMEOUT_S,
                timeout_graceful_shutdown=max(1, round(settings.deadlines.shutdown_grace_s)),
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


class _Server(uvicorn.Server):
    """Leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Connection(HttpToolsProtocol):
    """Ends when a request's head is not whole in time, or too long: idle ones would keep everybody out, health too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_due: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        due = self._head_due
        super().data_received(data)
        if self._is_idle:
            self._await_head()
        if due is not None and due is self._head_due:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.close()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered: the timer between requests ends at the first byte, whatever it is."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head_due is None:
            self._head_bytes = 0
            self._head_due = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class _App:
    """The ASGI application."""

    def __init__(
        self, metrics: Metrics, healthy: Callable[[], bool], settings: Settings, posts: Mapping[str, Post]
    ) -> None:
        self._metrics = metrics
        self._healthy = healthy
        self._settings = settings
        self._posts = posts
        self._known = ", ".join(sorted({"/metrics", "/health", *posts}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in self._posts:
            if method != "POST":
                await _answer(send, 405, TEXT, b"send a POST\n", ((b"allow", b"POST"),))
                return
            await self._post(path, receive, send)
        elif method not in {"GET", "HEAD"}:
            await _answer(send, 404, TEXT, f"there are {self._known}\n".encode())
        elif path == "/metrics":
            body = await asyncio.to_thread(generate_latest, self._metrics.registry)
            await _answer(send, 200, CONTENT_TYPE_LATEST, body)
        elif path == "/health":
            healthy = self._healthy()
            await _answer(send, 200 if healthy else 503, TEXT, b"SERVING\n" if healthy else b"NOT_SERVING\n")
        else:
            await _answer(send, 404, TEXT, f"there are {self._known}\n".encode())

    async def _post(self, path: str, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        CURRENT.set(Budget.start(None, self._settings.deadlines))
        try:
            body = await self._posts[path](await self._body(receive))
        except _GoneError:
            return
        except RequestError as error:
            failure = status.to_status(error)
        except Exception as error:  # noqa: BLE001 - the border: nothing unexpected may reach a client as text
            failure = self._incident(path, error)
        else:
            self._observe(path, "OK", started)
            await _answer(send, 200, JSON, body)
            return
        self._observe(path, Code.Name(failure.code), started)
        await _answer(send, _HTTP_CODES.get(failure.code, 500), JSON, _error_body(failure))

    async def _body(self, receive: Receive) -> bytes:
        """Read a request's body, up to the bound of a message."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await _whole(receive, self._settings.limits.max_message_bytes)
        except TimeoutError:
            budget_ms = str(REQUEST_TIMEOUT_S * 1_000)
            message = f"the request's body was not whole after {budget_ms} ms: send less, or faster"
            raise BudgetSpentError(
                "BUDGET_SPENT", message, {"budgetMs": budget_ms, "stage": "body"}
            ) from None

    def _incident(self, path: str, error: Exception) -> Status:
        incident = secrets.token_hex(8)
        _log.error("call.failed", method=path, incident=incident, exc_info=error)
        self._metrics.internal_errors.labels(SERVICE, path).inc()
        return status.internal(incident)

    def _observe(self, path: str, code: str, started: float) -> None:
        self._metrics.rpc_seconds.labels(SERVICE, path, code).observe(time.perf_counter() - started)


class _GoneError(Exception):
    """The client left before its request was whole."""


async def _whole(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        more = message.get("more_body", False)
        if size > limit:
            description = f"is larger than {limit} bytes: send fewer or smaller items"
            raise InvalidRequestError.of("MESSAGE_TOO_LARGE", "request", description, maxBytes=str(limit))
    return b"".join(pieces)


def _error_body(failure: Status) -> bytes:
    """The status as Google's APIs write one in JSON."""
    reasons = status.described(failure)
    error = {
        "code": _HTTP_CODES.get(failure.code, 500),
        "status": Code.Name(failure.code),
        "message": failure.message,
        "details": reasons,
    }
    return json.dumps({"error": error}).encode()


async def _answer(
    send: Send, code: int, content_type: str, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": code,
            "headers": [
                (b"content-type", content_type.encode()),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
