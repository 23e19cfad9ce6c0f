"""Which customer comes next: a few come often, most come rarely."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from dataclasses import dataclass, field


@dataclass(slots=True)
class ZipfCustomers:
    """Draws customer numbers 1 to `count`; customer r comes with probability proportional to r^-exponent.

    The same seed draws the same customers in the same order.
    """

    count: int
    exponent: float = 1.0
    seed: int = 0
    _cumulative: list[float] = field(init=False, repr=False)
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}: there must be at least one customer")
        weights = (rank**-self.exponent for rank in range(1, self.count + 1))
        self._cumulative = list(itertools.accumulate(weights))
        self._random = random.Random(self.seed)

    def draw(self) -> int:
        """Return the next customer's number."""
        point = self._random.random() * self._cumulative[-1]
        return min(bisect_left(self._cumulative, point), self.count - 1) + 1
