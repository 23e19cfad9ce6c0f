"""The values of one decision, laid out as the plan expects them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.frame import Block, Frame, Layout
from decision.lang.names import label_name
from decision.plan import CONTEXT, CUSTOMER, PlacementPlan
from decision.program import Input
from decision.record import Degradation, Request
from decision.schema import Status, Value

_FIRST: Final = np.zeros(1, np.int64)


# Not frozen: one is made for each decision, and freezing takes longer than filling it in.
@dataclass(kw_only=True, eq=False)
class Rows:
    """The customer's, the context's and the considered offers' values; what was not fetched is NULL.

    Attributes:
        names: The considered offers, in file order.
        offers: int64[n], places of the considered offers among the plan's.
        row_of: int64[o], the considered row of each of the plan's offers, -1 for none.
        labels: What segmentation models tell of the customer, by model; None is NULL.
        unseen: Categories that those models never saw.
        customer_block: Of the plan's layout.
        context_block: Of the plan's layout.
        candidate_block: Of the plan's layout.
        index: int64[n], the candidates' block's row of each considered offer, -1 where it was not fetched.
    """

    plan: PlacementPlan
    names: tuple[str, ...]
    offers: NDArray[np.int64]
    row_of: NDArray[np.int64]
    labels: Mapping[str, str | None]
    unseen: tuple[Degradation, ...]
    customer_block: Block
    context_block: Block
    candidate_block: Block
    index: NDArray[np.int64]
    _candidates: dict[str, dict[str, Value]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: PlacementPlan, frame: Frame, request: Request, now_us: int) -> Rows:
        """Bring what was fetched for a checked request into the plan's order, and tell the labels by it."""
        names = plan.considered(request.candidates)
        offers, row_of = plan.considered_places(names)
        customer = _laid_out(frame.customer, plan.customer_layout)
        told = {label.model: label.tell(customer, now_us) for label in plan.labels}
        labels = {model: found.label for model, found in told.items()}
        return cls(
            plan=plan,
            names=names,
            offers=offers,
            row_of=row_of,
            labels=labels,
            unseen=tuple(stranger for found in told.values() for stranger in found.unseen),
            customer_block=customer,
            context_block=_context(plan, request, labels),
            candidate_block=_laid_out(frame.candidates, plan.candidate_layout),
            index=_index(names, frame.candidates.rows),
        )

    def request_inputs(self) -> tuple[Input, ...]:
        """What the request's program reads: one row."""
        return Input(self.customer_block, _FIRST), Input(self.context_block, _FIRST)

    def candidate_inputs(self) -> tuple[Input, ...]:
        """What the candidates' program reads: a row for each considered offer."""
        same = np.zeros(len(self.names), np.int64)
        return (
            Input(self.customer_block, same),
            Input(self.context_block, same),
            Input(self.candidate_block, self.index),
            Input(self.plan.constants, self.offers),
        )

    @cached_property
    def segments(self) -> frozenset[str]:
        """Customer-level segments that the customer is stored to be in."""
        return frozenset(
            segment for segment, name in self.plan.memberships if self.customer_block.value(name, 0) is True
        )

    def is_in(self, segment: str) -> bool:
        """Whether the customer is stored to be in a customer-level segment."""
        return segment in self.segments

    @cached_property
    def customer(self) -> Mapping[str, Value]:
        """Values of customer, context and labels by canonical name, for words."""
        return {**_row(self.customer_block, 0), **_row(self.context_block, 0)}

    def candidate(self, offer: str) -> Mapping[str, Value]:
        """All that conditions read of an offer of the plan, by canonical name, for words."""
        row = self._candidates.get(offer)
        if row is None:
            place = self.plan.place[offer]
            at = self.row_of[place]
            fetched = int(self.index[at]) if at >= 0 else -1
            row = self._candidates[offer] = {
                **self.customer,
                **(_row(self.candidate_block, fetched) if fetched >= 0 else {}),
                **self.plan.offer_plans[offer].constants,
            }
        return row


def _row(block: Block, row: int) -> dict[str, Value]:
    return {name: block.value(name, row) for name in block.layout.names}


def _laid_out(block: Block, layout: Layout) -> Block:
    """The block with the layout's columns; one that is missing was not found, one too many is left out."""
    if block.layout is layout:
        return block
    shape = (len(layout.names), len(block.rows))
    words, statuses = np.zeros(shape, np.int64), np.full(shape, int(Status.NOT_FOUND), np.uint8)
    for column, (name, dtype) in enumerate(zip(layout.names, layout.dtypes, strict=True)):
        place = block.layout.place.get(name)
        if place is not None and block.layout.dtypes[place] is dtype:
            words[column], statuses[column] = block.words[place], block.statuses[place]
    event_us = np.zeros((len(layout.views), len(block.rows)), np.int64)
    return Block(layout, block.rows, words, statuses, event_us, block.objects)


def _index(names: tuple[str, ...], rows: tuple[str, ...]) -> NDArray[np.int64]:
    if rows is names or rows == names:
        return np.arange(len(names))
    place = {name: row for row, name in enumerate(rows)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def _context(plan: PlacementPlan, request: Request, labels: Mapping[str, str | None]) -> Block:
    if not plan.context_layout.names:
        return plan.no_context
    given = {f"{CONTEXT}.{name}": value for name, value in request.context.items()}
    told = {label_name(model): label for model, label in labels.items()}
    return Block.of_row(plan.context_layout, {**given, CUSTOMER: request.customer_id, **told})
