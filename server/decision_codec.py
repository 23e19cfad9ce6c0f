"""Decisions between protobuf and the engine's plain values: requests, answers and records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from decision.bundle import Bundle, PlacementPlan
from decision.engine import ENGINE_VERSION
from decision.frame import Block, Frame, layout_of
from decision.program import Bits
from decision.record import Decision, Degradation, DegradationKind, RankedOffer, Reason, Request, ViewAge
from decision.schema import Catalog, FeatureRef, Value
from decision.verdicts import Verdicts
from server.values import column_to_proto, context_value, from_proto, timestamp
from waypost.decision.v1 import decision_pb2

CUSTOMER_ROW = "customer"


def request_from_proto(message: decision_pb2.DecideRequest, plan: PlacementPlan) -> Request:
    """The engine's request; declared context is typed here, since an instant is an int to the engine.

    Raises:
        InvalidRequestError: A context value is of another type than the placement declares.
    """
    return Request(
        placement=message.placement,
        customer_id=message.customer_id,
        context={name: _context(name, message, plan) for name in sorted(message.context)},
        candidates=tuple(message.candidates),
        limit=message.limit,
    )


def _context(name: str, message: decision_pb2.DecideRequest, plan: PlacementPlan) -> Value:
    dtype = plan.context.get(name)
    value = message.context[name]
    return from_proto(value) if dtype is None else context_value(value, dtype, f"context.{name}")


class Phrases:
    """What answers say again and again, put into protobuf once for a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._plans = bundle.plans  # keeps the reasons alive, and so their identities
        self._contents = {offer.name: struct(offer.content) for offer in bundle.policy.offers}
        self._reasons = {
            id(reason): _written(reason)
            for plan in self._plans.values()
            for reason in (*plan.act_reasons, *plan.worth_reasons)
        }

    def content(self, offer: str) -> Struct:
        """What an offer shows."""
        return self._contents[offer]

    def reasons(self, reasons: Iterable[Reason]) -> bytes:
        """Reasons of this bundle's decisions as a serialized `RankedOffer` that has nothing else."""
        known = self._reasons
        return b"".join([known.get(id(reason)) or _written(reason) for reason in reasons])


def _written(reason: Reason) -> bytes:
    message = decision_pb2.Reason(kind=int(reason.kind), name=reason.name, detail=reason.detail)  # type: ignore[arg-type]
    return decision_pb2.RankedOffer(reasons=[message]).SerializeToString()


def struct(content: Mapping[str, object]) -> Struct:
    """JSON-like content as a message; tuples become lists."""
    message = Struct()
    message.update({name: _plain(value) for name, value in content.items()})
    return message


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def response_to_proto(
    decision: Decision, phrases: Phrases, decision_id: str, now_us: int
) -> decision_pb2.DecideResponse:
    """The answer as a message."""
    return decision_pb2.DecideResponse(
        decision_id=decision_id,
        offers=[_offer(offer, phrases) for offer in decision.offers],
        tags=decision.tags,
        segments=decision.segments,
        bundle_version=decision.bundle_version,
        model_version=decision.model_version,
        feature_ages=[_age(age) for age in decision.feature_ages],
        degraded=degradations_to_proto(decision.degraded),
        decided_at=timestamp(now_us),
    )


def _offer(offer: RankedOffer, phrases: Phrases) -> decision_pb2.RankedOffer:
    message = decision_pb2.RankedOffer(
        offer=offer.offer,
        content=phrases.content(offer.offer),
        score=offer.score,
        propensity=offer.propensity,
        prediction=offer.prediction,
    )
    message.MergeFromString(phrases.reasons(offer.reasons))
    return message


def _age(age: ViewAge) -> decision_pb2.ViewAge:
    if age.age_us is None:
        return decision_pb2.ViewAge(view=age.view)
    duration = Duration()
    duration.FromMicroseconds(age.age_us)
    return decision_pb2.ViewAge(view=age.view, age=duration)


def degradations_to_proto(degraded: Iterable[Degradation]) -> list[decision_pb2.Degradation]:
    """What was gone without, as messages."""
    return [
        decision_pb2.Degradation(kind=int(item.kind), name=item.name, detail=item.detail)  # type: ignore[arg-type]
        for item in degraded
    ]


def degradations_from_proto(messages: Iterable[decision_pb2.Degradation]) -> tuple[Degradation, ...]:
    """What was gone without, out of a record."""
    return tuple(Degradation(kind=DegradationKind(m.kind), name=m.name, detail=m.detail) for m in messages)


