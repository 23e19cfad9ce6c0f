"""The demo's client: what a shop's backend would do, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import grpc

from waypost.admin.v1 import admin_pb2, admin_pb2_grpc
from waypost.decision.v1 import decision_pb2, decision_pb2_grpc
from waypost.events.v1 import events_pb2, events_pb2_grpc
from waypost.features.v1 import features_pb2, features_pb2_grpc

TIMEOUT_S = 20.0
CATCH_UP_TIMEOUT_S = 60.0
EVENTS_PER_CALL = 1000
_POLL_S = 0.005


class Client:
    """A connection to one server.

    Attributes:
        decide_ms: How long each call of `decide` took.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._decisions = decision_pb2_grpc.DecisionServiceStub(self._channel)
        self._events = events_pb2_grpc.EventServiceStub(self._channel)
        self._features = features_pb2_grpc.FeatureServiceStub(self._channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self.decide_ms: list[float] = []
        self.refusals: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def advance(self, now_us: int) -> None:
        """Move the server's virtual clock."""
        request = admin_pb2.AdvanceClockRequest()
        request.now.FromMicroseconds(now_us)
        self._admin.AdvanceClock(request, timeout=TIMEOUT_S)

    def publish(self, events: Sequence[events_pb2.Event]) -> int:
        """Publish events; returns how many were accepted and keeps the words of those refused."""
        accepted = 0
        for start in range(0, len(events), EVENTS_PER_CALL):
            request = events_pb2.PublishEventsRequest(events=events[start : start + EVENTS_PER_CALL])
            answer = self._events.PublishEvents(request, timeout=TIMEOUT_S)
            accepted += answer.accepted_count
            self.refusals += [result.error.message for result in answer.results if not result.accepted]
        return accepted

    def decide(
        self,
        placement: str,
        customer_id: str,
        *,
        limit: int = 0,
        context: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> decision_pb2.DecideResponse:
        """Ask for a decision and note how long it took."""
        request = decision_pb2.DecideRequest(
            placement=placement, customer_id=customer_id, limit=limit, seed=seed
        )
        for name, value in (context or {}).items():
            request.context[name].string_value = value
        started = time.perf_counter()
        answer = self._decisions.Decide(request, timeout=TIMEOUT_S)
        self.decide_ms.append((time.perf_counter() - started) * 1000)
        return answer

    def features(
        self, names: Iterable[str], keys: Mapping[str, str]
    ) -> features_pb2.GetOnlineFeaturesResponse:
        """Read features of one entity."""
        row = features_pb2.EntityRow()
        for name, value in keys.items():
            row.keys[name].string_value = value
        request = features_pb2.GetOnlineFeaturesRequest(features=list(names), entities=[row])
        return self._features.GetOnlineFeatures(request, timeout=TIMEOUT_S)

    def status(self) -> admin_pb2.GetStatusResponse:
        """What the server runs on."""
        return self._admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S)

    def wait_until_applied(self, until_us: int) -> None:
        """Wait until everything published is in the features and time has reached `until_us`.

        Raises:
            TimeoutError: If the materializer does not get there.
        """
        give_up_at = time.monotonic() + CATCH_UP_TIMEOUT_S
        while time.monotonic() < give_up_at:
            partitions = self.status().partitions
            if all(p.lag == 0 and p.watermark.ToMicroseconds() >= until_us for p in partitions):
                return
            time.sleep(_POLL_S)
        raise TimeoutError(
            f"features are not current after {CATCH_UP_TIMEOUT_S:.0f} s: is the materializer alive?"
        )
