"""Builds a placement's plan out of catalog, policy and models, and refuses what does not fit together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from decision.errors import BundleError
from decision.frame import Block, Layout, layout_of, view_of
from decision.labelling import LabelHandle, Model, check_labeller, plan_label
from decision.lang.names import label_name, labelled
from decision.lang.syntax import Expr, references
from decision.phrases import phrase
from decision.plan import (
    CONTEXT,
    CUSTOMER,
    OFFER,
    Act,
    CapPlan,
    OfferPlan,
    PlacementPlan,
    RulePlan,
    Shape,
    key_type,
)
from decision.policy import (
    SHAPE_LEAST,
    SHAPE_MOST,
    THOMPSON_MAX,
    Action,
    Boost,
    Cap,
    Exploration,
    Explore,
    Offer,
    Pin,
    Placement,
    Policy,
    Rule,
    Selector,
    Show,
    TagDecision,
)
from decision.program import Program
from decision.record import Reason, ReasonKind
from decision.schema import Catalog, DType, FeatureRef, Status, Value, View
from decision.scoring import Column, ModelHandle, plan_columns, plan_scoring
from decision.tables import tabulate


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Builds the plans of one bundle's placements."""

    catalog: Catalog
    policy: Policy
    models: Mapping[str, Model]
    customer_key: str

    def plan(self, placement: Placement) -> PlacementPlan:
        """The plan of one placement; BundleError where its parts do not fit together."""
        _check_explore(placement)
        offers = self._offers(placement)
        rules = self._rules(placement, offers)
        caps = tuple(self._cap(cap, offers) for cap in self.policy.caps if _is_on(cap, placement))
        handle = self._scorer(placement)
        columns = plan_columns(handle, self.catalog, self._customer_views) if handle else ()
        labels = self._labels(_read_by_conditions(rules, offers))
        read = self._names_read(placement, rules, offers, caps, columns) | _inputs(labels.values())
        per_candidate = _conditions(rules, per_candidate=True)
        own = [(offer.name, offer.when) for offer in offers if offer.when is not None]
        places = {name: place for place, (name, _) in enumerate(own, len(per_candidate))}
        refs = [_ref(name) for name in sorted(read) if _is_feature(name)]
        customer_refs = tuple(ref for ref in refs if self._view(ref).name in self._customer_views)
        candidate_refs = tuple(ref for ref in refs if ref.view not in self._customer_views)
        offer_plans = {offer.name: _offer_plan(offer, placement, places.get(offer.name)) for offer in offers}
        customer, candidates = layout_of(self.catalog, customer_refs), layout_of(self.catalog, candidate_refs)
        brought = _brought(placement, labels)
        common = frozenset((*customer.names, *brought))
        request_program = Program.compile(_conditions(rules, per_candidate=False))
        candidate_program = Program.compile([*per_candidate, *(when for _, when in own)], common)
        named = request_program.names | candidate_program.names
        context = Layout.of((name, dtype) for name, dtype in brought.items() if name in named)
        constants = _constants(offer_plans, candidate_program)
        return PlacementPlan(
            placement=placement,
            request_program=request_program,
            candidate_program=candidate_program,
            request_binding=request_program.bind((customer, context)),
            candidate_binding=candidate_program.bind((customer, context, candidates, constants)),
            constants=constants,
            context_layout=context,
            tables=tabulate(rules, caps, offer_plans, placement, customer, candidates),
            offers=offers,
            offer_plans=offer_plans,
            rules=rules,
            caps=caps,
            customer_refs=customer_refs,
            candidate_refs=candidate_refs,
            customer_layout=customer,
            candidate_layout=candidates,
            labels=tuple(plan_label(name, label, self.catalog, customer) for name, label in labels.items()),
            memberships=tuple((segment, name) for name, segment in self._memberships.items()),
            customer_key=self.customer_key,
            customer_key_type=key_type(self.catalog, self.customer_key),
            customer_keyed_views=self._keyed_views,
            shapes=self._shapes(placement.explore, customer, candidates),
            scoring=plan_scoring(handle, columns, self.catalog, customer, candidates) if handle else None,
        )

    @cached_property
    def _customer_views(self) -> frozenset[str]:
        return frozenset(
            view.name for view in self.catalog.stored_views if set(view.key_names) <= {self.customer_key}
        )

    @cached_property
    def _keyed_views(self) -> frozenset[str]:
        return frozenset(
            view.name for view in self.catalog.stored_views if view.key_names == (self.customer_key,)
        )

    @cached_property
    def _memberships(self) -> dict[str, str]:
        return {
            f"{segment.view}.{segment.name}": segment.name
            for segment in self.policy.segments
            if segment.view in self._customer_views
        }

    def _scorer(self, placement: Placement) -> ModelHandle | None:
        handle = self.models.get(placement.model) if placement.model else None
        if isinstance(handle, LabelHandle):
            raise BundleError(f"model {handle} tells segments; {placement.name!r} needs one that predicts")
        return handle

    def _labels(self, read: frozenset[str]) -> dict[str, LabelHandle | None]:
        """The segmentation models whose labels are read, by name; None where one is not loaded."""
        names = sorted(filter(None, map(labelled, read)))
        return {name: self._labeller(name) for name in names}

    def _labeller(self, name: str) -> LabelHandle | None:
        handle = self.models.get(name)
        if isinstance(handle, ModelHandle):
            raise BundleError(f"model {handle} predicts; label({name}) needs one that tells segments")
        if handle is not None:
            check_labeller(handle, self.catalog, self._customer_views)
        return handle

    def _view(self, ref: FeatureRef) -> View:
        view = self.catalog.view_by_name.get(ref.view)
        if view is None or ref.feature not in view.feature_by_name:
            raise BundleError(f"the policy reads {ref}, which is no feature of the catalog")
        if view.on_demand:
            raise BundleError(f"{ref} is computed on demand; rules and models may not read it")
        return view

    def _offers(self, placement: Placement) -> tuple[Offer, ...]:
        rules = [rule for rule in self.policy.rules if rule.placement == placement.name]
        added = {
            action.offer for rule in rules for action in _actions(rule) if isinstance(action, Show | Pin)
        }
        here = added | set(placement.fallback)
        return tuple(
            offer for offer in self.policy.offers if offer.name in here or _is_listed(offer, placement)
        )

    def _rules(self, placement: Placement, offers: tuple[Offer, ...]) -> tuple[RulePlan, ...]:
        places = {True: count(), False: count()}
        return tuple(
            self._rule(rule, order, offers, next(places[rule.per_candidate]))
            for order, rule in enumerate(self.policy.rules)
            if rule.placement == placement.name
        )

    def _rule(self, rule: Rule, order: int, offers: tuple[Offer, ...], place: int) -> RulePlan:
        read = references(rule.condition)
        segments = tuple(segment for name, segment in self._memberships.items() if name in read)
        acts = tuple(
            Act(
                rule=rule,
                action=action,
                rank=(-rule.priority, order, number),
                targets=_acted_on(action, offers),
                segments=segments,
                reason=Reason(kind=ReasonKind.RULE, name=rule.name, detail=phrase(action, rule.priority)),
            )
            for number, action in enumerate((*rule.actions, *rule.otherwise))
        )
        split = len(rule.actions)
        return RulePlan(rule=rule, place=place, then=acts[:split], otherwise=acts[split:])

    def _cap(self, cap: Cap, offers: tuple[Offer, ...]) -> CapPlan:
        return CapPlan(
            cap=cap,
            targets=_targets(cap.selector or Selector(), offers),
            counter=str(cap.counter),
            per_candidate=self._view(cap.counter).name not in self._customer_views,
        )

    def _shapes(self, how: Explore, customer: Layout, candidates: Layout) -> tuple[Shape, Shape] | None:
        if how.kind is not Exploration.THOMPSON:
            return None
        a, b = how.prior
        return (
            self._shape(a, how.successes, customer, candidates),
            self._shape(b, how.failures, customer, candidates),
        )

    def _shape(self, prior: float, count: FeatureRef | None, customer: Layout, candidates: Layout) -> Shape:
        if count is None:
            return Shape(prior=prior)
        per_candidate = count.view not in self._customer_views
        layout = candidates if per_candidate else customer
        column = layout.place[str(count)]
        is_float = layout.dtypes[column] is DType.FLOAT64
        return Shape(prior=prior, per_candidate=per_candidate, column=column, is_float=is_float)

    def _names_read(
        self,
        placement: Placement,
        rules: tuple[RulePlan, ...],
        offers: tuple[Offer, ...],
        caps: tuple[CapPlan, ...],
        columns: tuple[Column, ...],
    ) -> frozenset[str]:
        counted = (placement.explore.successes, placement.explore.failures)
        return frozenset(
            {
                *self._memberships,
                *_read_by_conditions(rules, offers),
                *(cap.counter for cap in caps),
                *(column.name for column in columns),
                *(str(ref) for ref in counted if ref),
            }
        )


