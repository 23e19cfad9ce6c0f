"""The gRPC server's life: bind, warm, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from server.application import Application, Services, build_services
from server.calls import Border
from server.config import Settings
from server.errors import ServerError
from server.feast.grpc_handlers import SERVICE_NAMES as FEAST_SERVICES
from server.http import HttpEndpoint
from server.listening import refusal_to_listen
from waypost.admin.v1 import admin_pb2, admin_pb2_grpc
from waypost.decision.v1 import decision_pb2, decision_pb2_grpc
from waypost.events.v1 import events_pb2, events_pb2_grpc
from waypost.features.v1 import features_pb2, features_pb2_grpc
from waypost.segments.v1 import segments_pb2, segments_pb2_grpc

TRANSPORT_SLACK = 4
"""Messages up to this multiple of the bound reach Python, where the refusal can name the field."""

PING_AFTER_MS = 30_000
PING_TIMEOUT_MS = 10_000
"""A client that vanishes with its machine or network ends nothing: its streams would keep their places for hours.

The transport's own bound on pings without data is lifted: by it, a silent stream is asked only twice.
"""

OWN_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (decision_pb2, "DecisionService"),
        (features_pb2, "FeatureService"),
        (events_pb2, "EventService"),
        (segments_pb2, "SegmentService"),
        (admin_pb2, "AdminService"),
    )
)
SERVICE_NAMES = (*OWN_SERVICES, *FEAST_SERVICES)
_log = structlog.get_logger("server")


class BindError(ServerError):
    """The address is taken or not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a server listens."""

    grpc: str
    http: str


Ready = Callable[[Addresses], None]
Warm = Callable[[], Awaitable[None]]


async def serve(
    app: Application, settings: Settings, ready: Ready, stop: asyncio.Event, warm: Warm | None = None
) -> None:
    """Serve until `stop` is set, then let calls in flight end and the decision log flush.

    Args:
        app: The parts behind the services.
        settings: Address, ports and bounds.
        ready: Called once the health check says SERVING.
        stop: Ends it.
        warm: Runs between binding and SERVING, besides a decision at every placement.

    Raises:
        BindError: The address cannot be had.
    """
    services = build_services(app)
    health = health_aio.HealthServicer()
    server = _server(app, settings, services, health)
    port = _bind(server, settings)
    await _set_health(health, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    app.decision_log.start()
    app.feast.refresher.start()
    serving = False
    async with _http(app, lambda: serving, settings, services) as http:
        await _warm_up(services, warm)
        await _set_health(health, health_pb2.HealthCheckResponse.SERVING)
        serving = True
        ready(Addresses(grpc=f"{settings.host}:{port}", http=f"{settings.host}:{http.port}"))
        await stop.wait()
        serving = False
        await health.enter_graceful_shutdown()
        await app.feast.refresher.close()
        await server.stop(settings.deadlines.shutdown_grace_s)
    app.feast.transformer.close()
    app.explainer.close()
    await app.decision_log.close()


def _http(
    app: Application, healthy: Callable[[], bool], settings: Settings, services: Services
) -> HttpEndpoint:
    try:
        posts = {**services.feast_routes.routes(), "/v1/events": services.events.publish_json}
        return HttpEndpoint(app.metrics, healthy, settings, posts)
    except OSError as error:
        address = f"{settings.host}:{settings.http_port}"
        raise BindError(f"cannot listen on {address}: {error.strerror}; choose with --http-port") from error


async def _warm_up(services: Services, warm: Warm | None) -> None:
    """Pay for compilation and first uses before anyone waits for them."""
    started = time.monotonic()
    if warm is not None:
        await warm()
    await services.decision.warm_up()
    _log.info("server.warmed", seconds=round(time.monotonic() - started, 3))


def _server(
    app: Application, settings: Settings, services: Services, health: health_aio.HealthServicer
) -> grpc.aio.Server:
    size = settings.limits.max_message_bytes
    server = grpc.aio.server(
        maximum_concurrent_rpcs=settings.limits.max_concurrent_calls,
        options=[
            ("grpc.max_receive_message_length", size * TRANSPORT_SLACK),
            ("grpc.max_send_message_length", size * TRANSPORT_SLACK),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", PING_AFTER_MS),
            ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
        ],
    )
    border: Any = Border(server, settings, app.metrics)
    decision_pb2_grpc.add_DecisionServiceServicer_to_server(services.decision, border)
    features_pb2_grpc.add_FeatureServiceServicer_to_server(services.features, border)
    events_pb2_grpc.add_EventServiceServicer_to_server(services.events, border)
    segments_pb2_grpc.add_SegmentServiceServicer_to_server(services.segments, border)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(services.admin, border)
    for service, handlers in services.feast_handlers.by_service().items():
        border.add_registered_method_handlers(service, handlers)
    health_pb2_grpc.add_HealthServicer_to_server(health, border)
    reflector = reflection_aio.ReflectionServicer((*SERVICE_NAMES, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflector, border)
    return server


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    address = f"{settings.host}:{settings.grpc_port}"
    with contextlib.suppress(RuntimeError):
        port = server.add_insecure_port(address)
        if port:
            return port
    why = refusal_to_listen(settings.host, settings.grpc_port)
    raise BindError(
        why or f"cannot listen on {address}: is another server running there? choose with --grpc-port"
    )


async def _set_health(
    health: health_aio.HealthServicer, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType
) -> None:
    for name in ("", *SERVICE_NAMES):
        await health.set(name, status)