_REASON_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Everything a decision was made of; becomes its record off the request's path.

    Attributes:
        request: As received.
        frame: The values read.
        degraded: What was gone without before deciding.
        model_version: The placement's loaded model as name@version, or empty.
        label_model_versions: The segmentation models whose labels its conditions read, as name@version.
        now_us: The decision's clock.
        seed: The seed of its draws.
        response: The answer.
        verdicts: How the conditions came out.
    """

    request: decision_pb2.DecideRequest
    frame: Frame
    degraded: tuple[Degradation, ...]
    bundle_version: str
    model_version: str
    label_model_versions: tuple[str, ...] = ()
    now_us: int
    seed: int
    response: decision_pb2.DecideResponse
    verdicts: Verdicts

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes: those of its arrays, of the texts read, and some for each reason."""
        blocks = (self.frame.customer, self.frame.candidates)
        texts = sum(len(item) for block in blocks for item in block.objects)
        reasons = sum(len(offer.reasons) for offer in self.response.offers)
        return sum(block.nbytes for block in blocks) + self.verdicts.nbytes + texts + _REASON_BYTES * reasons


def record_to_proto(decided: Decided, catalog: Catalog) -> decision_pb2.DecisionRecord:
    """The record of a decision; `catalog` is that of its bundle and gives the values' types."""
    return decision_pb2.DecisionRecord(
        request=decided.request,
        customer=_block(decided.frame.customer, catalog, with_rows=False),
        candidates=_block(decided.frame.candidates, catalog, with_rows=True),
        degraded=degradations_to_proto(decided.degraded),
        bundle_version=decided.bundle_version,
        model_version=decided.model_version,
        label_model_versions=decided.label_model_versions,
        engine_version=ENGINE_VERSION,
        decided_at_us=decided.now_us,
        seed=decided.seed,
        response=decided.response,
        request_verdicts=_verdicts(decided.verdicts.request),
        candidate_verdicts=_verdicts(decided.verdicts.candidates),
    )


def _verdicts(bits: Bits) -> decision_pb2.Verdicts:
    return decision_pb2.Verdicts(count=bits.count, is_true=bits.is_true, is_null=bits.is_null)


def models_of(record: decision_pb2.DecisionRecord) -> tuple[str, ...]:
    """All models that a record names, as name@version."""
    return (*filter(None, [record.model_version]), *record.label_model_versions)


def verdicts_from_proto(message: decision_pb2.Verdicts) -> Bits:
    """How conditions came out, out of a record."""
    return Bits(count=message.count, is_true=message.is_true, is_null=message.is_null)


def record_bytes(record: decision_pb2.DecisionRecord) -> bytes:
    """The bytes of a record; equal records have equal bytes."""
    return record.SerializeToString(deterministic=True)


def frame_from_record(record: decision_pb2.DecisionRecord, catalog: Catalog) -> Frame:
    """The values that a recorded decision was made on; `catalog` is that of its bundle."""
    return Frame(
        customer=_block_from_proto(record.customer, (CUSTOMER_ROW,), catalog),
        candidates=_block_from_proto(record.candidates, tuple(record.candidates.rows), catalog),
    )


def _block(block: Block, catalog: Catalog, *, with_rows: bool) -> decision_pb2.VectorBlock:
    layout = block.layout
    event_us = block.event_us.tolist()
    columns = zip(layout.names, block.values(), block.statuses.tolist(), layout.view_of.tolist(), strict=True)
    return decision_pb2.VectorBlock(
        rows=block.rows if with_rows else (),
        columns=[
            decision_pb2.VectorColumn(
                name=name,
                values=column_to_proto(values, catalog.feature(_ref(name)).value_type),
                statuses=statuses,
                event_timestamps_us=event_us[view],
            )
            for name, values, statuses, view in columns
        ],
    )


def _block_from_proto(message: decision_pb2.VectorBlock, rows: tuple[str, ...], catalog: Catalog) -> Block:
    columns = message.columns
    return Block.of(
        layout_of(catalog, (_ref(column.name) for column in columns)),
        rows,
        [[from_proto(value) for value in column.values] for column in columns],
        [column.statuses for column in columns],
        [column.event_timestamps_us for column in columns],
    )


def _ref(name: str) -> FeatureRef:
    view, _, feature = name.partition(".")
    return FeatureRef(view=view, feature=feature)
