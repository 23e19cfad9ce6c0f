"""What one placement needs, worked out when the bundle is built: what to read, at which level, and compiled conditions.

A feature is read once per customer where its view's join keys are all the customer's, and once per candidate where
the view is also keyed by something that offers declare. A request then only looks values up and runs two programs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from decision.errors import BundleError, InvalidCustomerError
from decision.frame import Block, Layout
from decision.labelling import LabelPlan
from decision.lang import names
from decision.policy import Action, Cap, Include, Offer, Pin, Placement, Rule, Show, TagDecision
from decision.program import Binding, Program
from decision.record import Reason
from decision.schema import Catalog, DType, FeatureRef, Value, ValueType
from decision.scoring import ScoringPlan
from decision.tables import Tables

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
        reason: What it did, in words, where it changed something.
    """

    rule: Rule
    action: Action
    rank: tuple[int, int, int]
    targets: frozenset[str]
    segments: tuple[str, ...]
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePlan:
    """A rule ready to run, with what it does where it holds and where it does not.

    Attributes:
        place: Its condition's place in the program of its level.
    """

    rule: Rule
    place: int
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
        place: The place of its `when` in the candidates' program, or None where it may always be shown.
        reason: Its value and weight in words.
    """

    offer: Offer
    listed: bool
    constants: Mapping[str, Value]
    place: int | None
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CapPlan:
    """A cap, the offers it is about, and the counter's canonical name and level."""

    cap: Cap
    targets: frozenset[str]
    counter: str
    per_candidate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where one shape of the Beta distributions of Thompson sampling comes from.

    Attributes:
        prior: Before anything was counted.
        column: Of the counts in the block of their level, -1 for none.
    """

    prior: float
    per_candidate: bool = False
    column: int = -1
    is_float: bool = False


@dataclass(frozen=True, kw_only=True)
class PlacementPlan:
    """Everything a request at one placement needs.

    Attributes:
        request_program: Conditions that read customer and context alone, evaluated once a request.
        candidate_program: Conditions that read the offer or a feature keyed by it, and every offer's own, evaluated
            over all candidates in one pass.
        offers: All offers that can appear here: listed, added by rules, or fallback, in file order.
        customer_refs: Features to read once, sorted.
        candidate_refs: Features to read per candidate, sorted.
        request_binding: The request's program over the customer's block and the context's.
        candidate_binding: The candidates' program over those two, the candidates' block and `constants`.
        constants: What rules read of the offers as `offer.NAME`, a row each.
        context_layout: The columns of the context's block that conditions read, with the customer's key as text and the
            models' labels.
        tables: Rules, caps and tag limits as arrays.
        customer_layout: The columns of the customer's block, as `customer_refs`.
        candidate_layout: The columns of the candidates' block, as `candidate_refs`.
        memberships: Customer-level segments as (segment, canonical name of its stored membership).
        labels: Model segments that conditions read, by name of the model.
        customer_key: Name of the customer join key.
        shapes: Of Thompson sampling, a and b, or None where the placement explores otherwise.
        scoring: How the model's rows are made, or None where there is no model to score with.
        customer_keyed_views: Views keyed by the customer alone: where all of them are empty, the customer is unknown.
    """

    placement: Placement
    request_program: Program
    candidate_program: Program
    offers: tuple[Offer, ...]
    offer_plans: Mapping[str, OfferPlan]
    rules: tuple[RulePlan, ...]
    caps: tuple[CapPlan, ...]
    customer_refs: tuple[FeatureRef, ...]
    candidate_refs: tuple[FeatureRef, ...]
    request_binding: Binding
    candidate_binding: Binding
    constants: Block
    context_layout: Layout
    tables: Tables
    customer_layout: Layout
    candidate_layout: Layout
    memberships: tuple[tuple[str, str], ...]
    labels: tuple[LabelPlan, ...]
    customer_key: str
    customer_key_type: ValueType
    customer_keyed_views: frozenset[str]
    shapes: tuple[Shape, Shape] | None
    scoring: ScoringPlan | None

    @property
    def name(self) -> str:
        return self.placement.name

    @property
    def context(self) -> Mapping[str, DType]:
        return self.placement.context

    @cached_property
    def no_context(self) -> Block:
        """The context's block where no condition reads any."""
        return Block.of_row(self.context_layout, {})

    @cached_property
    def acts(self) -> tuple[Act, ...]:
        """All acts, in file order: what the numbers of acts in `tables` name."""
        return tuple(act for rule in self.rules for act in (*rule.then, *rule.otherwise))

    @cached_property
    def act_reasons(self) -> NDArray[np.object_]:
        """What each of `acts` did, in words: `Reason`s, as an array to take many from at once."""
        told = np.empty(len(self.acts), np.object_)
        for number, act in enumerate(self.acts):
            told[number] = act.reason
        return told

    @cached_property
    def may_be_idle(self) -> frozenset[int]:
        """Numbers of the acts that may change nothing where they act: an offer may fit anyway, a pin may lose."""
        return frozenset(
            number for number, act in enumerate(self.acts) if isinstance(act.action, Include | Pin)
        )

    @cached_property
    def worth_reasons(self) -> tuple[Reason, ...]:
        """Value and weight of each of `offers`, in words."""
        return tuple(plan.reason for plan in self.offer_plans.values())

    @cached_property
    def decision_tags(self) -> tuple[tuple[int, str], ...]:
        """Acts that tag the decision, as (number among `acts`, tag)."""
        return tuple(
            (number, act.action.name)
            for number, act in enumerate(self.acts)
            if isinstance(act.action, TagDecision)
        )

    @cached_property
    def reads_segments(self) -> bool:
        """Whether the condition of any rule reads a customer-level segment."""
        return any(act.segments for act in self.acts)

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Place of each offer in `offers`."""
        return {name: place for place, name in enumerate(self.offer_plans)}

    @cached_property
    def listed_flags(self) -> NDArray[np.uint8]:
        """uint8[o]: 1 where the offer competes if the request names none."""
        return np.array([plan.listed for plan in self.offer_plans.values()], np.uint8)

    def considered_places(self, names: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[n], places of considered offers in `offers`; int64[o], the other way round, -1 for the rest."""
        return self._places if names is self._considered else self._places_of(names)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        places = self._places_of(self._considered)
        for part in places:  # many decisions share them
            part.setflags(write=False)
        return places

    def _places_of(self, names: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        offers = np.array([self.place[name] for name in names], np.int64)
        row_of = np.full(len(self.offers), -1, np.int64)
        row_of[offers] = np.arange(len(names))
        return offers, row_of

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

    def considered(self, candidates: Collection[str]) -> tuple[str, ...]:
        """Offers to read features for, in file order: those that compete, those that rules can add, the fallback.

        Args:
            candidates: As in the request; empty means all that the placement lists.
        """
        return self._considered_by(frozenset(candidates)) if candidates else self._considered

    @cached_property
    def _considered(self) -> tuple[str, ...]:
        return self._considered_by(self.listed)

    def _considered_by(self, candidates: frozenset[str]) -> tuple[str, ...]:
        wanted = candidates | self.addable | frozenset(self.placement.fallback)
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
