"""From the server's errors to `google.rpc.Status`: one ErrorInfo and at most one of each other detail (AIP-193)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from decision import errors as decision_errors
from server.errors import (
    BudgetSpentError,
    ConditionError,
    InvalidRequestError,
    PositionGoneError,
    RequestError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnknownResourceError,
    Violation,
)

DOMAIN = "waypost"
_KINDS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo,
)
MAX_MESSAGE_BYTES = 1_200
MAX_DETAIL_BYTES = 300
"""A status travels in the trailers, twice and encoded, and gRPC takes 8 KB of those."""


def to_status(error: RequestError) -> Status:
    """The status of an error that a client may see."""
    match error:
        case InvalidRequestError(violations=violations):
            return _status(code_pb2.INVALID_ARGUMENT, error, _bad_request(violations))
        case UnknownResourceError():
            info = error_details_pb2.ResourceInfo(
                resource_type=error.resource_type,
                resource_name=shortened(error.resource_name),
                description=shortened(error.message),
            )
            return _status(code_pb2.NOT_FOUND, error, info)
        case TooManyRequestsError():
            return _status(code_pb2.RESOURCE_EXHAUSTED, error, _retry(error.retry_after_s))
        case StoreUnavailableError():
            return _status(code_pb2.UNAVAILABLE, error, _retry(error.retry_after_s))
        case ConditionError():
            return _status(code_pb2.FAILED_PRECONDITION, error, _precondition(error))
        case PositionGoneError():
            return _status(code_pb2.OUT_OF_RANGE, error)
        case BudgetSpentError():
            return _status(code_pb2.DEADLINE_EXCEEDED, error)
        case _:
            raise TypeError(f"{type(error).__name__} has no status")


def internal(incident: str) -> Status:
    """The status of an unexpected error: an id to look up in the log, and nothing of its text."""
    message = f"internal error; quote incident {incident} to the operators"
    info = _error_info("INTERNAL", {"incident": incident})
    return Status(code=code_pb2.INTERNAL, message=message, details=_packed([info]))


def described(failure: Status) -> list[dict[str, object]]:
    """The details of a status as JSON, each with its type."""
    found = []
    for packed in failure.details:
        for kind in _KINDS:
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                found.append({"@type": packed.type_url, **MessageToDict(detail)})
    return found


def from_engine(error: decision_errors.RequestError, placement: str) -> RequestError:
    """The engine's refusal of a request for `placement`, in the server's words."""
    hint = f"; did you mean {error.suggestion!r}?" if error.suggestion else ""
    message = error.message + hint
    if isinstance(error, decision_errors.UnknownPlacementError):
        return UnknownResourceError("UNKNOWN_PLACEMENT", message, "placement", placement)
    reason = _ENGINE_REASONS.get(type(error), "FIELD_OUT_OF_RANGE")
    return InvalidRequestError.of(reason, error.field, message)


_ENGINE_REASONS: Mapping[type[decision_errors.RequestError], str] = {
    decision_errors.InvalidCustomerError: "FIELD_TYPE_MISMATCH",
    decision_errors.UnknownCandidateError: "UNKNOWN_CANDIDATE",
    decision_errors.UnknownContextError: "UNKNOWN_CONTEXT_FIELD",
    decision_errors.ContextTypeError: "FIELD_TYPE_MISMATCH",
    decision_errors.LimitError: "FIELD_OUT_OF_RANGE",
}


def shortened(text: str, limit: int = MAX_DETAIL_BYTES) -> str:
    """The text, cut to at most `limit` bytes of UTF-8 with an ellipsis at the cut."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return text
    return data[: limit - 3].decode(errors="ignore") + "…"


def _status(code: int, error: RequestError, *details: Message) -> Status:
    info = _error_info(error.reason, error.metadata)
    return Status(
        code=code, message=shortened(error.message, MAX_MESSAGE_BYTES), details=_packed([info, *details])
    )


def _error_info(reason: str, metadata: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    bounded = {key: shortened(value) for key, value in metadata.items()}
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=bounded)


def _bad_request(violations: Iterable[Violation]) -> error_details_pb2.BadRequest:
    found = [
        error_details_pb2.BadRequest.FieldViolation(
            field=shortened(item.field), description=shortened(item.description)
        )
        for item in violations
    ]
    return error_details_pb2.BadRequest(field_violations=found)


def _precondition(error: RequestError) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason, subject=DOMAIN, description=shortened(error.message)
    )
    return error_details_pb2.PreconditionFailure(violations=[violation])


def _retry(after_s: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(
        retry_delay=Duration(nanos=round(after_s * 1e9) % 10**9, seconds=int(after_s))
    )


def _packed(details: Iterable[Message]) -> list[AnyProto]:
    packed = []
    for detail in details:
        holder = AnyProto()
        holder.Pack(detail)
        packed.append(holder)
    return packed
