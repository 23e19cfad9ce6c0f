"""What makes one offer eligible or not: the conditions that count for it, and how they count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decision.lang.syntax import Compare, Expr, IsNull, Literal, Or, Ref
from decision.plan import Act, CapPlan, PlacementPlan, RulePlan
from decision.policy import Exclude, Include, Pin, Show
from decision.schema import Catalog, DType

Held = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """Everything that an offer's eligibility hangs on.

    Attributes:
        requested: It competes without any rule's doing.
        rules: Active rules that add, include or exclude it.
        when: The offer's own condition, or None.
        caps: For each cap of the offer the condition that it is reached.
    """

    offer: str
    requested: bool
    rules: tuple[RulePlan, ...]
    when: Expr | None
    caps: tuple[Expr, ...]

    @classmethod
    def of(
        cls, plan: PlacementPlan, catalog: Catalog, offer: str, *, requested: bool, now_us: int
    ) -> Grounds:
        """The grounds of one offer of the placement at an instant."""
        return cls(
            offer=offer,
            requested=requested,
            rules=tuple(rule for rule in plan.rules if rule.active(now_us) and any(_acts(rule, offer))),
            when=plan.offer_plans[offer].offer.when,
            caps=tuple(_reached(cap, catalog) for cap in plan.caps if offer in cap.targets),
        )

    @property
    def conditions(self) -> tuple[Expr, ...]:
        """Conditions in the order in which `eligible` wants their truths."""
        own = () if self.when is None else (self.when,)
        return (*(rule.rule.condition for rule in self.rules), *own, *self.caps)

    def eligible(self, held: Sequence[Held]) -> Held:
        """Whether the offer is eligible, where these are which of `conditions` are TRUE; arrays are broadcast."""
        count = len(self.rules)
        acting = list(zip(self.rules, held[:count], strict=True))
        fits = np.True_ if self.when is None else held[count]
        reached = held[count + (self.when is not None) :]
        competes = self.requested | self._any(acting, lambda act: isinstance(act.action, Show | Pin))
        excluded = self._any(acting, lambda act: isinstance(act.action, Exclude))
        included = self._any(acting, lambda act: isinstance(act.action, Include))
        verdict: Held = competes & ~excluded & (fits | included)
        for cap in reached:
            verdict = verdict & ~cap
        return verdict

    def _any(self, acting: Sequence[tuple[RulePlan, Held]], wanted: Callable[[Act], bool]) -> Held:
        found: Held = np.zeros((), np.bool_)
        for rule, held in acting:
            if any(wanted(act) and self.offer in act.targets for act in rule.then):
                found = found | held
            if any(wanted(act) and self.offer in act.targets for act in rule.otherwise):
                found = found | ~held
        return found


def _acts(rule: RulePlan, offer: str) -> Iterator[bool]:
    for act in (*rule.then, *rule.otherwise):
        yield offer in act.targets and isinstance(act.action, Show | Pin | Include | Exclude)


def _reached(cap: CapPlan, catalog: Catalog) -> Expr:
    """`counter >= limit`; a counter that is NULL has counted nothing."""
    dtype, limit = catalog.feature(cap.cap.counter).dtype, cap.cap.limit
    counter = Ref(name=cap.counter, dtype=dtype or DType.INT64)
    value = float(limit) if dtype is DType.FLOAT64 else limit
    reached = Compare(op=">=", left=counter, right=Literal(value=value, dtype=counter.dtype))
    return reached if limit > 0 else Or(operands=(IsNull(operand=counter), reached))
