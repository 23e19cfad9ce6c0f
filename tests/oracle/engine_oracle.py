"""A whole decision by the shortest way to say it: lists, dicts and loops, one sentence of docs/rules.md after another.

It shares the declared policy's plain data, the reference interpreter and the record's plain values with the engine, and
nothing else; predictions are XGBoost's own, and what Thompson sampling's propensities are is integrated by scipy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import xgboost

from decision.lang.interpreter import evaluate
from decision.lang.syntax import Expr, references
from decision.policy import (
    Action,
    Boost,
    Cap,
    Exclude,
    Exploration,
    Include,
    Offer,
    Pin,
    Placement,
    Policy,
    Rule,
    Selector,
    Show,
    TagDecision,
)
from decision.record import (
    Degradation,
    DegradationKind,
    RankedOffer,
    Reason,
    ReasonKind,
    Request,
    ViewAge,
)
from decision.schema import Catalog, DType, FeatureRef, Status, Value
from tests.oracle.draws import COIN, OFFER, beta, draw, gumbel, key_of
from tests.oracle.thompson import first_places

DAY_US = 86_400_000_000
LARGEST = float(np.finfo(np.float64).max)
Row = dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What was read of one feature."""

    value: Value
    status: Status
    event_us: int


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """An XGBoost model; `categories` are those of its columns that are words."""

    name: str
    version: str
    booster: xgboost.Booster
    features: tuple[FeatureRef, ...]
    categories: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Centroids with names, on the scale of (value - mean) / deviation."""

    name: str
    features: tuple[FeatureRef, ...]
    labels: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    points: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """What decides."""

    catalog: Catalog
    policy: Policy
    predictors: Mapping[str, Predictor]
    labellers: Mapping[str, Labeller]
    customer_key: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and what was read for it: features by name of the customer and of offers."""

    request: Request
    customer: Mapping[str, Cell]
    offers: Mapping[str, Mapping[str, Cell]]
    now_us: int
    seed: int
    degraded: tuple[Degradation, ...] = ()
    skip_scoring: bool = False


@dataclass(frozen=True, kw_only=True)
class Act:
    """One action of a rule upon one offer; acts of higher priority, then of earlier place, sort first."""

    rule: Rule
    action: Action
    rank: tuple[int, int, int]


