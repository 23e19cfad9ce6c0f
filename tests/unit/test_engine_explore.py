from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from decision import kernels
from decision.policy import Exploration, Explore, Pin, Show
from decision.tables import draw_key
from tests.support.engine_world import ask, offer, rule, shown, world

KINDS = {
    Exploration.NONE: kernels.GREEDY,
    Exploration.EPSILON_GREEDY: kernels.EPSILON,
    Exploration.SOFTMAX: kernels.SOFTMAX,
    Exploration.THOMPSON: kernels.THOMPSON,
}
NAMES = ("a", "b", "c", "d", "e")
SCORES = (1.0, 0.9, 0.9, 0.5, 0.1)
SEEDS = 100_000
SOFTMAX = Explore(kind=Exploration.SOFTMAX, top_k=4, parameter=0.4)
EPSILON = Explore(kind=Exploration.EPSILON_GREEDY, top_k=4, parameter=0.3)

CHI2_999 = {2: 13.82, 3: 16.27, 5: 20.52}
"""Quantile 0.999 of χ² by degrees of freedom. Seeds are fixed, so these tests pass or fail for good."""


class Explored(NamedTuple):
    """Places in the greedy order, best first, and the probability of each to come first."""

    order: tuple[int, ...]
    propensity: tuple[float, ...]


@cache
def keys_of(names: tuple[str, ...]) -> NDArray[np.uint64]:
    return np.array([draw_key(name) for name in names], np.uint64)


def explore(names: tuple[str, ...], scores: tuple[float, ...], how: Explore, seed: int) -> Explored:
    """The kernel on offers in greedy order."""
    order, chance, drawn = np.empty(len(names), np.int64), np.empty(len(names)), np.empty(len(names))
    nothing = np.zeros(0)
    kernels.explore(
        np.array(scores),
        keys_of(names),
        KINDS[how.kind],
        how.top_k,
        how.parameter,
        seed,
        nothing,
        nothing,
        nothing,
        order,
        chance,
        drawn,
    )
    return Explored(tuple(order.tolist()), tuple(chance.tolist()))


def chi2(observed: list[int], expected: list[float]) -> float:
    return float(np.sum((np.array(observed) - np.array(expected)) ** 2 / np.array(expected)))


@pytest.mark.parametrize("how", [SOFTMAX, EPSILON])
def test_first_places_follow_the_propensities(how: Explore) -> None:
    """Over 100,000 seeds each offer comes first as often as its propensity says (χ²)."""
    firsts = Counter(explore(NAMES, SCORES, how, seed).order[0] for seed in range(SEEDS))
    propensity = explore(NAMES, SCORES, how, 0).propensity
    assert firsts[4] == 0
    assert propensity[4] == 0.0
    expected = [p * SEEDS for p in propensity[:4]]
    assert chi2([firsts[index] for index in range(4)], expected) < CHI2_999[3]


def test_softmax_orders_follow_plackett_luce() -> None:
    """Whole orders of the top three come up as Plackett–Luce has them (χ²)."""
    how = Explore(kind=Exploration.SOFTMAX, top_k=3, parameter=0.5)
    seen = Counter(explore(NAMES[:3], SCORES[:3], how, seed).order for seed in range(SEEDS))
    orders = list(permutations(range(3)))
    assert (
        chi2([seen[order] for order in orders], [plackett_luce(order) * SEEDS for order in orders])
        < CHI2_999[5]
    )


def plackett_luce(order: tuple[int, ...]) -> float:
    weights = [math.exp(SCORES[index] / 0.5) for index in order]
    return math.prod(weight / sum(weights[place:]) for place, weight in enumerate(weights))


def test_decisions_follow_their_propensities_among_ties_pins_and_caps_of_tags() -> None:
    """With a pin at place two that takes a tag's room, whole decisions come first as often as they say (χ²)."""
    offers = [
        offer("a", value=1.0),
        offer("b", value=1.0),
        offer("c", value=0.5),
        offer("x", value=2.0, tags=("t",)),
    ]
    pinned = offer("p", tags=("t",))
    bundle = world(
        [*offers, pinned], [rule("r", Pin(offer="p", position=2))], max_per_tag={"t": 1}, explore=SOFTMAX
    )
    decisions = [ask(bundle, seed=seed) for seed in range(20_000)]
    firsts = Counter(shown(decision)[0] for decision in decisions)
    propensity = {ranked.offer: ranked.propensity for ranked in decisions[0].offers}
    assert set(propensity) == {"a", "b", "c", "p"}
    assert propensity["p"] == 0.0
    expected = [propensity[name] * len(decisions) for name in "abc"]
    assert chi2([firsts[name] for name in "abc"], expected) < CHI2_999[2]


def test_epsilon_is_spread_over_the_top_k() -> None:
    """Each of the top k has ε/k, the greedy one 1 − ε more."""
    assert explore(NAMES, SCORES, EPSILON, 0).propensity == pytest.approx((0.775, 0.075, 0.075, 0.075, 0.0))


def test_none_is_greedy() -> None:
    """Without exploration the order stays and its first has probability 1."""
    explored = explore(NAMES, SCORES, Explore(top_k=5), 7)
    assert explored.order == (0, 1, 2, 3, 4)
    assert explored.propensity == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_shown_offers_are_not_explored() -> None:
    """An offer that a rule shows first is first under every seed."""
    bundle = world([offer(name) for name in NAMES], [rule("r", Show(offer="e"))], explore=SOFTMAX)
    assert {shown(ask(bundle, seed=seed))[0] for seed in range(50)} == {"e"}


def test_extreme_scores_explore_without_error() -> None:
    """Scores at the ends of float64 give propensities that sum to 1."""
    explored = explore(
        ("a", "b"), (1.7e308, -1.7e308), Explore(kind=Exploration.SOFTMAX, top_k=2, parameter=1e-9), 3
    )
    assert explored.propensity == (1.0, 0.0)
    assert explored.order == (0, 1)


def test_draws_are_uniform_and_open() -> None:
    """Draws lie strictly within (0, 1) and fill ten bins evenly (χ²)."""
    draws = [kernels.draw(seed, draw_key("é"), kernels.OFFER) for seed in range(20_000)]
    assert 0.0 < min(draws) < max(draws) < 1.0
    observed = np.bincount([int(value * 10) for value in draws], minlength=10)
    assert chi2(list(observed), [2000.0] * 10) < 27.88


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_draws_are_philox(seed: int) -> None:
    """Random words are those of NumPy's Philox4x64-10, which counts one up before its first block."""
    for key, stream, index in ((1, 0, 0), (draw_key("a"), 1, 5), (2**64 - 1, 3, 999)):
        theirs = np.random.Philox(
            counter=np.array([key - 1, index, stream, 0], np.uint64), key=np.array([seed, 0], np.uint64)
        ).random_raw(4)
        assert kernels.philox(seed, key, stream, index) == tuple(theirs.tolist())


def test_draws_are_pinned() -> None:
    """A draw is part of the record's meaning: these values must never change."""
    assert draw_key("a") == 0xCA978112CA1BBDCA
    assert kernels.draw(0, draw_key("a"), kernels.OFFER) == 0.7144865437464974
    assert kernels.draw(2**64 - 1, 0, kernels.COIN) == 0.9833383464769775
