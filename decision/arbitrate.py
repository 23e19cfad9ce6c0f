"""Arbitration: from eligible offers to one order, with the probability of each to come first.

The order is made in this sequence, and `Request.limit` cuts it only at the end, so a shorter answer is a prefix of a
longer one:

1. Pins take their positions. A contested position or offer goes to the highest priority, then file order; the loser
   competes on as if it had not been pinned. Where fewer offers are left than a position asks for, pins move up.
2. Offers that rules show come next, by priority of the rule, then file order.
3. Scored offers follow by score, descending; equal scores by offer name. Those below the placement's minimum are out.
   Exploration reorders the best of them.

At each step an offer that would be one too many of a tag (`max_per_tag`) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision import kernels
from decision.assess import Assessment
from decision.policy import Exploration, Explore
from decision.rows import Rows

_KINDS: Final = {
    Exploration.NONE: kernels.GREEDY,
    Exploration.EPSILON_GREEDY: kernels.EPSILON,
    Exploration.SOFTMAX: kernels.SOFTMAX,
    Exploration.THOMPSON: kernels.THOMPSON,
}


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """What Thompson sampling draws from: the chance of each considered row is θ ~ Beta(a, b).

    Attributes:
        a: float64[n].
        b: float64[n].
        factors: float64[n], what θ is multiplied by: value × weight × boosts; NaN where the row is not eligible.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    factors: NDArray[np.float64]


_NO_FLOATS: Final = np.zeros(0)
NO_BELIEFS: Final = Beliefs(_NO_FLOATS, _NO_FLOATS, _NO_FLOATS)


class Terms(NamedTuple):
    """What a decision is arbitrated by besides its plan.

    Attributes:
        minimum_score: None keeps everything.
        beliefs: For Thompson sampling.
    """

    minimum_score: float | None = None
    explore: Explore = Explore()
    seed: int = 0
    beliefs: Beliefs = NO_BELIEFS


@dataclass(kw_only=True, eq=False)  # as `decision.rows.Rows`
class Ranking:
    """The whole order.

    Legend: `n` considered offers; by row of them unless by name.

    Attributes:
        order_rows: int64[...], rows, best first.
        propensity_by_row: float64[n], probability to come first; sums to 1 unless the order is empty.
        notes: int64[5, n], each row of it named in `kernels`: the position of a pin that was granted and not moved up,
            else 0; places among scored offers, from 1, before and after exploration where it moved the row, else 0;
            the number of the limited tag that left the row out, else -1; 1 where the minimum score left it out.
        drawn_by_row: float64[n], the θ that Thompson sampling drew in place of the prediction, else NaN.
    """

    rows: Rows
    eligible: NDArray[np.int64]
    order_rows: NDArray[np.int64]
    propensity_by_row: NDArray[np.float64]
    notes: NDArray[np.int64]
    drawn_by_row: NDArray[np.float64]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Offers, best first."""
        return tuple(self.rows.names[row] for row in self.order_rows.tolist())

    @cached_property
    def propensity(self) -> Mapping[str, float]:
        """Probability to come first, for every eligible offer."""
        return {self.rows.names[row]: float(self.propensity_by_row[row]) for row in self.eligible.tolist()}

    @cached_property
    def pinned(self) -> Mapping[str, int]:
        """Position by offer, for pins that were granted and not moved up."""
        position = self.notes[kernels.PIN_AT]
        return {self.rows.names[row]: int(position[row]) for row in _where(position != 0)}

    @cached_property
    def moved(self) -> Mapping[str, tuple[int, int]]:
        """Offers that exploration moved, as (place it would have had, place it got) among scored offers, from 1."""
        was, now = self.notes[kernels.MOVED_FROM], self.notes[kernels.MOVED_TO]
        return {self.rows.names[row]: (int(was[row]), int(now[row])) for row in _where(was != 0)}

    @cached_property
    def crowded(self) -> Mapping[str, str]:
        """Offers left out by `max_per_tag`, with the tag."""
        limited = self.rows.plan.tables.limited
        crowded = self.notes[kernels.CROWDED]
        return {self.rows.names[row]: limited[crowded[row]] for row in _where(crowded >= 0)}

    @cached_property
    def below(self) -> frozenset[str]:
        """Offers left out by the minimum score."""
        return frozenset(self.rows.names[row] for row in _where(self.notes[kernels.BELOW] != 0))


def arbitrate(assessment: Assessment, scores: NDArray[np.float64], terms: Terms) -> Ranking:
    """Order the eligible offers.

    Args:
        assessment: What the rules made of the rows.
        scores: float64[n], finite where eligible.
        terms: The rest.
    """
    rows, tables = assessment.rows, assessment.rows.plan.tables
    order, propensity, notes, drawn = kernels.arbitrate(
        assessment.eligible,
        rows.offers,
        rows.row_of,
        scores,
        tables.by_name,
        tables.keys,
        tables.pins,
        tables.shows,
        assessment.acted,
        tables.limits,
        tables.tags,
        -math.inf if terms.minimum_score is None else terms.minimum_score,
        _KINDS[terms.explore.kind],
        terms.explore.top_k,
        terms.explore.parameter,
        terms.seed,
        terms.beliefs.a,
        terms.beliefs.b,
        terms.beliefs.factors,
    )
    return Ranking(
        rows=rows,
        eligible=assessment.eligible,
        order_rows=order,
        propensity_by_row=propensity,
        notes=notes,
        drawn_by_row=drawn,
    )


def _where(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()
