"""Replays a recorded decision: the same inputs, bundle and model give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

from decision.bundle import Bundle
from decision.engine import ENGINE_VERSION
from server.deciding import run_engine
from server.decision_codec import (
    Decided,
    Phrases,
    degradations_from_proto,
    frame_from_record,
    record_bytes,
    record_to_proto,
    request_from_proto,
    response_to_proto,
)
from server.errors import ServerError
from waypost.decision.v1 import decision_pb2


class ReplayError(ServerError):
    """The record cannot be replayed with this program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A record and what came out of deciding again."""

    recorded: decision_pb2.DecisionRecord
    replayed: decision_pb2.DecisionRecord

    @property
    def same_bytes(self) -> bool:
        """Whether both have the same bytes."""
        return record_bytes(self.recorded) == record_bytes(self.replayed)


def replay(record: decision_pb2.DecisionRecord, bundle: Bundle) -> decision_pb2.DecisionRecord:
    """Decide again from a record's inputs; the decision's id is the record's.

    Args:
        record: A record of the decision log.
        bundle: The bundle and the models that the record names; see `server.bundles.kept_bundle`.

    Raises:
        ReplayError: Another version of the engine decided, or the bundle is another.
    """
    check_replayable(record, bundle)
    plan = bundle.placement(record.request.placement)
    request = request_from_proto(record.request, plan)
    frame = frame_from_record(record, bundle.catalog)
    degraded = degradations_from_proto(record.degraded)
    phrases = Phrases(bundle)
    decision = run_engine(request, frame, bundle, record.decided_at_us, record.seed, degraded)
    decided = Decided(
        request=record.request,
        frame=frame,
        degraded=degraded,
        bundle_version=record.bundle_version,
        model_version=record.model_version,
        label_model_versions=tuple(record.label_model_versions),
        now_us=record.decided_at_us,
        seed=record.seed,
        response=response_to_proto(decision, phrases, record.response.decision_id, record.decided_at_us),
        verdicts=decision.verdicts,
    )
    return record_to_proto(decided, bundle.catalog)


def check_replayable(record: decision_pb2.DecisionRecord, bundle: Bundle) -> None:
    """Whether this program and bundle give a record's conditions and values their meaning.

    Raises:
        ReplayError: Another version of the engine decided, or the bundle is another.
    """
    if record.engine_version != ENGINE_VERSION:
        raise ReplayError(
            f"engine {record.engine_version} decided, this is {ENGINE_VERSION}: use that release"
        )
    if record.bundle_version != bundle.version:
        raise ReplayError(f"bundle {record.bundle_version} decided, this is {bundle.version}")
