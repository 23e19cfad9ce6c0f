"""A decision's conditions in words: out of the bits that its record keeps and the bundle, without its values.

Where the values are at hand they stand beside the comparisons that read them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from decision.errors import VerdictError
from decision.lang.syntax import Expr, Ref, walk
from decision.plan import PlacementPlan, RulePlan
from decision.program import Bits, Program, Truth
from decision.program.verdicts import comparisons
from decision.schema import DType, Value
from decision.words import spell, spell_action

VERDICTS_MAX: Final = 1_000
"""Conditions told of one decision."""
CUSTOMER_LEVEL: Final = ""
"""Names the customer's row among the candidates'."""

Rows = Callable[[str], Mapping[str, Value]]
"""Values that were read, by candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonVerdict:
    """One comparison, how it came out, and the types and values of what it read, where they are known."""

    text: str
    truth: Truth
    values: Mapping[str, tuple[DType, Value]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionVerdict:
    """One condition and how it came out.

    Attributes:
        rule: The rule's name; empty for an offer's own condition.
        offer: The candidate it was evaluated for; empty where that was once for all.
        active: Whether the rule's time includes the decision's; an offer's condition always counts.
        actions: What the rule did, as a policy writes it.
    """

    rule: str
    offer: str
    text: str
    truth: Truth
    active: bool
    actions: tuple[str, ...]
    comparisons: tuple[ComparisonVerdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Conditions that acted first, then the others; `left_out` counts those beyond the bound."""

    verdicts: tuple[ConditionVerdict, ...]
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a record keeps of a decision's conditions.

    Attributes:
        request: One row.
        candidates: A row for each of `offers`.
        now_us: The decision's clock.
    """

    request: Bits
    candidates: Bits
    offers: Sequence[str]
    now_us: int


def explain_verdicts(
    plan: PlacementPlan, kept: Kept, offers: Collection[str], rows: Rows | None = None
) -> Explanation:
    """Put the conditions of a decision into words.

    Args:
        plan: The placement, of the bundle that decided.
        kept: What the record keeps.
        offers: Candidates whose conditions are told; others are passed over.
        rows: The values of a candidate, or of the customer for `CUSTOMER_LEVEL`.

    Raises:
        VerdictError: If the bits are not of this placement's conditions.
    """
    told = list(_verdicts(plan, kept, offers, rows or (lambda _offer: {})))
    told.sort(key=lambda verdict: not verdict.actions)
    return Explanation(verdicts=tuple(told[:VERDICTS_MAX]), left_out=max(0, len(told) - VERDICTS_MAX))


def _verdicts(
    plan: PlacementPlan, kept: Kept, offers: Collection[str], rows: Rows
) -> Iterator[ConditionVerdict]:
    once = [rule for rule in plan.rules if not rule.rule.per_candidate]
    yield from _rules(_Read(plan.request_program, kept.request, 0), once, kept.now_us, CUSTOMER_LEVEL, rows)
    each = [rule for rule in plan.rules if rule.rule.per_candidate]
    for index, offer in enumerate(kept.offers):
        if offer in offers:
            read = _Read(plan.candidate_program, kept.candidates, index)
            yield from _rules(read, each, kept.now_us, offer, rows)
            own = plan.offer_plans[offer]
            if own.place is not None:
                yield _verdict(read, own.place, CUSTOMER_LEVEL, offer, rows(offer), active=True, actions=())


def _rules(
    read: _Read, rules: Sequence[RulePlan], now_us: int, offer: str, rows: Rows
) -> Iterator[ConditionVerdict]:
    row = rows(offer)
    for rule in rules:
        active = rule.active(now_us)
        acts = rule.then if read.truths[rule.place] is True else rule.otherwise
        actions = tuple(spell_action(act.action) for act in acts) if active else ()
        yield _verdict(read, rule.place, rule.rule.name, offer, row, active=active, actions=actions)


def _verdict(
    read: _Read,
    place: int,
    rule: str,
    offer: str,
    row: Mapping[str, Value],
    *,
    active: bool,
    actions: tuple[str, ...],
) -> ConditionVerdict:
    condition = read.program.expressions[place]
    return ConditionVerdict(
        rule=rule,
        offer=offer,
        text=spell(condition),
        truth=read.truths[place],
        active=active,
        actions=actions,
        comparisons=tuple(
            ComparisonVerdict(text=spell(part), truth=read.part(part), values=_values(part, row))
            for part in dict.fromkeys(comparisons(condition))
        ),
    )


def _values(part: Expr, row: Mapping[str, Value]) -> dict[str, tuple[DType, Value]]:
    types = sorted({(node.name, node.dtype) for node in walk(part) if isinstance(node, Ref)})
    return {name: (dtype, row[name]) for name, dtype in types if name in row}


class _Read:
    """One row of bits beside the program that says what they stand for."""

    def __init__(self, program: Program, bits: Bits, row: int) -> None:
        if bits.count != len(program.listing):
            raise VerdictError(
                f"{bits.count} truths were kept of {len(program.listing)} conditions and parts"
            )
        self.program = program
        self.truths = bits.row(row)

    def part(self, expr: Expr) -> Truth:
        """How a comparison came out."""
        return self.truths[self.program.listing_places[expr]]