@dataclass(kw_only=True, eq=False)
class Candidate:
    """What is found out about one offer, step by step."""

    offer: Offer
    requested: bool
    row: Row
    acts: list[Act] = field(default_factory=list)
    fits: bool = False
    reached: list[str] = field(default_factory=list)
    prediction: float | None = None
    shapes: tuple[float, float] | None = None
    theta: float | None = None
    score: float = math.nan
    pinned_to: int = 0
    was: int = 0
    now: int = 0
    crowded: str | None = None
    below: bool = False
    propensity: float = 0.0

    @property
    def name(self) -> str:
        return self.offer.name

    def acted(self, *kinds: type[Action]) -> list[Act]:
        """Acts of these kinds upon it."""
        return [act for act in self.acts if isinstance(act.action, kinds)]

    @property
    def competes(self) -> bool:
        return self.requested or bool(self.acted(Show, Pin))

    @property
    def eligible(self) -> bool:
        """Exclude beats all; include overrides the offer's own condition, never a cap."""
        if not self.competes or self.acted(Exclude) or self.reached:
            return False
        return self.fits or bool(self.acted(Include))

    @property
    def factors(self) -> list[float]:
        """What the score multiplies, the prediction apart."""
        boosts = [act.action.factor for act in self.acts if isinstance(act.action, Boost)]
        return [self.offer.value, self.offer.weight, *boosts]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The decision, and what came of every offer in play on the way there."""

    offers: tuple[RankedOffer, ...]
    tags: tuple[str, ...]
    segments: tuple[str, ...]
    model_version: str
    feature_ages: tuple[ViewAge, ...]
    degraded: tuple[Degradation, ...]
    order: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    customer_row: Row
    request_truths: tuple[Value, ...]
    candidate_truths: tuple[tuple[Value, ...], ...]


def answer(world: World, question: Question) -> Answer:
    """Decide."""
    return _Deciding(world, question).answer()


class _Deciding:
    def __init__(self, world: World, question: Question) -> None:
        self.world = world
        self.question = question
        self.policy = world.policy
        self.placement: Placement = {each.name: each for each in self.policy.placements}[
            question.request.placement
        ]
        self.rules = [
            (order, rule)
            for order, rule in enumerate(self.policy.rules)
            if rule.placement == self.placement.name
        ]
        self.here = [offer for offer in self.policy.offers if self._can_appear(offer)]
        self.labels = {name: self._label(name) for name in self._labels_read()}
        self.customer_row = self._customer_row()
        self.candidates = [
            Candidate(offer=offer, requested=self._requested(offer), row=self._row(offer))
            for offer in self.here
            if self._requested(offer) or self._may_be_added(offer)
        ]
        self.tags: dict[str, None] = {}
        self.scorer: Predictor | None = None
        self.unscored: tuple[Degradation, ...] = ()
        self.unseen: tuple[Degradation, ...] = ()
        self.order: list[Candidate] = []

    def answer(self) -> Answer:
        """In the order in which docs/rules.md tells it."""
        self._let_rules_act()
        for candidate in self.candidates:
            self._check(candidate)
        eligible = [candidate for candidate in self.candidates if candidate.eligible]
        self._predict(eligible)
        for candidate in eligible:
            self._score(candidate)
        self.order = self._arbitrate(eligible)
        limit = self.question.request.limit or self.placement.limit
        shown = tuple(self._ranked(candidate) for candidate in self.order[:limit])
        return Answer(
            offers=shown or tuple(self._fallback(limit)),
            tags=tuple(self.tags),
            segments=tuple(self._segments()),
            model_version=f"{self.scorer.name}@{self.scorer.version}" if self.scorer else "",
            feature_ages=tuple(self._ages()),
            degraded=tuple(dict.fromkeys(self._degradations(bool(shown)))),
            order=tuple(candidate.name for candidate in self.order),
            candidates=tuple(self.candidates),
            customer_row=self.customer_row,
            request_truths=tuple(
                self._truth(rule.condition, self.customer_row)
                for _, rule in self.rules
                if not self._per_candidate(rule.condition)
            ),
            candidate_truths=tuple(tuple(self._own_truths(candidate)) for candidate in self.candidates),
        )

    # Who is in play, and on which values

    def _can_appear(self, offer: Offer) -> bool:
        return self._listed(offer) or self._may_be_added(offer)

    def _listed(self, offer: Offer) -> bool:
        return any(selects(selector, offer) for selector in self.placement.candidates)

    def _may_be_added(self, offer: Offer) -> bool:
        """Some rule can show or pin it, or it is a fallback."""
        actions = chain.from_iterable((*rule.actions, *rule.otherwise) for _, rule in self.rules)
        added = {action.offer for action in actions if isinstance(action, Show | Pin)}
        return offer.name in added or offer.name in self.placement.fallback

    def _requested(self, offer: Offer) -> bool:
        """It competes without any rule's doing."""
        wanted = self.question.request.candidates
        return offer.name in wanted if wanted else self._listed(offer)

    def _customer_row(self) -> Row:
        request = self.question.request
        return {
            **{name: visible(cell) for name, cell in self.question.customer.items()},
            **{f"context.{name}": value for name, value in request.context.items()},
            "context.customer": request.customer_id,
            **{f"label({model})": label for model, label in self.labels.items()},
        }

    def _row(self, offer: Offer) -> Row:
        cells = self.question.offers.get(offer.name, {})
        return {
            **self.customer_row,
            **{name: visible(cell) for name, cell in cells.items()},
            **{f"offer.{name}": value for name, value in offer.attributes.items()},
            "offer.tags": offer.tags,
        }

    def _truth(self, condition: Expr, row: Row) -> Value:
        return evaluate(condition, row, self.question.now_us)

    def _per_candidate(self, condition: Expr) -> bool:
        """It reads the offer, or a feature whose keys are not all the customer's."""
        return any(
            name.startswith("offer.") or not self._is_customers(name)
            for name in references(condition)
            if not name.startswith(("context.", "label("))
        )

    def _is_customers(self, feature: str) -> bool:
        view = self.world.catalog.view_by_name[feature.split(".", maxsplit=1)[0]]
        return set(view.key_names) <= {self.world.customer_key}

    def _own_truths(self, candidate: Candidate) -> Iterator[Value]:
        """Of the rules of its level in file order, then of the offers' own conditions, each on its row."""
        conditions = [rule.condition for _, rule in self.rules if self._per_candidate(rule.condition)]
        conditions += [offer.when for offer in self.here if offer.when is not None]
        return (self._truth(condition, candidate.row) for condition in conditions)

    # Rules

    def _let_rules_act(self) -> None:
        """Every rule that holds acts; ELSE acts on FALSE and NULL."""
        taggings: list[tuple[tuple[int, int], str, Candidate | None]] = []
        for order, rule in self.rules:
            if not self._active(rule):
                continue
            alone = self._per_candidate(rule.condition)
            for candidate in self.candidates if alone else [None]:
                row = self.customer_row if candidate is None else candidate.row
                holds = self._truth(rule.condition, row) is True
                for number, action in enumerate((*rule.actions, *rule.otherwise)):
                    if (number < len(rule.actions)) is not holds:
                        continue
                    if isinstance(action, TagDecision):
                        taggings.append(((order, number), action.name, candidate))
                        continue
                    act = Act(rule=rule, action=action, rank=(-rule.priority, order, number))
                    for target in self.candidates if candidate is None else [candidate]:
                        if concerns(action, target.offer):
                            target.acts.append(act)
        for _, tag, candidate in sorted(taggings, key=lambda tagging: tagging[0]):
            if candidate is None or candidate.competes:
                self.tags[tag] = None

    def _active(self, rule: Rule) -> bool:
        since, until, now_us = rule.active_from_us, rule.active_until_us, self.question.now_us
        return (since is None or since <= now_us) and (until is None or now_us < until)

    def _check(self, candidate: Candidate) -> None:
        """Its own condition must be TRUE, and no counter may have reached its cap."""
        candidate.acts.sort(key=lambda act: (act.rank[1], act.rank[2]))
        when = candidate.offer.when
        candidate.fits = when is None or self._truth(when, candidate.row) is True
        caps = [cap for cap in self.policy.caps if cap.placement in (None, self.placement.name)]
        for cap in caps:
            if candidate.competes and selects(cap.selector or Selector(), candidate.offer):
                self._count(cap, candidate)

    def _count(self, cap: Cap, candidate: Candidate) -> None:
        counted = number(candidate.row.get(str(cap.counter)))
        if (0 if counted is None else counted) >= cap.limit:
            candidate.reached.append(cap.name)

    # Scores

    def _predict(self, eligible: Sequence[Candidate]) -> None:
        """The model's predictions, or why there are none."""
        model = self.placement.model
        if model is None or not eligible:
            return
        predictor = self.world.predictors.get(model)
        if self.question.skip_scoring:
            self._go_without(DegradationKind.SCORING_SKIPPED, "no time was left to score")
        elif predictor is None:
            self._go_without(DegradationKind.MODEL_ABSENT, "the model is not loaded")
        else:
            rows = [candidate.row for candidate in eligible]
            predictions = predict(predictor, rows, self.world.catalog, self.question.now_us)
            if not all(map(math.isfinite, predictions)):
                detail = "the model gave something that is not a finite number"
                self._go_without(DegradationKind.MODEL_ABSENT, detail)
                return
            self.scorer = predictor
            self.unseen = tuple(unseen(predictor, rows))
            for candidate, prediction in zip(eligible, predictions, strict=True):
                candidate.prediction = prediction

    def _go_without(self, kind: DegradationKind, detail: str) -> None:
        self.unscored = (Degradation(kind=kind, name=self.placement.model or "", detail=detail),)

    def _score(self, candidate: Candidate) -> None:
        """Prediction × value × weight × boosts; without model and Thompson sampling there is no prediction."""
        how = self.placement.explore
        if how.kind is Exploration.THOMPSON and not self.unscored:
            counts = (how.successes, how.failures)
            a, b = (
                shape(prior, number(candidate.row.get(str(count))))
                for prior, count in zip(how.prior, counts, strict=True)
            )
            candidate.shapes = (a, b)
            mean = a / (a + b)
            candidate.score = product([_or(candidate.prediction, mean), *candidate.factors])
        else:
            candidate.score = product([_or(candidate.prediction, 1.0), *candidate.factors])

    # One order

    def _arbitrate(self, eligible: Sequence[Candidate]) -> list[Candidate]:
        room = Counter(self.placement.max_per_tag)
        pins = self._pins(eligible)
        pinned = {position: pin for position, pin in sorted(pins.items()) if self._admit(pin, room)}
        free = [candidate for candidate in eligible if candidate not in pins.values()]
        shown = sorted((c for c in free if c.acted(Show)), key=lambda c: min(a.rank for a in c.acted(Show)))
        queue = [candidate for candidate in shown if self._admit(candidate, room)]
        scored = [candidate for candidate in free if candidate not in shown and self._good_enough(candidate)]
        scored = [candidate for candidate in scored if self._has_room(candidate, room)]
        scored.sort(key=lambda candidate: (-candidate.score, candidate.name))
        explored, chances = self._explore(scored)
        for place, candidate in enumerate(explored):
            before = scored.index(candidate)
            if before != place:
                candidate.was, candidate.now = before + 1, place + 1
        queue += [candidate for candidate in explored if self._admit(candidate, room)]
        order = self._merge(pinned, queue)
        if order and order[0] in scored:
            for candidate, chance in zip(scored, chances, strict=True):
                candidate.propensity = chance
        elif order:
            order[0].propensity = 1.0
        return order

    def _pins(self, eligible: Sequence[Candidate]) -> dict[int, Candidate]:
        """A contested position or offer goes to the highest priority, then file order."""
        holders: dict[int, Candidate] = {}
        acts = [(act.rank, candidate) for candidate in eligible for act in candidate.acted(Pin)]
        for rank, candidate in sorted(acts, key=lambda pair: pair[0]):
            position = next(
                act.action.position
                for act in candidate.acts
                if act.rank == rank and isinstance(act.action, Pin)
            )
            if position not in holders and candidate not in holders.values():
                holders[position] = candidate
        return holders

    def _merge(self, pinned: Mapping[int, Candidate], queue: Iterable[Candidate]) -> list[Candidate]:
        """Others fill in around the pins; where they run out, pins move up."""
        order: list[Candidate] = []
        rest = list(queue)
        for position, candidate in pinned.items():
            while rest and len(order) < position - 1:
                order.append(rest.pop(0))
            order.append(candidate)
            candidate.pinned_to = position if len(order) == position else 0
        return order + rest

    def _good_enough(self, candidate: Candidate) -> bool:
        least = None if self.unscored else self.placement.minimum_score
        candidate.below = least is not None and candidate.score < least
        return not candidate.below

    def _has_room(self, candidate: Candidate, room: Counter[str]) -> bool:
        full = [tag for tag in candidate.offer.tags if tag in self.placement.max_per_tag and room[tag] <= 0]
        candidate.crowded = full[0] if full else None
        return not full

    def _admit(self, candidate: Candidate, room: Counter[str]) -> bool:
        if not self._has_room(candidate, room):
            return False
        room.subtract(candidate.offer.tags)
        return True

    def _explore(self, scored: list[Candidate]) -> tuple[list[Candidate], list[float]]:
        """The order among scored offers, and the probability of each of `scored` to come first of them."""
        how = self.placement.explore
        kind = Exploration.NONE if self.unscored else how.kind
        best, rest = scored[: how.top_k], scored[how.top_k :]
        nothing = [0.0] * len(rest)
        if not best:
            return [], []
        if kind is Exploration.NONE:
            return scored, [1.0] + [0.0] * (len(scored) - 1)
        explore = {
            Exploration.EPSILON_GREEDY: self._toss,
            Exploration.SOFTMAX: self._softmax,
            Exploration.THOMPSON: self._thompson,
        }
        order, chances = explore[kind](best)
        return order + rest, chances + nothing

    def _toss(self, best: list[Candidate]) -> tuple[list[Candidate], list[float]]:
        epsilon, seed = self.placement.explore.parameter, self.question.seed
        even = epsilon / len(best)
        chances = [even + (1 - epsilon if place == 0 else 0) for place in range(len(best))]
        if draw(seed, 0, COIN) >= epsilon:
            return best, chances
        first = max(best, key=lambda candidate: draw(seed, key_of(candidate.name), OFFER))
        return [first, *(candidate for candidate in best if candidate is not first)], chances

    def _softmax(self, best: list[Candidate]) -> tuple[list[Candidate], list[float]]:
        temperature, seed = self.placement.explore.parameter, self.question.seed
        logits = [(candidate.score - best[0].score) / temperature for candidate in best]
        weights = [math.exp(logit) for logit in logits]
        worth = {c: logit + gumbel(seed, c.name) for c, logit in zip(best, logits, strict=True)}
        order = sorted(best, key=lambda candidate: -worth[candidate])
        return order, [weight / math.fsum(weights) for weight in weights]

    def _thompson(self, best: list[Candidate]) -> tuple[list[Candidate], list[float]]:
        seed = self.question.seed
        factors = [product(candidate.factors) for candidate in best]
        shapes = [candidate.shapes or (math.nan, math.nan) for candidate in best]
        for candidate, (a, b) in zip(best, shapes, strict=True):
            candidate.theta = beta(seed, candidate.name, a, b)
            candidate.score = product([candidate.theta, product(candidate.factors)])
        order = sorted(best, key=lambda candidate: -candidate.score)
        most = max(factors)
        # what is beside the greatest so little that their quotient is 0 never comes first
        live = [place for place, factor in enumerate(factors) if factor > 0 and factor / most > 0]
        chances = [0.0] * len(best)
        if len(live) < 2:
            chances[live[0] if live else 0] = 1.0
            return order, chances
        found = first_places(
            [shapes[place][0] for place in live],
            [shapes[place][1] for place in live],
            [factors[place] / most for place in live],
        )
        for place, chance in zip(live, found, strict=True):
            chances[place] = chance
        return order, chances

    # Words

    def _ranked(self, candidate: Candidate) -> RankedOffer:
        return RankedOffer(
            offer=candidate.name,
            content=candidate.offer.content,
            score=candidate.score,
            propensity=candidate.propensity,
            prediction=candidate.prediction,
            reasons=tuple(self._reasons(candidate)),
        )

    def _fallback(self, limit: int) -> Iterator[RankedOffer]:
        """In its own order, whatever conditions, caps and limits of tags say, but never what a rule excludes."""
        by_name = {candidate.name: candidate for candidate in self.candidates}
        left = [by_name[name] for name in self.placement.fallback if not by_name[name].acted(Exclude)]
        detail = f"nothing else was left at {self.placement.name}"
        for place, candidate in enumerate(left[:limit]):
            yield RankedOffer(
                offer=candidate.name,
                content=candidate.offer.content,
                score=candidate.offer.value,
                propensity=1.0 if place == 0 else 0.0,
                prediction=None,
                reasons=(Reason(ReasonKind.FALLBACK, self.placement.name, detail),),
            )

    def _reasons(self, candidate: Candidate) -> Iterator[Reason]:
        for act in candidate.acts:
            yield Reason(ReasonKind.RULE, act.rule.name, did(act, candidate))
        for segment in self._read_segments(candidate.acts):
            rules = [act.rule.name for act in candidate.acts if segment in self._segments_of(act.rule)]
            detail = f"read by {', '.join(dict.fromkeys(rules))}"
            yield Reason(ReasonKind.SEGMENT, segment, detail)
        if self.scorer is not None and candidate.prediction is not None:
            scorer = f"{self.scorer.name}@{self.scorer.version}"
            yield Reason(ReasonKind.MODEL, scorer, f"predicts {candidate.prediction:.4g}")
        weight = "" if candidate.offer.weight == 1 else f", weight {candidate.offer.weight:g}"
        yield Reason(ReasonKind.VALUE, candidate.name, f"value {candidate.offer.value:g}{weight}")
        explored = ", ".join(exploring(candidate))
        if explored:
            yield Reason(ReasonKind.EXPLORATION, self.placement.explore.kind.value, explored)

    def _memberships(self) -> dict[str, str]:
        """Segments of the customer by where their membership is stored, in file order."""
        stored = {f"{segment.view}.{segment.name}": segment.name for segment in self.policy.segments}
        return {name: segment for name, segment in stored.items() if self._is_customers(name)}

    def _segments_of(self, rule: Rule) -> list[str]:
        """Segments that the rule reads and the customer is in."""
        read = references(rule.condition)
        return [
            segment
            for name, segment in self._memberships().items()
            if name in read and self.customer_row.get(name) is True
        ]

    def _read_segments(self, acts: Iterable[Act]) -> list[str]:
        found = chain.from_iterable(self._segments_of(act.rule) for act in acts)
        return list(dict.fromkeys(found))

    def _segments(self) -> Iterator[str]:
        for name, segment in self._memberships().items():
            if self.customer_row.get(name) is True:
                yield segment
        for model, label in self.labels.items():
            if label is not None:
                yield f"{model}:{label}"

    # Labels

    def _labels_read(self) -> list[str]:
        conditions = [*(rule.condition for _, rule in self.rules), *(offer.when for offer in self.here)]
        names = {name for condition in conditions if condition is not None for name in references(condition)}
        return sorted(
            name.removeprefix("label(").removesuffix(")") for name in names if name.startswith("label(")
        )

    def _label(self, name: str) -> str | None:
        """The nearest centroid by what is known, the first of equals; none where nothing is known."""
        labeller = self.world.labellers.get(name)
        if labeller is None:
            return None
        inputs = [entering(visible(self.question.customer.get(str(ref)))) for ref in labeller.features]
        known = [place for place, value in enumerate(inputs) if math.isfinite(value)]
        if not known:
            return None
        scaled = {i: (inputs[i] - labeller.means[i]) / labeller.deviations[i] for i in known}
        distances = [sum((scaled[i] - point[i]) ** 2 for i in known) for point in labeller.points]
        return labeller.labels[distances.index(min(distances))]

    # What was gone without

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        for cells in (self.question.customer, *self.question.offers.values()):
            for name, cell in cells.items():
                yield name.split(".")[0], cell

    def _ages(self) -> Iterator[ViewAge]:
        newest: dict[str, int] = {}
        for view, cell in self._cells():
            newest[view] = max(newest.get(view, 0), cell.event_us)
        for view, event_us in sorted(newest.items()):
            yield ViewAge(view, self.question.now_us - event_us if event_us else None)

    def _degradations(self, shown: bool) -> Iterator[Degradation]:
        yield from self.question.degraded
        key = self.world.customer_key
        own = [
            cell for view, cell in self._cells() if self.world.catalog.view_by_name[view].key_names == (key,)
        ]
        if own and all(cell.status is Status.NOT_FOUND for cell in own):
            detail = "nothing is stored for this customer"
            yield Degradation(kind=DegradationKind.UNKNOWN_CUSTOMER, name=key, detail=detail)
        for view in sorted({view for view, cell in self._cells() if cell.status is Status.STALE}):
            detail = "older than the view's TTL, and used"
            yield Degradation(kind=DegradationKind.STALE_FEATURES, name=view, detail=detail)
        for model in self.labels:
            if model not in self.world.labellers:
                detail = "the segmentation model is not loaded: its label is NULL"
                yield Degradation(kind=DegradationKind.MODEL_ABSENT, name=model, detail=detail)
        yield from self.unscored
        yield from self.unseen
        if not shown:
            detail = "nothing else was left"
            yield Degradation(kind=DegradationKind.FALLBACK, name=self.placement.name, detail=detail)


