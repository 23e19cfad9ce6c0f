"""What one placement needs, worked out when the bundle is built: what to read, at which level, and prepared closures.

A feature is read once per customer where its view's join keys are all the customer's, and once per candidate where
the view is also keyed by something that offers declare. A request then only looks values up and calls closures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from decision.errors import BundleError, InvalidCustomerError
from decision.lang import names
from decision.lang.interpreter import prepare
from decision.lang.syntax import references
from decision.policy import (
    Action,
    Boost,
    Cap,
    Exploration,
    Offer,
    Pin,
    Placement,
    Policy,
    Rule,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import Catalog, DType, FeatureRef, Value, ValueType, View
from decision.scoring import ModelHandle, ScoringPlan, plan_scoring

Evaluate = Callable[[Mapping[str, Value], int], Value]
"""A prepared expression: (values by canonical name, now in µs) → value."""

CONTEXT = "context"
OFFER = "offer"
CUSTOMER = f"{CONTEXT}.{names.CUSTOMER}"
"""The customer's id as text, for `bucket`."""
_MAX_CUSTOMER_ID_BYTES = 256
_KEY_TYPES = frozenset({ValueType.STRING, ValueType.INT32, ValueType.INT64})


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One action of a rule, ready to act.

    Attributes:
        rank: Acts sort by priority, descending, then file order, then place in the rule.
        targets: Offers of the placement that it is about; none for a decision tag.
        segments: Customer-level segments that the rule's condition reads.
    """

    rule: Rule
    action: Action
    rank: tuple[int, int, int]
    targets: frozenset[str]
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePlan:
    """A rule ready to run, with what it does where it holds and where it does not."""

    rule: Rule
    holds: Evaluate
    then: tuple[Act, ...]
    otherwise: tuple[Act, ...]

    def active(self, now_us: int) -> bool:
        start, end = self.rule.active_from_us, self.rule.active_until_us
        return (start is None or start <= now_us) and (end is None or now_us < end)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferPlan:
    """An offer ready to compete.

    Attributes:
        listed: It competes without any rule's doing.
        constants: What rules read of it, as `offer.NAME`.
        eligible: Its `when`, or None for always.
    """

    offer: Offer
    listed: bool
    constants: Mapping[str, Value]
    eligible: Evaluate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapPlan:
    """A cap, the offers it is about, and the counter's canonical name and level."""

    cap: Cap
    targets: frozenset[str]
    counter: str
    per_candidate: bool


@dataclass(frozen=True, kw_only=True)
class PlacementPlan:
    """Everything a request at one placement needs.

    Attributes:
        offers: All offers that can appear here: listed, added by rules, or fallback, in file order.
        customer_refs: Features to read once, sorted.
        candidate_refs: Features to read per candidate, sorted.
        memberships: Customer-level segments as (segment, canonical name of its stored membership).
        customer_key: Name of the customer join key.
        scoring: How the model's rows are made, or None where there is no model to score with.
        customer_keyed_views: Views keyed by the customer alone: where all of them are empty, the customer is unknown.
    """

    placement: Placement
    offers: tuple[Offer, ...]
    offer_plans: Mapping[str, OfferPlan]
    rules: tuple[RulePlan, ...]
    caps: tuple[CapPlan, ...]
    customer_refs: tuple[FeatureRef, ...]
    candidate_refs: tuple[FeatureRef, ...]
    memberships: tuple[tuple[str, str], ...]
    customer_key: str
    customer_key_type: ValueType
    customer_keyed_views: frozenset[str]
    scoring: ScoringPlan | None

    @property
    def name(self) -> str:
        return self.placement.name

    @property
    def context(self) -> Mapping[str, DType]:
        return self.placement.context

    @property
    def model_absent(self) -> bool:
        return self.placement.model is not None and self.scoring is None

    @cached_property
    def offer_names(self) -> tuple[str, ...]:
        """Names of `offers`."""
        return tuple(self.offer_plans)

    @cached_property
    def listed(self) -> frozenset[str]:
        """Offers that compete where the request names none."""
        return frozenset(name for name, plan in self.offer_plans.items() if plan.listed)

    @cached_property
    def addable(self) -> frozenset[str]:
        """Offers that some rule can add."""
        acts = (act for rule in self.rules for act in (*rule.then, *rule.otherwise))
        return frozenset(name for act in acts if isinstance(act.action, Show | Pin) for name in act.targets)

    def considered(self, candidates: Iterable[str]) -> tuple[str, ...]:
        """Offers to read features for, in file order: those that compete, those that rules can add, the fallback.

        Args:
            candidates: As in the request; empty means all that the placement lists.
        """
        wanted = (frozenset(candidates) or self.listed) | self.addable | frozenset(self.placement.fallback)
        return tuple(name for name in self.offer_names if name in wanted)

    def customer_row(self, customer_id: str) -> Mapping[str, Value]:
        """The customer's join key, typed.

        Raises:
            InvalidCustomerError: If the id is empty, longer than 256 bytes or not of the key's type.
        """
        return {self.customer_key: typed_key(customer_id, self.customer_key_type)}

    def candidate_rows(self, customer_id: str, offers: Iterable[str]) -> list[Mapping[str, Value]]:
        """Join keys of each named offer's row: what the offer declares and the customer.

        A key that an offer does not declare is absent from its row; features that need it are NULL for that offer.

        Raises:
            InvalidCustomerError: As `customer_row`.
        """
        customer = self.customer_row(customer_id)
        return [{**self.offer_plans[name].offer.keys, **customer} for name in offers]


