"""A Locust user that speaks gRPC: a channel, its stubs, and an interceptor that reports every call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.experimental.gevent
from locust import User
from locust.env import Environment
from locust.exception import StopUser

from waypost.decision.v1 import decision_pb2_grpc
from waypost.events.v1 import events_pb2_grpc
from waypost.features.v1 import features_pb2_grpc

# Before the first channel: gRPC's own threads would block Locust's.
grpc.experimental.gevent.init_gevent()

DEADLINE_S = 1.0
"""What a call may take before it counts as failed."""


class CallFailedError(Exception):
    """A call that ended in an error status; one line, so that Locust's report can count equal ones."""


class ReportingInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Reports each call to Locust under its method's name, with its whole time: the answer is awaited inside."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> Any:
        started_s = time.perf_counter()
        call = continuation(client_call_details, request)
        failure = call.exception()
        report(
            self._environment,
            str(client_call_details.method).rpartition("/")[2],
            elapsed_ms=(time.perf_counter() - started_s) * 1e3,
            response_bytes=0 if failure else call.result().ByteSize(),
            error=CallFailedError(f"{call.code().name}: {call.details()}") if failure else None,
        )
        return call


def report(
    environment: Environment,
    name: str,
    *,
    elapsed_ms: float = 0.0,
    response_bytes: int = 0,
    error: BaseException | None = None,
) -> None:
    """Count one call, failed where there is an error."""
    environment.events.request.fire(
        request_type="grpc",
        name=name,
        response_time=elapsed_ms,
        response_length=response_bytes,
        exception=error,
        context={},
    )


class GrpcUser(User):
    """A user with a channel of its own; `--host` is the server's `host:port`.

    Attributes:
        decisions: Stub of DecisionService.
        events: Stub of EventService.
        features: Stub of FeatureService.
    """

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if not self.host:
            raise StopUser("no server to load: pass --host host:port")
        self._channel = grpc.insecure_channel(self.host)
        channel = grpc.intercept_channel(self._channel, ReportingInterceptor(environment))
        self.decisions = decision_pb2_grpc.DecisionServiceStub(channel)
        self.events = events_pb2_grpc.EventServiceStub(channel)
        self.features = features_pb2_grpc.FeatureServiceStub(channel)

    def on_stop(self) -> None:
        """Close the channel."""
        self._channel.close()