def _read_by_conditions(rules: Iterable[RulePlan], offers: Iterable[Offer]) -> frozenset[str]:
    conditions = (*(plan.rule.condition for plan in rules), *(offer.when for offer in offers))
    return frozenset(name for condition in conditions if condition for name in references(condition))


def _inputs(handles: Iterable[LabelHandle | None]) -> frozenset[str]:
    return frozenset(str(ref) for handle in handles if handle for ref in handle.features)


def _is_feature(name: str) -> bool:
    return name.partition(".")[0] not in (CONTEXT, OFFER) and not labelled(name)


def _conditions(rules: Iterable[RulePlan], *, per_candidate: bool) -> list[Expr]:
    """Conditions of one level, in the order of their places."""
    return [plan.rule.condition for plan in rules if plan.rule.per_candidate is per_candidate]


def _check_explore(placement: Placement) -> None:
    how = placement.explore
    if how.kind is Exploration.SOFTMAX and not (math.isfinite(how.parameter) and how.parameter > 0):
        raise BundleError(f"placement {placement.name!r}: a temperature of {how.parameter} must be above 0")
    if how.kind is Exploration.EPSILON_GREEDY and not 0 <= how.parameter <= 1:
        raise BundleError(f"placement {placement.name!r}: an epsilon of {how.parameter} must be from 0 to 1")
    if how.kind is Exploration.THOMPSON:
        _check_thompson(placement.name, how)