def typed_key(customer_id: str, value_type: ValueType) -> Value:
    """The customer id as a value of its join key's type; InvalidCustomerError where it is not one."""
    if not 0 < len(customer_id.encode()) <= _MAX_CUSTOMER_ID_BYTES:
        raise InvalidCustomerError("customer_id", f"must have 1 to {_MAX_CUSTOMER_ID_BYTES} bytes")
    if value_type is ValueType.STRING:
        return customer_id
    bits = 32 if value_type is ValueType.INT32 else 64
    number = _canonical_int(customer_id)
    if number is None or not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise InvalidCustomerError("customer_id", f"must be an integer of {bits} bits, not {customer_id!r}")
    return number


def _canonical_int(text: str) -> int | None:
    """The integer, or None: one customer has one text, so neither `007` nor `+7` is 7."""
    number = int(text) if text.removeprefix("-").isdecimal() else None
    return number if str(number) == text else None


def key_type(catalog: Catalog, customer_key: str) -> ValueType:
    """Type of the customer join key; a string where no view is keyed by the customer.

    Raises:
        BundleError: If views disagree about it, or it is neither a string nor an integer.
    """
    keys = [key for view in catalog.views for key in view.join_keys if key.name == customer_key]
    types = {key.value_type for key in keys} or {ValueType.STRING}
    if len(types) > 1:
        raise BundleError(
            f"views disagree about the type of the customer key {customer_key!r}: {sorted(types)}"
        )
    (value_type,) = types
    if value_type not in _KEY_TYPES:
        raise BundleError(
            f"the customer key {customer_key!r} must be a string or integer, not {value_type.name}"
        )
    return value_type


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Builds the plans of one bundle's placements."""

    catalog: Catalog
    policy: Policy
    models: Mapping[str, ModelHandle]
    customer_key: str

    def plan(self, placement: Placement) -> PlacementPlan:
        """The plan of one placement; BundleError where its parts do not fit together."""
        _check_explore(placement)
        offers = self._offers(placement)
        rules = self._rules(placement, offers)
        caps = tuple(self._cap(cap, offers) for cap in self.policy.caps if _is_on(cap, placement))
        scoring = self._scoring(placement)
        read = self._names_read(rules, offers, caps, scoring)
        refs = [_ref(name) for name in read if name.partition(".")[0] not in (CONTEXT, OFFER)]
        return PlacementPlan(
            placement=placement,
            offers=offers,
            offer_plans={offer.name: _offer_plan(offer, placement) for offer in offers},
            rules=rules,
            caps=caps,
            customer_refs=tuple(ref for ref in refs if self._view(ref).name in self._customer_views),
            candidate_refs=tuple(ref for ref in refs if ref.view not in self._customer_views),
            memberships=tuple((segment, name) for name, segment in self._memberships.items()),
            customer_key=self.customer_key,
            customer_key_type=key_type(self.catalog, self.customer_key),
            customer_keyed_views=self._keyed_views,
            scoring=scoring,
        )

    @cached_property
    def _customer_views(self) -> frozenset[str]:
        return frozenset(
            view.name for view in self.catalog.views if set(view.key_names) <= {self.customer_key}
        )

    @cached_property
    def _keyed_views(self) -> frozenset[str]:
        return frozenset(view.name for view in self.catalog.views if view.key_names == (self.customer_key,))

    @cached_property
    def _memberships(self) -> dict[str, str]:
        return {
            f"{segment.view}.{segment.name}": segment.name
            for segment in self.policy.segments
            if segment.view in self._customer_views
        }

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
        return tuple(
            self._rule(rule, order, offers)
            for order, rule in enumerate(self.policy.rules)
            if rule.placement == placement.name
        )

    def _rule(self, rule: Rule, order: int, offers: tuple[Offer, ...]) -> RulePlan:
        read = references(rule.condition)
        segments = tuple(segment for name, segment in self._memberships.items() if name in read)
        acts = tuple(
            Act(
                rule=rule,
                action=action,
                rank=(-rule.priority, order, place),
                targets=_acted_on(action, offers),
                segments=segments,
            )
            for place, action in enumerate((*rule.actions, *rule.otherwise))
        )
        split = len(rule.actions)
        return RulePlan(rule=rule, holds=prepare(rule.condition), then=acts[:split], otherwise=acts[split:])

    def _cap(self, cap: Cap, offers: tuple[Offer, ...]) -> CapPlan:
        return CapPlan(
            cap=cap,
            targets=_targets(cap.selector or Selector(), offers),
            counter=str(cap.counter),
            per_candidate=self._view(cap.counter).name not in self._customer_views,
        )

    def _scoring(self, placement: Placement) -> ScoringPlan | None:
        handle = self.models.get(placement.model) if placement.model else None
        return plan_scoring(handle, self.catalog, self._customer_views) if handle else None

    def _names_read(
        self,
        rules: tuple[RulePlan, ...],
        offers: tuple[Offer, ...],
        caps: tuple[CapPlan, ...],
        scoring: ScoringPlan | None,
    ) -> tuple[str, ...]:
        read = set(self._memberships) | {cap.counter for cap in caps}
        for condition in (*(plan.rule.condition for plan in rules), *(offer.when for offer in offers)):
            read |= references(condition) if condition is not None else frozenset()
        if scoring is not None:
            read |= {column.name for column in scoring.columns}
        return tuple(sorted(read))


def _check_explore(placement: Placement) -> None:
    how = placement.explore
    if how.kind is Exploration.SOFTMAX and not (math.isfinite(how.parameter) and how.parameter > 0):
        raise BundleError(f"placement {placement.name!r}: a temperature of {how.parameter} must be above 0")
    if how.kind is Exploration.EPSILON_GREEDY and not 0 <= how.parameter <= 1:
        raise BundleError(f"placement {placement.name!r}: an epsilon of {how.parameter} must be from 0 to 1")


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


def _offer_plan(offer: Offer, placement: Placement) -> OfferPlan:
    if not math.isfinite(offer.value):
        raise BundleError(f"the value of offer {offer.name!r} must be finite, not {offer.value}")
    constants = {f"{OFFER}.{name}": value for name, value in offer.attributes.items()}
    return OfferPlan(
        offer=offer,
        listed=_is_listed(offer, placement),
        constants={**constants, f"{OFFER}.tags": offer.tags},
        eligible=prepare(offer.when) if offer.when is not None else None,
    )


def _ref(name: str) -> FeatureRef:
    view, _, feature = name.partition(".")
    return FeatureRef(view=view, feature=feature)
