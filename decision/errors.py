"""Errors of the decision engine.

WaypostDecisionError
├── BundleError                 catalog, policy and models do not fit together
├── ModelFileError              a file of centroids cannot be used
├── FrameError                  a block of values is malformed
├── VerdictError                bits that were kept do not fit what they are read by
└── RequestError                carries the field, the message and the nearest valid name
    ├── UnknownPlacementError   the bundle has no such placement
    └── InvalidRequestError     a field of the request is wrong
        ├── InvalidCustomerError
        ├── UnknownCandidateError
        ├── UnknownContextError
        ├── ContextTypeError
        └── LimitError
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WaypostDecisionError(Exception):
    """Root of the tree."""


class BundleError(WaypostDecisionError):
    """Catalog, policy and models do not fit together."""


class ModelFileError(WaypostDecisionError):
    """A file of centroids is malformed or out of bounds."""


class FrameError(WaypostDecisionError):
    """A block of values is malformed: a programming error of whoever fetched it."""


class VerdictError(WaypostDecisionError):
    """Bits that were kept do not fit the conditions that they are read by."""


class RequestError(WaypostDecisionError):
    """The request cannot be answered as it stands.

    Attributes:
        field: Path of the field at fault, such as `candidates[2]`.
        message: What is wrong and how to mend it.
        suggestion: The nearest valid name, or None.
    """

    def __init__(self, field: str, message: str, suggestion: str | None = None) -> None:
        self.field = field
        self.message = message
        self.suggestion = suggestion
        hint = f"; did you mean {suggestion!r}?" if suggestion else ""
        super().__init__(f"{field}: {message}{hint}")


class UnknownPlacementError(RequestError):
    """The bundle has no such placement."""


class InvalidRequestError(RequestError):
    """A field of the request is wrong."""


class InvalidCustomerError(InvalidRequestError):
    """The customer id is empty, too long or not of the join key's type."""


class UnknownCandidateError(InvalidRequestError):
    """A candidate is no offer of the placement."""


class UnknownContextError(InvalidRequestError):
    """A context field is not declared by the placement."""


class ContextTypeError(InvalidRequestError):
    """A context field has another type than the placement declares."""


class LimitError(InvalidRequestError):
    """The limit is negative or above the placement's own."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where nothing is close."""
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return matches[0] if matches else None