def visible(cell: Cell | None) -> Value:
    """Only what is PRESENT or STALE has a value, and a NaN is NULL."""
    if cell is None or cell.status not in (Status.PRESENT, Status.STALE):
        return None
    return None if isinstance(cell.value, float) and math.isnan(cell.value) else cell.value


def number(value: Value) -> float | None:
    """A count."""
    return None if value is None else float(value)  # type: ignore[arg-type]


def selects(selector: Selector, offer: Offer) -> bool:
    """By name, by tag, or everything."""
    if selector.offer is not None:
        return selector.offer == offer.name
    return selector.tag is None or selector.tag in offer.tags


def concerns(action: Action, offer: Offer) -> bool:
    """Whether an action is about an offer."""
    match action:
        case Show(offer=name) | Pin(offer=name):
            return name == offer.name
        case TagDecision():
            return False
        case _:
            return selects(action.selector, offer)


def product(factors: Iterable[float]) -> float:
    """From left to right, kept finite."""
    result = 1.0
    for factor in factors:
        result = max(-LARGEST, min(LARGEST, result * factor))
    return result


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def shape(prior: float, count: float | None) -> float:
    """A shape of the Beta distribution: a NULL or negative count has counted nothing."""
    return max(0.5, min(1e6, prior + max(0.0, _or(count, 0.0))))


