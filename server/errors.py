"""What can go wrong in the server.

* ServerError
    * RepoError                 the repo's definitions cannot be used (features, events or files)
    * PolicyRejectedError       the policy has findings that are errors
    * RequestError              a client asked for something that cannot be answered; see `server.status`
        * InvalidRequestError   a field of the request is wrong
        * UnknownResourceError  the request names something the repo does not define
        * TooManyRequestsError  a bound is reached; try again later
        * ConditionError        the server is not in the state the request needs
        * PositionGoneError     what the request wants to resume from is no longer kept
        * BudgetSpentError      the deadline is over
        * StoreUnavailableError the online store does not answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class ServerError(Exception):
    """Base of everything that this package raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a repo.

    Attributes:
        message: What is wrong and what to do.
        file: Path relative to the repo, or None where no file is to blame.
        line: Line in that file, counted from 1, or None where it is not known.
    """

    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class RepoError(ServerError):
    """The repo's definitions cannot be used; `problems` holds all that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def of(cls, message: str, file: str | None = None, line: int | None = None) -> RepoError:
        """An error of one problem."""
        return cls([Problem(message=message, file=file, line=line)])


class PolicyRejectedError(ServerError):
    """The policy does not compile; the message holds its findings with file, line, column and caret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A field of a request and what is wrong with it, such as `candidates[2]`."""

    field: str
    description: str


EVENT_REASONS = frozenset(
    {
        "INVALID_ID",
        "UNKNOWN_EVENT_TYPE",
        "UNKNOWN_PROPERTY",
        "EVENT_TIME_MISSING",
        "EVENT_TIME_INVALID",
        "EVENT_TIME_IN_FUTURE",
        "EVENT_TIME_TOO_OLD",
        "REQUIRED_PROPERTY_MISSING",
        "WRONG_TYPE",
        "TOO_LONG",
        "NOT_ALLOWED",
        "OUT_OF_RANGE",
        "UNKNOWN_UNIT",
        "OUTLIER",
        "RATE_SPIKE",
    }
)
"""Why `streaming.events` refuses an event."""


class RequestError(ServerError):
    """A request that cannot be answered.

    Attributes:
        reason: Machine-readable cause, `[A-Z][A-Z0-9_]+[A-Z0-9]`, listed in docs/operations.md.
        metadata: Every variable part of the message, in lowerCamel keys.
        reasons: The reasons that this class may carry.
    """

    reasons: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        if reason not in self.reasons:
            raise ValueError(f"{reason!r} is not a reason of {type(self).__name__}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        super().__init__(message)


class InvalidRequestError(RequestError):
    """A field of the request is missing, of the wrong type or out of bounds."""

    reasons = frozenset(
        {
            "REQUIRED_FIELD_MISSING",
            "FIELD_TYPE_MISMATCH",
            "FIELD_OUT_OF_RANGE",
            "FIELDS_EXCLUSIVE",
            "UNKNOWN_CONTEXT_FIELD",
            "UNKNOWN_ENTITY_KEY",
            "UNKNOWN_CANDIDATE",
            "FEATURE_NOT_READABLE",
            "FEATURE_NAMES_COLLIDE",
            "UNKNOWN_PUSH_SOURCE",
            "BATCH_TOO_LARGE",
            "MESSAGE_TOO_LARGE",
            "MESSAGE_MALFORMED",
            *EVENT_REASONS,
        }
    )

    def __init__(
        self,
        reason: str,
        message: str,
        violations: Sequence[Violation],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, reason: str, field: str, description: str, **metadata: str) -> InvalidRequestError:
        """An error about one field; `description` says what is wrong and what to send instead."""
        violation = Violation(field=field, description=description)
        return cls(reason, f"{field}: {description}", [violation], {"field": field, **metadata})


class UnknownResourceError(RequestError):
    """The request names a placement, view, feature or feature service that the repo does not define."""

    reasons = frozenset(
        {
            "UNKNOWN_PLACEMENT",
            "UNKNOWN_FEATURE",
            "UNKNOWN_FEATURE_SERVICE",
            "UNKNOWN_SEGMENT",
            "UNKNOWN_VIEW",
            "UNKNOWN_DECISION",
            "BUNDLE_NOT_KEPT",
        }
    )

    def __init__(self, reason: str, message: str, resource_type: str, resource_name: str) -> None:
        super().__init__(reason, message, {"resourceType": resource_type, "resourceName": resource_name})
        self.resource_type = resource_type
        self.resource_name = resource_name


class TooManyRequestsError(RequestError):
    """A bound is reached; the same call may succeed after `retry_after_s` seconds."""

    reasons = frozenset({"LOG_FULL"})

    def __init__(self, reason: str, message: str, retry_after_s: float) -> None:
        super().__init__(reason, message, {"retryAfterS": f"{retry_after_s:g}"})
        self.retry_after_s = retry_after_s


class ConditionError(RequestError):
    """The server is not in the state that the request needs."""

    reasons = frozenset(
        {
            "CLOCK_NOT_VIRTUAL",
            "RELOAD_REFUSED",
            "ENGINE_MISMATCH",
            "VIEW_NOT_SERVING",
            "VIEW_NOT_WRITABLE",
            "ON_DEMAND_FAILED",
        }
    )


class PositionGoneError(RequestError):
    """What lies behind a position is no longer kept."""

    reasons = frozenset({"POSITION_TRIMMED"})


class BudgetSpentError(RequestError):
    """The client's deadline is over before the answer is ready."""

    reasons = frozenset({"BUDGET_SPENT"})


class StoreUnavailableError(RequestError):
    """The store or the log does not answer."""

    reasons = frozenset({"STORE_UNAVAILABLE"})

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__("STORE_UNAVAILABLE", message, {"retryAfterS": f"{retry_after_s:g}"})
        self.retry_after_s = retry_after_s