def _check_thompson(name: str, how: Explore) -> None:
    if how.top_k > THOMPSON_MAX:
        raise BundleError(f"placement {name!r}: Thompson sampling explores over at most {THOMPSON_MAX}")
    if not all(SHAPE_LEAST <= shape <= SHAPE_MOST for shape in how.prior):
        raise BundleError(
            f"placement {name!r}: a prior of {how.prior} must be from {SHAPE_LEAST} to {SHAPE_MOST:g}"
        )
    if (how.successes is None) is not (how.failures is None):
        raise BundleError(f"placement {name!r}: successes and failures are counted together or not at all")


def _is_on(cap: Cap, placement: Placement) -> bool:
    return cap.placement is None or cap.placement == placement.name


def _is_listed(offer: Offer, placement: Placement) -> bool:
    return any(_selects(selector, offer) for selector in placement.candidates)


def _selects(selector: Selector, offer: Offer) -> bool:
    """A selector without offer and tag is about every offer."""
    named = selector.offer is None or selector.offer == offer.name
    return named and (selector.tag is None or selector.tag in offer.tags)


def _targets(selector: Selector, offers: Iterable[Offer]) -> frozenset[str]:
    return frozenset(offer.name for offer in offers if _selects(selector, offer))


def _actions(rule: Rule) -> tuple[Action, ...]:
    return (*rule.actions, *rule.otherwise)


def _acted_on(action: Action, offers: Iterable[Offer]) -> frozenset[str]:
    match action:
        case TagDecision():
            return frozenset()
        case Show(offer=name) | Pin(offer=name):
            return frozenset({name})
        case Boost(factor=factor) if not (math.isfinite(factor) and factor >= 0):
            raise BundleError(f"a boost by {factor} must be finite and not negative")
        case _:
            return _targets(action.selector, offers)


def _offer_plan(offer: Offer, placement: Placement, place: int | None) -> OfferPlan:
    for what, factor in (("value", offer.value), ("weight", offer.weight)):
        if not math.isfinite(factor):
            raise BundleError(f"the {what} of offer {offer.name!r} must be finite, not {factor}")
        if factor < 0 and placement.explore.kind is Exploration.THOMPSON:
            raise BundleError(
                f"the {what} of offer {offer.name!r} must not be negative, as draws multiply it"
            )
    constants = {f"{OFFER}.{name}": value for name, value in offer.attributes.items()}
    return OfferPlan(
        offer=offer,
        listed=_is_listed(offer, placement),
        constants={**constants, f"{OFFER}.tags": offer.tags},
        place=place,
        reason=Reason(kind=ReasonKind.VALUE, name=offer.name, detail=_worth(offer)),
    )


def _worth(offer: Offer) -> str:
    weight = "" if offer.weight == 1.0 else f", weight {offer.weight:g}"
    return f"value {offer.value:g}{weight}"


def _brought(placement: Placement, models: Iterable[str]) -> dict[str, DType]:
    """Types of what a request brings, and of the labels that models tell at it."""
    declared = {f"{CONTEXT}.{name}": dtype for name, dtype in placement.context.items()}
    labels = {label_name(model): DType.STRING for model in models}
    return {**declared, CUSTOMER: DType.STRING, **labels}


def _constants(offers: Mapping[str, OfferPlan], program: Program) -> Block:
    """The offers' constants that conditions read, a row for each offer; what an offer does not set is NULL."""
    layout = Layout.of(
        (name, dtype) for name, dtype in sorted(program.dtypes.items()) if view_of(name) == OFFER
    )
    values = [
        [_typed(plan.constants.get(name), dtype) for plan in offers.values()]
        for name, dtype in _columns(layout)
    ]
    present, nothing = int(Status.PRESENT), [0] * len(offers)
    return Block.of(
        layout, tuple(offers), values, [[present] * len(offers)] * len(values), [nothing] * len(values)
    )


def _columns(layout: Layout) -> Iterator[tuple[str, DType | None]]:
    return zip(layout.names, layout.dtypes, strict=True)


def _typed(value: Value, dtype: DType | None) -> Value:
    """An attribute of one type may be an integer in one offer and a float in another."""
    return float(value) if dtype is DType.FLOAT64 and isinstance(value, int) else value


def _ref(name: str) -> FeatureRef:
    view, _, feature = name.partition(".")
    return FeatureRef(view=view, feature=feature)
