"""The policy: rules, segments, offers, placements and caps, as the compiler hands them to the engine.

Everything here is immutable. Expressions are typed trees of `decision.lang.syntax`, already bound to the catalog.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from decision.lang.syntax import Expr, Span
from decision.schema import DType, FeatureRef, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which offers an action is about: one by name, or all that carry a tag."""

    offer: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """`display_recommendation(offer)`: add the offer and place it above everything scored, by rule priority."""

    offer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """`boost(offer | tag, factor)` and `bury(…, factor)`: multiply the score; factors of several rules multiply."""

    selector: Selector
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """`include(…)`: override the eligibility verdict of other rules; never a cap, never an exclusion."""

    selector: Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclude:
    """`exclude(…)`: beats every other action."""

    selector: Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """`pin(offer, position)`: positions count from 1; a contested one goes to the highest priority, then file order."""

    offer: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TagDecision:
    """`tag("name")`: mark the decision."""

    name: str


Action = Show | Boost | Include | Exclude | Pin | TagDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A named condition on one entity whose membership is stored as a feature.

    Attributes:
        view: The view that stores membership; its bool feature has the segment's name.
        join_keys: Names of the entity's join keys.
        dwell_us: How long membership lasts at least once it has changed, in either direction; microseconds.
    """

    name: str
    condition: Expr
    view: str
    join_keys: tuple[str, ...]
    dwell_us: int = 0
    description: str = ""
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """IF condition THEN actions ELSE otherwise, on one placement.

    `active_from_us` and `active_until_us` bound the rule's life: [from, until), event time in microseconds.
    `per_candidate` is true where the condition reads the offer or a feature keyed by it; its actions then apply to
    that candidate alone.
    """

    name: str
    placement: str
    condition: Expr
    actions: tuple[Action, ...]
    otherwise: tuple[Action, ...] = ()
    priority: int = 0
    active_from_us: int | None = None
    active_until_us: int | None = None
    per_candidate: bool = False
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that can be shown.

    Attributes:
        keys: Values of the join keys the offer declares, by join key name: `offer X (product_category = "…")`.
        content: What the client receives, JSON-like.
        attributes: Constants rules read as `offer.NAME`; numbers, strings, bools.
        tags: Labels, readable as `offer.tags`.
        value: What showing it is worth: a factor of the score.
        weight: How hard it is pushed: another factor of the score, apart from its worth.
        when: Eligibility condition, or None for always.
    """

    name: str
    keys: Mapping[str, Value] = field(default_factory=dict)
    content: Mapping[str, object] = field(default_factory=dict)
    attributes: Mapping[str, Value] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    value: float = 1.0
    weight: float = 1.0
    when: Expr | None = None
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """`cap NAME: at most N in WINDOW per offer|tag "x" counted by view.feature`.

    The counter is a feature of the vector (keyed by customer, or by customer and offer); a candidate whose counter
    has reached `limit` is not shown.
    """

    name: str
    placement: str | None
    limit: int
    window_s: int
    selector: Selector | None
    counter: FeatureRef
    span: Span


THOMPSON_MAX: Final = 8
"""Most offers that Thompson sampling explores over."""
SHAPE_LEAST: Final = 0.5
SHAPE_MOST: Final = 1e6
"""Bounds of the shapes of a Beta distribution; what lies outside is moved there."""


class Exploration(enum.StrEnum):
    """How a placement tries other than its best offers."""

    NONE = "none"
    EPSILON_GREEDY = "epsilon_greedy"
    SOFTMAX = "softmax"
    THOMPSON = "thompson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """How a placement explores over its top k.

    Attributes:
        parameter: Epsilon (epsilon-greedy) or temperature (softmax).
        prior: For Thompson sampling, the shapes a and b of the Beta distribution before anything was counted.
        successes: What is added to a, a count by feature, or None; a NULL or negative one counts nothing.
        failures: What is added to b, as `successes`; both or neither are given.
    """

    kind: Exploration = Exploration.NONE
    top_k: int = 1
    parameter: float = 0.0
    prior: tuple[float, float] = (1.0, 1.0)
    successes: FeatureRef | None = None
    failures: FeatureRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A touchpoint that asks for content.

    Attributes:
        context: Declared, typed request context by name. Conditions may also read `context.customer`, the customer's
            key as text, which every placement has and none declares.
        candidates: Which offers compete here (union); empty means that only rules add offers.
        model: Name of the model whose prediction scores the candidates, or None.
        limit: Most offers returned unless the request asks for fewer.
        max_per_tag: At most this many offers of a tag in one answer, by tag.
        fallback: Offers shown when nothing is left, in this order.
        minimum_score: Candidates that score below it are dropped.
        changeable: Canonical names of the context and features that a why-not answer may change.
    """

    name: str
    context: Mapping[str, DType] = field(default_factory=dict)
    candidates: tuple[Selector, ...] = ()
    model: str | None = None
    limit: int = 10
    max_per_tag: Mapping[str, int] = field(default_factory=dict)
    fallback: tuple[str, ...] = ()
    explore: Explore = Explore()
    minimum_score: float | None = None
    changeable: tuple[str, ...] = ()
    span: Span


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All of it, checked as a whole.

    Order within each tuple is file order, except that a segment comes after those that it reads.

    `source_hash` is the SHA-256 of the policy texts; with the catalog's hash it makes the bundle's version.
    """

    segments: tuple[Segment, ...] = ()
    rules: tuple[Rule, ...] = ()
    offers: tuple[Offer, ...] = ()
    placements: tuple[Placement, ...] = ()
    caps: tuple[Cap, ...] = ()
    source_hash: str = ""
