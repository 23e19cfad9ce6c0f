"""A placement's rules, caps and tag limits as flat arrays, made when the bundle is built; `kernels` reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from decision.frame import Layout
from decision.policy import Boost, Exclude, Include, Pin, Placement, Show, TagDecision
from decision.schema import DType

if TYPE_CHECKING:
    from decision.plan import CapPlan, OfferPlan, RulePlan

BOOST: Final = 0
SHOW: Final = 1
PIN: Final = 2
INCLUDE: Final = 3
EXCLUDE: Final = 4
TAG: Final = 5
_KINDS: Final = {Boost: BOOST, Show: SHOW, Pin: PIN, Include: INCLUDE, Exclude: EXCLUDE, TagDecision: TAG}

EVER_US: Final = np.iinfo(np.int64)

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Legend: `r` rules, `a` acts, `o` offers, `c` caps; acts in file order, offers in the plan's.

    Attributes:
        rules: int64[r, 8]: per candidate, place in its program, active from and until (µs), bounds of the acts where it
            holds, bounds of those where it does not.
        acts: int64[a, 4]: kind, bounds of its targets, whether they are all offers.
        factors: float64[a], what a boost multiplies by, 1 for other acts.
        targets: int64[...], offers.
        pins: int64[p, 3], by rank: act, offer, position.
        shows: int64[s, 2], by rank: act, offer.
        when: int64[o], place of the offer's own condition among the candidates' conditions, -1 for none.
        values: float64[o].
        weights: float64[o].
        by_name: int64[o], the offers sorted by name.
        keys: uint64[o], what the offer's draws are told apart by.
        caps: int64[c, 4]: whether per candidate, column of the counter, whether it is a float, limit.
        capped: bool[c, o], whom the cap is about.
        limits: int64[t], most offers of each limited tag in one answer.
        tags: int64[o, t], the offer's limited tags in its own order, -1 from its last on.
        limited: Names of the limited tags.
    """

    rules: Int64s
    acts: Int64s
    factors: NDArray[np.float64]
    targets: Int64s
    pins: Int64s
    shows: Int64s
    when: Int64s
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    by_name: Int64s
    keys: NDArray[np.uint64]
    caps: Int64s
    capped: NDArray[np.bool_]
    limits: Int64s
    tags: Int64s
    limited: tuple[str, ...]


def tabulate(
    rules: Sequence[RulePlan],
    caps: Sequence[CapPlan],
    offers: Mapping[str, OfferPlan],
    placement: Placement,
    customer: Layout,
    candidates: Layout,
) -> Tables:
    """The arrays of a placement's parts."""
    acts = [act for rule in rules for act in (*rule.then, *rule.otherwise)]
    place = {name: number for number, name in enumerate(offers)}
    plans = list(offers.values())
    targets = [sorted(place[name] for name in act.targets) for act in acts]
    ends = np.cumsum([0, *map(len, targets)])
    ranked = sorted(range(len(acts)), key=lambda number: acts[number].rank)
    limited = tuple(placement.max_per_tag)
    return Tables(
        rules=_rules(rules),
        acts=_table(
            [
                (_KINDS[type(act.action)], ends[n], ends[n + 1], int(len(targets[n]) == len(plans)))
                for n, act in enumerate(acts)
            ],
            4,
        ),
        factors=np.array(
            [act.action.factor if isinstance(act.action, Boost) else 1.0 for act in acts], np.float64
        ),
        targets=np.array([target for each in targets for target in each], np.int64),
        pins=_table(
            [
                (number, place[action.offer], action.position)
                for number in ranked
                if isinstance(action := acts[number].action, Pin) and action.offer in place
            ],
            3,
        ),
        shows=_table(
            [
                (number, place[action.offer])
                for number in ranked
                if isinstance(action := acts[number].action, Show) and action.offer in place
            ],
            2,
        ),
        when=np.array([-1 if plan.place is None else plan.place for plan in plans], np.int64),
        values=np.array([plan.offer.value for plan in plans], np.float64),
        weights=np.array([plan.offer.weight for plan in plans], np.float64),
        by_name=np.array([place[name] for name in sorted(offers)], np.int64),
        keys=np.array([draw_key(name) for name in offers], np.uint64),
        caps=_table([_cap(cap, customer, candidates) for cap in caps], 4),
        capped=np.array([[name in cap.targets for name in offers] for cap in caps], np.bool_).reshape(
            len(caps), len(plans)
        ),
        limits=np.array(list(placement.max_per_tag.values()), np.int64),
        tags=_tags(plans, limited),
        limited=limited,
    )


def draw_key(name: str) -> int:
    """What a name's draws are told apart by: the first 8 bytes, big-endian, of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _rules(rules: Sequence[RulePlan]) -> Int64s:
    rows, act = [], 0
    for plan in rules:
        rule = plan.rule
        middle = act + len(plan.then)
        end = middle + len(plan.otherwise)
        since = EVER_US.min if rule.active_from_us is None else rule.active_from_us
        until = EVER_US.max if rule.active_until_us is None else rule.active_until_us
        rows.append((int(rule.per_candidate), plan.place, since, until, act, middle, middle, end))
        act = end
    return _table(rows, 8)


def _cap(cap: CapPlan, customer: Layout, candidates: Layout) -> tuple[int, ...]:
    layout = candidates if cap.per_candidate else customer
    column = layout.place[cap.counter]
    return int(cap.per_candidate), column, int(layout.dtypes[column] is DType.FLOAT64), cap.cap.limit


def _tags(plans: Sequence[OfferPlan], limited: Sequence[str]) -> Int64s:
    number = {tag: place for place, tag in enumerate(limited)}
    rows = np.full((len(plans), len(limited)), -1, np.int64)
    for row, plan in zip(rows, plans, strict=True):
        own = [number[tag] for tag in dict.fromkeys(plan.offer.tags) if tag in number]
        row[: len(own)] = own
    return rows


def _table(rows: Sequence[Sequence[int]], width: int) -> Int64s:
    return np.array(rows, np.int64).reshape(-1, width)
