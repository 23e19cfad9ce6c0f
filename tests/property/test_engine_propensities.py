"""Whole decisions over 100,000 seeds: each offer comes first as often as every answer says (χ²)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from decision.policy import Boost, Exclude, Exploration, Explore, Pin, Selector
from decision.schema import FeatureRef
from tests.support.engine_world import ask, cap, compare, frame, offer, rule, world
from tests.support.reported import REPORTED

SEEDS = 100_000
LEAST_P = 0.001
"""Seeds are fixed, so these tests pass or fail for good."""

OFFERS = (
    offer("a", value=1.0),
    offer("b", value=1.0),
    offer("c", value=0.4),
    offer("below top", value=0.3),
    offer("poor", value=0.01),
    offer("crowded", value=5.0, tags=("t",)),
    offer("pinned", value=0.5, tags=("t",)),
    offer("capped", value=9.0),
    offer("excluded", value=9.0),
)
RULES = (
    rule("pin", Pin(offer="pinned", position=2)),
    rule("out", Exclude(selector=Selector(offer="excluded"))),
    rule(
        "lift",
        Boost(selector=Selector(offer="c"), factor=2.0),
        when=compare("affinity.spend", ">", 10.0),
        per_candidate=True,
    ),
)
VALUES = frame(
    {},
    {
        "a": {"popularity.rank": 4, "affinity.shown": 8},
        "b": {"popularity.rank": 4, "affinity.shown": 8},
        "c": {"popularity.rank": 3, "affinity.shown": 5, "affinity.spend": 20.0},
        "capped": {"popularity.rank": 50, "affinity.shown": 60},
    },
)
HOWS = {
    "softmax": Explore(kind=Exploration.SOFTMAX, top_k=3, parameter=0.3),
    "epsilon": Explore(kind=Exploration.EPSILON_GREEDY, top_k=3, parameter=0.3),
    "thompson": Explore(
        kind=Exploration.THOMPSON,
        top_k=3,
        prior=(2.0, 3.0),
        successes=FeatureRef(view="popularity", feature="rank"),
        failures=FeatureRef(view="affinity", feature="shown"),
    ),
}
Reporter = Callable[[str, object], None]


@dataclass(frozen=True)
class Seen:
    """What came of all seeds.

    Attributes:
        orders: How often each order came up.
        propensity: What every answer said, by offer.
    """

    orders: Counter[tuple[str, ...]]
    propensity: dict[str, float]

    def firsts(self) -> Counter[str]:
        """How often each offer came first."""
        counts: Counter[str] = Counter()
        for order, count in self.orders.items():
            counts[order[0]] += count
        return counts


def decide_all(how: Explore) -> Seen:
    """Ask under every seed; an offer's propensity is the same in all answers."""
    bundle = world(
        OFFERS,
        RULES,
        [cap("shown", "affinity.shown", 50)],
        max_per_tag={"t": 1},
        minimum_score=0.05,
        explore=how,
    )
    orders: Counter[tuple[str, ...]] = Counter()
    propensity: dict[str, float] = {}
    for seed in range(SEEDS):
        ranked = ask(bundle, VALUES, seed=seed).offers
        orders[tuple(each.offer for each in ranked)] += 1
        for each in ranked:
            assert propensity.setdefault(each.offer, each.propensity) == each.propensity
    return Seen(orders, propensity)


def p_of(counts: list[int], chances: list[float]) -> float:
    return float(stats.chisquare(counts, np.array(chances) * sum(counts)).pvalue)


@pytest.mark.soak
@pytest.mark.parametrize("name", HOWS)
def test_first_places_are_as_often_as_answers_say(name: str, record_property: Reporter) -> None:
    """With ties, a pin that takes a tag's room, a cap, an exclusion, a minimum and offers below the top k."""
    seen = decide_all(HOWS[name])
    counts, explored = seen.firsts(), ["a", "b", "c"]
    never = {"below top", "pinned"}
    assert seen.propensity.keys() == {*explored, *never}
    assert {each: seen.propensity[each] for each in never} == dict.fromkeys(never, 0.0)
    assert counts.keys() == set(explored)
    assert sum(seen.propensity.values()) == pytest.approx(1.0, abs=1e-9)
    p = p_of([counts[each] for each in explored], [seen.propensity[each] for each in explored])
    told = ", ".join(f"{each} {counts[each]} for {seen.propensity[each] * SEEDS:.0f}" for each in explored)
    record_property(REPORTED, [f"{name}: {told}; p = {p:.3f}"])
    assert p > LEAST_P


@pytest.mark.soak
def test_whole_orders_follow_plackett_luce(record_property: Reporter) -> None:
    """Softmax orders all of the top k by what is left, around a pin at place two."""
    scores = {"a": 1.0, "b": 1.0, "c": 0.8}
    weights = {each: np.exp(score / HOWS["softmax"].parameter) for each, score in scores.items()}
    seen = decide_all(HOWS["softmax"])
    chances = []
    for order in seen.orders:
        assert (order[1], order[-1]) == ("pinned", "below top")
        free = [each for each in order if each in weights]
        left = [sum(weights[each] for each in free[place:]) for place in range(len(free))]
        chances.append(float(np.prod([weights[each] / rest for each, rest in zip(free, left, strict=True)])))
    assert len(seen.orders) == 6
    p = p_of(list(seen.orders.values()), chances)
    record_property(REPORTED, [f"six orders: p = {p:.3f}"])
    assert p > LEAST_P
