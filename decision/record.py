"""What is asked, and what is answered: the plain values around a decision.

The protobuf forms of these live with the server. The numbers of the enums are those of `waypost.decision.v1`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from decision.schema import Value
from decision.verdicts import Verdicts


class DegradationKind(enum.IntEnum):
    """Kinds of things that a decision went without."""

    UNKNOWN_CUSTOMER = 1
    STORE_TIMEOUT = 2
    STORE_UNAVAILABLE = 3
    STALE_FEATURES = 4
    MODEL_ABSENT = 5
    SCORING_SKIPPED = 6
    FALLBACK = 7
    UNSEEN_CATEGORY = 8


class ReasonKind(enum.IntEnum):
    """Kinds of contributions to an offer's place."""

    RULE = 1
    SEGMENT = 2
    FEATURE = 3
    MODEL = 4
    VALUE = 5
    FALLBACK = 6
    EXPLORATION = 7
    CONSTRAINT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """Something that the decision went without; `name` is the view, feature, model or stage."""

    kind: DegradationKind
    name: str
    detail: str = ""


class Reason(NamedTuple):
    """One contribution; `name` is the rule, segment, feature, model, offer or cap."""

    kind: ReasonKind
    name: str
    detail: str = ""


class Request(NamedTuple):
    """A question.

    Attributes:
        placement: Name of a placement of the policy.
        customer_id: The customer, in the text form of the customer join key.
        context: Values of declared context by name; what is absent is NULL.
        candidates: Names of the offers that compete, in any order; empty means all of the placement's.
        limit: Most offers wanted; 0 means the placement's own limit.
    """

    placement: str
    customer_id: str
    context: Mapping[str, Value] = MappingProxyType({})
    candidates: tuple[str, ...] = ()
    limit: int = 0


class RankedOffer(NamedTuple):
    """One offer of the answer.

    Attributes:
        score: Prediction × value × boosts; without a prediction, value × boosts; for a fallback, the value.
        propensity: Probability that this offer is shown first.
        prediction: What the model says, or None where no model scored it.
    """

    offer: str
    content: Mapping[str, object]
    score: float
    propensity: float
    prediction: float | None
    reasons: tuple[Reason, ...]


class ViewAge(NamedTuple):
    """The decision's clock minus the newest event time read of a view; None where nothing is stored."""

    view: str
    age_us: int | None


class Decision(NamedTuple):
    """The answer: a pure function of everything in its record.

    Attributes:
        offers: Best first.
        tags: Tags that rules put on the decision, in the order of the rules.
        segments: Segments that the customer is stored to be in, in file order, then what segmentation models that
            conditions read tell of the customer, as `model:label`.
        bundle_version: Content hash of the bundle.
        model_version: The model that scored as `name@version`, or empty.
        feature_ages: One entry per view that was read, by name.
        degraded: What was left out or missing; empty where the decision is whole.
        verdicts: How every condition came out.
    """

    offers: tuple[RankedOffer, ...]
    tags: tuple[str, ...]
    segments: tuple[str, ...]
    bundle_version: str
    model_version: str
    feature_ages: tuple[ViewAge, ...]
    degraded: tuple[Degradation, ...]
    verdicts: Verdicts
