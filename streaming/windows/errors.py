"""What can go wrong in the windows.

WindowError (StreamingError)
├── PlanError           the view's aggregations cannot be computed; lists all problems
├── ValueRefused        a row holds a value that its aggregation cannot take
├── SumOverflow         a sum leaves int64 (also an OverflowError)
└── StateCorrupt        stored chunks cannot be read by this plan
"""

from __future__ import annotations

from streaming.errors import StreamingError


class WindowError(StreamingError):
    """Root of this package's errors."""


class PlanError(WindowError):
    """A view's aggregations cannot be computed.

    Attributes:
        problems: One sentence per problem.
    """

    def __init__(self, view: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"view {view!r}: " + "; ".join(problems))
        self.problems = problems


class ValueRefused(WindowError, ValueError):
    """A row holds a value that its aggregation cannot take; nothing of the batch was applied.

    Attributes:
        column: Column of the row.
        row: Number of the row in its batch.
    """

    def __init__(self, column: str, row: int, message: str) -> None:
        super().__init__(f"column {column!r}, row {row}: {message}")
        self.column = column
        self.row = row


class SumOverflow(WindowError, OverflowError):
    """A sum leaves int64; it is refused, never wrapped, and nothing of the batch was applied.

    Attributes:
        feature: `view.feature`.
        entity: Group index of the entity in the batch.
    """

    def __init__(self, feature: str, entity: int) -> None:
        super().__init__(
            f"sum of {feature} for entity {entity} of the batch leaves int64 (±9.2e12 with six decimals); "
            "sum a smaller unit or a shorter window"
        )
        self.feature = feature
        self.entity = entity


class StateCorrupt(WindowError):
    """Stored chunks cannot be read: damaged, or written under other aggregations."""
