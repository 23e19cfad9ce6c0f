"""The client's deadline as a budget that the stages of a call draw from."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import NamedTuple

from server.config import Deadlines
from server.errors import BudgetSpentError


class Budget(NamedTuple):
    """Wall time that a call may take.

    Attributes:
        total_s: All of it, in seconds.
        ends_at_s: Its end on the monotonic clock.
        store_s: Most that one read of the store may take.
        reserve_s: What is kept back from the store for deciding and answering.
    """

    total_s: float
    ends_at_s: float
    store_s: float
    reserve_s: float

    @classmethod
    def start(cls, remaining_s: float | None, deadlines: Deadlines) -> Budget:
        """The budget of a call whose client allows `remaining_s`, or says nothing (None)."""
        wanted = deadlines.default_ms / 1_000 if remaining_s is None else remaining_s
        total = max(0.0, min(wanted, deadlines.cap_ms / 1_000))
        return cls(
            total_s=total,
            ends_at_s=time.monotonic() + total,
            store_s=deadlines.store_ms / 1_000,
            reserve_s=deadlines.reserve_ms / 1_000,
        )

    def left_s(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self.ends_at_s - time.monotonic())

    def for_store_s(self) -> float:
        """Seconds that a read of the store may take, not below 0."""
        return max(0.0, min(self.left_s() - self.reserve_s, self.store_s))

    def spent_error(self, stage: str) -> BudgetSpentError:
        """The error of a call whose budget ended in `stage`."""
        budget_ms = f"{self.total_s * 1_000:.0f}"
        message = f"the deadline of {budget_ms} ms passed while waiting for the {stage}: allow more time"
        return BudgetSpentError("BUDGET_SPENT", message, {"budgetMs": budget_ms, "stage": stage})


CURRENT: ContextVar[Budget] = ContextVar("waypost_budget")
"""The budget of the call being served; set at the border."""
