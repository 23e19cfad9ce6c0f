"""What the rules make of each offer: added, excluded, boosted, pinned, eligible, capped.

Every rule that holds acts; ELSE acts where the condition is FALSE or NULL. What reads only customer and context is
evaluated once, what reads the offer or a feature keyed by it once per candidate, over all candidates in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision import kernels
from decision.plan import Act, CapPlan, OfferPlan, PlacementPlan
from decision.policy import Boost, Pin, Show
from decision.rows import Rows
from decision.verdicts import Verdicts

_NO_ROWS: Final = np.zeros((0, 0), np.uint8)
_ONE_ROW: Final = np.zeros((0, 1), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A cap whose counter has reached its limit; one that is NULL has counted 0."""

    cap: CapPlan
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One considered offer in one decision.

    Attributes:
        requested: It competes without any rule's doing.
        acts: All acts upon it, in file order of the rules; the ones below are of one kind each.
        fits: Its own condition holds, or it has none.
        reached: Caps that keep it out; empty where it does not compete.
    """

    plan: OfferPlan
    requested: bool
    acts: tuple[Act, ...]
    excluded: bool
    included: bool
    fits: bool
    reached: tuple[Reached, ...]

    @property
    def name(self) -> str:
        return self.plan.offer.name

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(act.action.factor for act in self.acts if isinstance(act.action, Boost))

    @property
    def shows(self) -> tuple[Act, ...]:
        return tuple(act for act in self.acts if isinstance(act.action, Show))

    @property
    def pins(self) -> tuple[Act, ...]:
        return tuple(act for act in self.acts if isinstance(act.action, Pin))

    @property
    def competes(self) -> bool:
        """It is a candidate at all: requested, or added by a rule that shows or pins it."""
        return self.requested or bool(self.shows or self.pins)

    @property
    def eligible(self) -> bool:
        """Exclude beats all; include overrides the offer's own condition; caps hold for everything."""
        return self.competes and not self.reached and not self.excluded and (self.fits or self.included)


@dataclass(kw_only=True, eq=False)  # as `decision.rows.Rows`
class Assessment:
    """What came of rules, eligibility and caps.

    Legend: `n` considered offers, in file order; `a` acts of the plan.

    Attributes:
        verdicts: How every condition came out.
        flags: uint8[n], bits of `decision.kernels`.
        eligible: int64[m], the rows that are eligible.
        reached: bool[caps, n], caps that keep a competing row out.
        tags: Tags that rules put on the decision.
        hits: uint8[a, n], 1 where an act acted upon a row.
        acted: bool[a], acts but boosts that acted at all, decision tags with them.
    """

    rows: Rows
    verdicts: Verdicts
    flags: NDArray[np.uint8]
    eligible: NDArray[np.int64]
    reached: NDArray[np.bool_]
    tags: tuple[str, ...]
    hits: NDArray[np.uint8]
    acted: NDArray[np.bool_]

    def acts(self, row: int) -> Iterator[Act]:
        """All acts upon a row, in file order of the rules."""
        acts = self.rows.plan.acts
        return (acts[act] for act in np.flatnonzero(self.hits[:, row]).tolist())

    def standing(self, row: int) -> Standing:
        """One row's standing, for words."""
        flags = int(self.flags[row])
        plan = self.rows.plan
        name = self.rows.names[row]
        values = self.rows.candidate(name)
        return Standing(
            plan=plan.offer_plans[name],
            requested=bool(flags & kernels.REQUESTED),
            acts=tuple(self.acts(row)),
            excluded=bool(flags & kernels.EXCLUDED),
            included=bool(flags & kernels.INCLUDED),
            fits=bool(flags & kernels.FITS),
            reached=tuple(
                Reached(cap=cap, count=values.get(cap.counter) or 0)  # type: ignore[arg-type]
                for cap, reached in zip(plan.caps, self.reached[:, row].tolist(), strict=True)
                if reached
            ),
        )

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """The considered offers' standings by name, for words."""
        return {name: self.standing(row) for row, name in enumerate(self.rows.names)}


def assess(rows: Rows, candidates: frozenset[str], now_us: int) -> Assessment:
    """Run rules, eligibility and caps.

    Args:
        rows: The values.
        candidates: Offers that the request names, or none for all that the placement lists.
        now_us: The decision's clock, microseconds since the epoch.
    """
    plan, tables = rows.plan, rows.plan.tables
    request_truths, candidate_truths = _request(rows, now_us), _candidates(rows, now_us)
    flags = _requested(plan, candidates)[rows.offers]
    hits, acted = kernels.run_rules(
        now_us,
        tables.rules,
        tables.acts,
        tables.targets,
        rows.row_of,
        request_truths,
        candidate_truths,
        flags,
    )
    reached = np.zeros((len(plan.caps), len(rows.names)), np.bool_)
    eligible = kernels.settle(
        tables.when,
        candidate_truths,
        tables.caps,
        tables.capped,
        rows.offers,
        rows.customer_block.words,
        rows.customer_block.statuses,
        rows.candidate_block.words,
        rows.candidate_block.statuses,
        rows.index,
        flags,
        reached,
    )
    return Assessment(
        rows=rows,
        verdicts=Verdicts(
            rows.names, plan.request_program, request_truths, plan.candidate_program, candidate_truths
        ),
        flags=flags,
        eligible=eligible,
        reached=reached,
        tags=tuple(dict.fromkeys(tag for act, tag in plan.decision_tags if acted[act])),
        hits=hits,
        acted=acted,
    )


def _request(rows: Rows, now_us: int) -> NDArray[np.uint8]:
    """Truths of all there is in the request's program: one row, conditions first."""
    if not rows.plan.request_program.expressions:
        return _ONE_ROW
    return rows.plan.request_binding.run(rows.request_inputs(), 1, now_us)


def _candidates(rows: Rows, now_us: int) -> NDArray[np.uint8]:
    """The same of the candidates' program: a row for each considered offer."""
    if not rows.names or not rows.plan.candidate_program.expressions:
        return _NO_ROWS
    return rows.plan.candidate_binding.run(rows.candidate_inputs(), len(rows.names), now_us)


def _requested(plan: PlacementPlan, candidates: frozenset[str]) -> NDArray[np.uint8]:
    """uint8[o]: REQUESTED where the offer competes without any rule's doing."""
    if not candidates:
        return plan.listed_flags
    flags = np.zeros(len(plan.offers), np.uint8)
    flags[[plan.place[name] for name in candidates]] = kernels.REQUESTED
    return flags
