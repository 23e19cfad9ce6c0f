"""What can go wrong between an event and its features.

StreamingError
├── EventSchemaError    events.yaml cannot be read or contradicts itself
├── EventRefused        one event does not fit its declared type
├── SourceFileError     a file of past events or batch rows does not fit its definition
├── NoCustomerView      no stream view is keyed by the customer alone, so that nothing takes events
├── TransformError      a view's transformation failed or returned something unusable
├── LogFull             the log has reached its bound; publish again later
├── LeaseLost           another materializer owns the partition now
├── StoreSetBack        the store is older than its files
├── PositionInvalid     no position of the log of segment changes
├── PositionTrimmed     what lies behind a position is no longer kept
└── WindowError         see streaming/windows/errors.py
"""

from __future__ import annotations


class StreamingError(Exception):
    """Root of this package's errors."""


class EventSchemaError(StreamingError):
    """`events.yaml` is wrong; the message names the place and the fix."""


class EventRefused(StreamingError):
    """One event was refused.

    Attributes:
        field: Path of the offending field, such as `properties.sales_value`.
        reason: Stable upper-case code, such as `REQUIRED_PROPERTY_MISSING`.
    """

    def __init__(self, field: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason


class LogFull(StreamingError):
    """The log's bound is reached; nothing of the refused records was written.

    Attributes:
        retry_after_ms: When it is worth trying again.
    """

    def __init__(self, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class LeaseLost(StreamingError):
    """Another materializer owns the partition now; nothing of the refused call was written."""


class StoreSetBack(StreamingError):
    """The store is an older copy of itself: its files hold what it knows nothing of."""


class PositionInvalid(StreamingError):
    """A text is no position of the log of segment changes."""


class PositionTrimmed(StreamingError):
    """Changes behind a position may have been trimmed; memberships must be read anew."""


class SourceFileError(StreamingError):
    """A file does not fit its definition; the message names the column or type and the fix."""


class NoCustomerView(StreamingError):
    """No stream view is keyed by the customer alone, so that nothing takes events."""


class TransformError(StreamingError):
    """A view's transformation failed or returned something unusable."""
