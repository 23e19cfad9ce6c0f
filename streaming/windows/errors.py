"""What can go wrong in the windows.

WindowError (StreamingError)
├── PlanError           the view's aggregations cannot be computed; lists all problems
├── ValueRefused        a row holds a value that its aggregation cannot take
├── SumOverflow         a sum leaves int64 (also an OverflowError)
└── StateCorrupt        stored chunks cannot be read by this plan
"""

from __future__ import annotations

import re

from streaming.errors import StreamingError

_NUMPY_VALUE = re.compile(r"^np\.\w+\((.*)\)")
"""A number or text of numpy as it shows itself, the plain one within."""


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
        detail: What is said of the row where nothing is beside it.
    """

    def __init__(self, column: str, row: int, message: str) -> None:
        """Say which value is refused.

        Args:
            column: As the attribute.
            row: As the attribute.
            message: What is wrong; it may begin with the value as numpy shows it.
        """
        message = _NUMPY_VALUE.sub(r"\1", message)
        super().__init__(f"column {column!r}, row {row}: {message}")
        self.column = column
        self.row = row
        self.detail = f"column {column!r}: {message}"


class SumOverflow(WindowError, OverflowError):
    """A sum leaves int64; it is refused, never wrapped, and nothing of the batch was applied.

    Attributes:
        feature: `view.feature`.
        entity: Group index of the entity in the batch.
        detail: What is said where there is no other entity.
    """

    def __init__(self, feature: str, entity: int) -> None:
        why = "leaves int64 (±9.2e12 with six decimals); sum a smaller unit or a shorter window"
        super().__init__(f"sum of {feature} for entity {entity} of the batch {why}")
        self.feature = feature
        self.entity = entity
        self.detail = f"sum of {feature} {why}"


class StateCorrupt(WindowError):
    """Stored chunks cannot be read: damaged, or written under other aggregations."""