def entering(value: Value) -> float:
    """A value as float32, rounded once; NaN where it is missing."""
    if value is None:
        return math.nan
    exact = np.float64(value) if isinstance(value, float) else np.int64(value)  # type: ignore[arg-type]
    with np.errstate(over="ignore"):
        return float(exact.astype(np.float32))


def predict(predictor: Predictor, rows: Sequence[Row], catalog: Catalog, now_us: int) -> list[float]:
    """XGBoost's own predictions; a word that the model does not know is missing."""
    columns: dict[str, Any] = {}
    for ref in predictor.features:
        name, values = f"{ref.view}__{ref.feature}", [row.get(str(ref)) for row in rows]
        known = predictor.categories.get(name)
        if known is not None:
            columns[name] = pd.Categorical(
                [v if v in known else None for v in values], categories=list(known)
            )
        else:
            is_instant = catalog.feature(ref).dtype is DType.TIMESTAMP
            read: Callable[[Value], float] = (lambda v: days_since(v, now_us)) if is_instant else entering
            columns[name] = np.array([read(value) for value in values], np.float32)
    found = predictor.booster.inplace_predict(pd.DataFrame(columns))
    return [float(value) for value in found]


def unseen(predictor: Predictor, rows: Sequence[Row]) -> Iterator[Degradation]:
    """For each feature the first word that the model does not know."""
    for ref in predictor.features:
        known = predictor.categories.get(f"{ref.view}__{ref.feature}")
        words = [row.get(str(ref)) for row in rows]
        strange = [word for word in words if known is not None and word is not None and word not in known]
        if strange:
            scorer = f"{predictor.name}@{predictor.version}"
            detail = f"{strange[0]!r} is no category of {scorer}: it counts as missing"
            yield Degradation(kind=DegradationKind.UNSEEN_CATEGORY, name=str(ref), detail=detail)


def days_since(instant_us: Value, now_us: int) -> float:
    """A timestamp enters as its age in days."""
    return math.nan if instant_us is None else entering((float(now_us) - float(instant_us)) / DAY_US)  # type: ignore[arg-type]


def did(act: Act, candidate: Candidate) -> str:
    """What a rule's action did to the offer."""
    match act.action:
        case Show():
            return f"shows it above scored offers, priority {act.rule.priority}"
        case Boost(factor=factor):
            return f"multiplies its score by {factor:g} ({'boost' if factor >= 1 else 'bury'})"
        case Include():
            return "makes it eligible" + (", as it is anyway" if candidate.fits else "")
        case Pin(position=position):
            moved = ", but another pin or too few offers moved it"
            return f"pins it to position {position}" + ("" if candidate.pinned_to == position else moved)
        case _:
            raise AssertionError(act)


def exploring(candidate: Candidate) -> Iterator[str]:
    """What exploration did to the offer."""
    if candidate.theta is not None and candidate.shapes is not None:
        a, b = candidate.shapes
        yield f"drew {candidate.theta:.4g} from Beta({a:g}, {b:g}) in place of the prediction"
    if candidate.was:
        yield f"moved it from {candidate.was} to {candidate.now} among scored offers"
