"""DecisionService: plan → one fetch → decide → answer and record."""

from __future__ import annotations

import os
import time
from typing import Any

import structlog

from decision import errors as engine_errors
from decision.frame import Frame
from decision.plan import PlacementPlan
from decision.record import Degradation, DegradationKind, Request
from decision.validate import check_request
from online.read import OnlineReader
from server import ids
from server.bounds import NAME_SHOWN, check_count, check_names, check_size
from server.budget import CURRENT, Budget
from server.bundles import BundleKeeper, Serving
from server.clock import Clock
from server.config import Deadlines, Limits
from server.deciding import left_out, loaded_labellers, loaded_model, run_engine
from server.decision_codec import (
    CUSTOMER_ROW,
    Decided,
    record_to_proto,
    request_from_proto,
    response_to_proto,
)
from server.decision_log import DecisionLog
from server.errors import InvalidRequestError
from server.explainer import Explainer, check_offers
from server.metrics import Metrics
from server.status import from_engine
from waypost.decision.v1 import decision_pb2, decision_pb2_grpc

SEED_BYTES = 8
STORE = "online store"

_log = structlog.get_logger("server")


class DecisionService(decision_pb2_grpc.DecisionServiceServicer):
    """Answers what to show.

    Args:
        bundles: What decides.
        reader: The online store; asked once per decision.
        clock: The decision's clock.
        decision_log: Where records go.
        limits: Bounds of a request.
        metrics: Times, degradations and ages.
        explainer: Puts decisions into words.

    Attributes:
        count: Decisions made.
    """

    def __init__(
        self,
        bundles: BundleKeeper,
        reader: OnlineReader,
        clock: Clock,
        decision_log: DecisionLog,
        limits: Limits,
        metrics: Metrics,
        explainer: Explainer,
    ) -> None:
        self._explainer = explainer
        self._bundles = bundles
        self._reader = reader
        self._clock = clock
        self._decision_log = decision_log
        self._limits = limits
        self._metrics = metrics
        self.count = 0

    async def Decide(  # noqa: N802 - the name in the proto
        self,
        request: decision_pb2.DecideRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> decision_pb2.DecideResponse:
        """Rank the offers of a placement for a customer."""
        serving = self._bundles.current
        decided = await self._answer(request, serving, CURRENT.get())
        self._decision_log.append(decided, serving.bundle.catalog)
        self._observe(decided)
        return decided.response

    async def Explain(  # noqa: N802 - the name in the proto
        self,
        request: decision_pb2.ExplainRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> decision_pb2.ExplainResponse:
        """Put a decision of the log, or one made for this, into words."""
        budget = CURRENT.get()
        check_offers(request.why_not, self._limits.max_text_bytes)
        match request.WhichOneof("subject"):
            case "request":
                serving = self._bundles.current
                decided = await self._answer(request.request, serving, budget)
                record = record_to_proto(decided, serving.bundle.catalog)
                return await self._explainer.decided(record, serving.bundle, request.why_not, budget)
            case "decision_id" if request.decision_id:
                return await self._explainer.logged(request.decision_id, request.why_not, budget)
            case _:
                description = "is required: send the id of a decision, or a request to decide"
                raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", "decision_id", description)

    async def _answer(self, request: decision_pb2.DecideRequest, serving: Serving, budget: Budget) -> Decided:
        """Check a request and decide, or say what is wrong with it."""
        self._check(request)
        try:
            return await self._decide(request, serving, budget)
        except engine_errors.RequestError as error:
            raise from_engine(error, request.placement) from error

    async def warm_up(self) -> None:
        """Decide once at every placement, unlogged, so that the first customer does not pay for it."""
        budget = Budget.start(None, Deadlines(default_ms=60_000, cap_ms=60_000))
        serving = self._bundles.current
        for placement in serving.bundle.plans:
            customer = "warm-up" if serving.customer_type.name == "STRING" else "0"
            request = decision_pb2.DecideRequest(placement=placement, customer_id=customer)
            try:
                await self._decide(request, serving, budget)
            except Exception as error:  # noqa: BLE001 - a placement that cannot be warmed still answers
                _log.warning("server.warm_up_failed", placement=placement, exc_info=error)

    async def _decide(self, request: decision_pb2.DecideRequest, serving: Serving, budget: Budget) -> Decided:
        started = time.perf_counter()
        plan = serving.bundle.placement(request.placement)
        asked = check_request(request_from_proto(request, plan), plan)
        now_us = self._clock.now_us()
        fetch_started = time.perf_counter()
        frame, degraded = await self._fetch(asked, plan, serving, now_us, budget)
        decide_started = time.perf_counter()
        degraded += left_out(plan, budget.left_s())
        random = os.urandom(SEED_BYTES + ids.RANDOM_BYTES)
        seed = request.seed if request.HasField("seed") else int.from_bytes(random[:SEED_BYTES], "big")
        decision = run_engine(asked, frame, serving.bundle, now_us, seed, degraded)
        respond_started = time.perf_counter()
        response = response_to_proto(
            decision, serving.phrases, ids.decision_id(now_us, random[SEED_BYTES:]), now_us
        )
        self._observe_stages(started, fetch_started, decide_started, respond_started)
        return Decided(
            request=request,
            frame=frame,
            degraded=degraded,
            bundle_version=serving.bundle.version,
            model_version=loaded_model(plan),
            label_model_versions=loaded_labellers(plan),
            now_us=now_us,
            seed=seed,
            response=response,
            verdicts=decision.verdicts,
        )

    async def _fetch(
        self, asked: Request, plan: PlacementPlan, serving: Serving, now_us: int, budget: Budget
    ) -> tuple[Frame, tuple[Degradation, ...]]:
        """Read customer and candidates in one round trip."""
        names = plan.considered(asked.candidates)
        timeout_s = budget.for_store_s()
        started = time.monotonic()
        customer, candidates = await self._reader.fetch(
            [
                (serving.customer_reads[plan.name], [plan.customer_row(asked.customer_id)]),
                (serving.candidate_reads[plan.name], plan.candidate_rows(asked.customer_id, names)),
            ],
            now_us,
            timeout_s,
        )
        frame = Frame(
            customer=customer.block(plan.customer_layout, (CUSTOMER_ROW,)),
            candidates=candidates.block(plan.candidate_layout, names),
        )
        timed_out = time.monotonic() - started >= timeout_s
        return frame, _store_degradation(customer.error, timed_out=timed_out)

    def _check(self, request: decision_pb2.DecideRequest) -> None:
        for field in ("placement", "customer_id"):
            if not getattr(request, field):
                raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", field, "is required: send a value")
        limits = self._limits
        check_count("candidates", len(request.candidates), limits.max_candidates)
        check_count("context", len(request.context), limits.max_context_fields)
        for field in ("placement", "customer_id"):
            check_size(field, len(getattr(request, field)), limits.max_text_bytes)
        check_names("candidates", request.candidates, limits.max_text_bytes)
        for name, value in request.context.items():
            size = max(len(name), value.ByteSize())
            check_size(f"context.{name[:NAME_SHOWN]}", size, limits.max_text_bytes)

    def _observe(self, decided: Decided) -> None:
        self.count += 1
        response = decided.response
        self._metrics.decisions.labels(decided.request.placement).inc()
        for kind in {item.kind for item in response.degraded}:
            self._metrics.degraded.labels(DegradationKind(kind).name.lower()).inc()
        for age in response.feature_ages:
            if age.HasField("age"):
                self._metrics.feature_age_seconds.labels(age.view).observe(age.age.ToMicroseconds() / 1e6)

    def _observe_stages(self, *marks: float) -> None:
        ends = (*marks[1:], time.perf_counter())
        for stage, start, end in zip(("plan", "fetch", "decide", "respond"), marks, ends, strict=True):
            self._metrics.decision_stage_seconds.labels(stage).observe(end - start)


def _store_degradation(error: str | None, *, timed_out: bool) -> tuple[Degradation, ...]:
    if error is None:
        return ()
    kind = DegradationKind.STORE_TIMEOUT if timed_out else DegradationKind.STORE_UNAVAILABLE
    detail = "no answer in time" if timed_out else "cannot be reached"
    return (Degradation(kind=kind, name=STORE, detail=detail),)
