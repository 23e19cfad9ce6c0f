"""Arbitration: from eligible offers to one order, with the probability of each to come first.

The order is made in this sequence, and `Request.limit` cuts it only at the end, so a shorter answer is a prefix of a
longer one:

1. Pins take their positions. A contested position or offer goes to the highest priority, then file order; the loser
   competes on as if it had not been pinned. Where fewer offers are left than a position asks for, pins move up.
2. Offers that rules show come next, by priority of the rule, then file order.
3. Scored offers follow by score, descending; equal scores by offer name. Those below the placement's minimum are out.
   Exploration reorders the best of them.

At each step an offer that would be one too many of a tag (`max_per_tag`) is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from decision.explore import Explored, explore
from decision.plan import Act
from decision.policy import Explore, Pin


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An eligible offer.

    Attributes:
        score: Finite.
        tags: The offer's own.
        show: The first of the acts that show it, or None.
        pins: Acts that pin it.
    """

    name: str
    score: float
    tags: tuple[str, ...] = ()
    show: Act | None = None
    pins: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a placement arbitrates by; `minimum_score` None keeps everything."""

    max_per_tag: Mapping[str, int] = field(default_factory=dict)
    minimum_score: float | None = None
    explore: Explore = field(default_factory=Explore)
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The whole order.

    Attributes:
        order: Offers, best first.
        propensity: Probability to come first, for every contender; sums to 1 unless the order is empty.
        pinned: Position by offer, for pins that were granted and not moved up.
        moved: Offers that exploration moved, as (place it would have had, place it got) among scored offers, from 1.
        crowded: Offers left out by `max_per_tag`, with the tag.
        below: Offers left out by the minimum score.
    """

    order: tuple[str, ...]
    propensity: Mapping[str, float]
    pinned: Mapping[str, int]
    moved: Mapping[str, tuple[int, int]]
    crowded: Mapping[str, str]
    below: frozenset[str]


class Quotas:
    """Counts offers per tag and says which tag is full."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()

    def full(self, contender: Contender) -> str | None:
        """The first of the contender's tags with no room left, or None."""
        full = (
            tag for tag in contender.tags if tag in self._limits and self._taken[tag] >= self._limits[tag]
        )
        return next(full, None)

    def sift(self, contenders: Iterable[Contender], crowded: dict[str, str]) -> list[Contender]:
        """Contenders that would fit one by one, without taking them in; the others are noted in `crowded`."""
        fitting = []
        for contender in contenders:
            tag = self.full(contender)
            if tag is None:
                fitting.append(contender)
            else:
                crowded[contender.name] = tag
        return fitting

    def admit(self, contenders: Iterable[Contender], crowded: dict[str, str]) -> list[Contender]:
        """Take in each contender that fits, in order; the others are noted in `crowded`."""
        admitted = []
        for contender in contenders:
            for fitting in self.sift((contender,), crowded):
                self._taken.update(set(fitting.tags))
                admitted.append(fitting)
        return admitted


def arbitrate(contenders: Sequence[Contender], terms: Terms) -> Ranking:
    """Order the contenders; their own order makes no difference."""
    crowded: dict[str, str] = {}
    quotas = Quotas(terms.max_per_tag)
    granted = grant_pins(contenders)
    by_name = {contender.name: contender for contender in contenders}
    quotas.admit((by_name[granted[position]] for position in sorted(granted)), crowded)
    positions = {position: name for position, name in granted.items() if name not in crowded}
    free = [contender for contender in contenders if contender.name not in granted.values()]
    shown = quotas.admit(_shown(free), crowded)
    above, below = _scored(free, terms.minimum_score)
    scored = quotas.sift(above, crowded)
    explored = _explore(scored, terms)
    drawn = quotas.admit((scored[index] for index in explored.order), crowded)
    order = _merge(positions, [*shown, *drawn])
    return Ranking(
        order=order,
        propensity=_propensity(contenders, order, scored, explored),
        pinned={name: place for place, name in positions.items() if order[place - 1 : place] == (name,)},
        moved=_moved(scored, explored),
        crowded=crowded,
        below=below,
    )


def grant_pins(contenders: Iterable[Contender]) -> dict[int, str]:
    """Offers by position: each position and each offer once, by rank of the rule."""
    granted: dict[int, str] = {}
    wishes = [(act.rank, contender.name, act.action) for contender in contenders for act in contender.pins]
    for _, name, action in sorted(wishes, key=lambda wish: wish[:2]):
        if isinstance(action, Pin) and action.position not in granted and name not in granted.values():
            granted[action.position] = name
    return granted


def _shown(contenders: Iterable[Contender]) -> list[Contender]:
    shown = [(contender.show.rank, contender) for contender in contenders if contender.show is not None]
    return [contender for _, contender in sorted(shown, key=lambda pair: (pair[0], pair[1].name))]


def _scored(contenders: Iterable[Contender], minimum: float | None) -> tuple[list[Contender], frozenset[str]]:
    scored = sorted((c for c in contenders if c.show is None), key=lambda c: (-c.score, c.name))
    if minimum is None:
        return scored, frozenset()
    return [c for c in scored if c.score >= minimum], frozenset(c.name for c in scored if c.score < minimum)


def _explore(scored: Sequence[Contender], terms: Terms) -> Explored:
    return explore([c.name for c in scored], [c.score for c in scored], terms.explore, terms.seed)


def _merge(pins: Mapping[int, str], others: Iterable[Contender]) -> tuple[str, ...]:
    """Others in order around the pins; where they run out, the remaining pins follow by position."""
    order: list[str] = []
    queue = [contender.name for contender in reversed(list(others))]
    for position in sorted(pins):
        while len(order) < position - 1 and queue:
            order.append(queue.pop())
        order.append(pins[position])
    return (*order, *reversed(queue))


def _propensity(
    contenders: Sequence[Contender], order: Sequence[str], scored: Sequence[Contender], explored: Explored
) -> dict[str, float]:
    """All of it for a first offer that was not drawn; else what exploration gives each scored offer."""
    propensity = dict.fromkeys((contender.name for contender in contenders), 0.0)
    drawn = {c.name: p for c, p in zip(scored, explored.propensity, strict=True)}
    if order and order[0] in drawn:
        return propensity | drawn
    return propensity | dict.fromkeys(order[:1], 1.0)


def _moved(scored: Sequence[Contender], explored: Explored) -> dict[str, tuple[int, int]]:
    return {scored[was].name: (was + 1, now + 1) for now, was in enumerate(explored.order) if now != was}
