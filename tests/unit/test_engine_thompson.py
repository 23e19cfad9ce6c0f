"""Thompson sampling: what is drawn, and the probability of each offer to come first."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from decision import kernels
from decision.bundle import Bundle
from decision.errors import BundleError
from decision.frame import Frame
from decision.lang.compiler import compile_policy
from decision.policy import Exploration, Explore, Pin
from decision.record import ReasonKind
from decision.schema import FeatureRef
from decision.tables import draw_key
from tests.oracle.thompson import first_places
from tests.support.engine_world import ALL, CATALOG, ask, cap, frame, offer, rule, shown, world

SEEDS = 100_000
COUNTS = Explore(
    kind=Exploration.THOMPSON,
    top_k=4,
    successes=FeatureRef(view="popularity", feature="rank"),
    failures=FeatureRef(view="affinity", feature="shown"),
)


def chances(a: list[float], b: list[float], c: list[float]) -> NDArray[np.float64]:
    found = np.empty(len(a))
    kernels.first_places(np.array(a), np.array(b), np.array(c), found)
    return found


shapes = st.floats(math.log(0.5), math.log(1e6)).map(math.exp)
small = st.floats(math.log(0.5), math.log(30)).map(math.exp)
arm = st.tuples(
    st.one_of(shapes, small), st.one_of(shapes, small), st.sampled_from((0.25, 0.9, 1.0, 1.0, 3.0))
)


@settings(max_examples=10, deadline=None)
@given(st.lists(arm, min_size=2, max_size=8))
@example([(0.5, 0.5, 1.0)] * 8)
@example([(0.5, 1e6, 1e3), (1e6, 1e6, 1e-3)])
@example([(1e6, 1e6, 1.0), (1e6, 1e6 - 30, 1.0)])
@example([(1.0, 1.0, 0.25), (1.0, 1.0, 0.25), (403.0, 1.0, 0.25)])
@example([(1.0, 1.0, 1.0), (2.0, 3.0, 1.2), (0.5, 0.5, 0.9), (30.0, 1.5, 0.7), (3.0, 100.0, 10.0)])
def test_first_places_are_those_of_an_oracle(arms: list[tuple[float, float, float]]) -> None:
    """Within 1e-6 of a slow integration over each offer's quantiles."""
    a, b, c = (list(part) for part in zip(*arms, strict=True))
    assert np.abs(chances(a, b, c) - first_places(a, b, c)).max() < 1e-6


def test_first_places_of_known_cases() -> None:
    """Equal offers share evenly; nobody wins with a factor of 0 unless all have it, and then the first."""
    assert chances([3.0] * 5, [9.0] * 5, [2.0] * 5) == pytest.approx([0.2] * 5, abs=1e-12)
    assert chances([1.0, 2.0], [1.0, 1.0], [1.0, 1.0]) == pytest.approx([1 / 3, 2 / 3], abs=1e-9)
    assert chances([1.0, 2.0], [1.0, 1.0], [0.0, 1.0]).tolist() == [0.0, 1.0]
    assert chances([1.0, 2.0], [1.0, 1.0], [0.0, 0.0]).tolist() == [1.0, 0.0]
    assert chances([1.0, 1.0], [1.0, 1.0], [1e300, 1e-300]).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("x", [1e-9, 0.003, 0.3, 0.5, 0.7, 1 - 1e-9])
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 1.0), (2.5, 700.0), (1e6, 1e6), (40.0, 0.5)])
def test_distribution_function_is_scipys(a: float, b: float, x: float) -> None:
    """The incomplete beta function on both sides of the mean."""
    assert kernels.beta_cdf(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 1.0), (3.0, 90.0), (500.0, 2.0)])
def test_draws_follow_the_beta_distribution(a: float, b: float) -> None:
    """Kolmogorov and Smirnov do not object to 20,000 draws; seeds are fixed."""
    key = draw_key("offer")
    draws = [kernels.draw_beta(seed, key, a, b) for seed in range(20_000)]
    assert stats.kstest(draws, stats.beta(a, b).cdf).pvalue > 0.01


def firsts(bundle: Bundle, values: Frame, seeds: int) -> tuple[dict[str, int], dict[str, float]]:
    """How often each offer came first, and the propensities that the first decision gave."""
    decision = ask(bundle, values, seed=0, limit=0)
    counts = dict.fromkeys(shown(decision), 0)
    for seed in range(seeds):
        counts[shown(ask(bundle, values, seed=seed, limit=1))[0]] += 1
    return counts, {ranked.offer: ranked.propensity for ranked in decision.offers}


def test_first_places_follow_the_propensities() -> None:
    """Over 100,000 seeds each offer comes first as often as its propensity says (χ²)."""
    a, b = np.array([3.0, 2.0, 2.0, 9.0]), np.array([7.0, 3.0, 3.0, 40.0])
    factors = np.array([1.0, 0.8, 0.8, 1.5])
    keys = np.array([draw_key(name) for name in "abcd"], np.uint64)
    order, chance, drawn = np.empty(4, np.int64), np.empty(4), np.empty(4)
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    arms = list(zip(keys.tolist(), a.tolist(), b.tolist(), strict=True))
    theta = np.array([[kernels.draw_beta(seed, *arm) for arm in arms] for seed in range(SEEDS)])
    first = (theta * factors).argmax(axis=1)
    for seed in range(300):
        kernels.explore(scores, keys, kernels.THOMPSON, 4, 0.0, seed, a, b, factors, order, chance, drawn)
        assert order[0] == first[seed]
        assert drawn.tolist() == theta[seed].tolist()
    assert stats.chisquare(np.bincount(first, minlength=4), chance * SEEDS).pvalue > 0.001
    assert chance == pytest.approx(first_places(a.tolist(), b.tolist(), factors.tolist()), abs=1e-6)


def test_decisions_follow_their_propensities_among_pins_caps_and_ties() -> None:
    """Whole decisions come first as often as they say, with a pin, a capped offer and two equal ones (χ²)."""
    offers = [offer(name, value=value) for name, value in zip("abcd", (1.0, 1.0, 2.0, 5.0), strict=True)]
    bundle = world(
        [*offers, offer("p")],
        [rule("r", Pin(offer="p", position=2))],
        [cap("capped", "affinity.shown", 50)],
        explore=COUNTS,
    )
    counted = {"popularity.rank": 4, "affinity.shown": 8}
    values = frame(
        {},
        {
            "a": counted,
            "b": counted,
            "c": {"popularity.rank": 3, "affinity.shown": 20},
            "d": {"affinity.shown": 60},
        },
    )
    counts, propensity = firsts(bundle, values, 2_000)
    assert set(counts) == {"a", "b", "c", "p"}
    assert propensity["p"] == 0.0
    assert propensity["a"] == pytest.approx(propensity["b"], abs=1e-9)
    scored = ["a", "b", "c"]
    expected = np.array([propensity[name] for name in scored]) * 2_000
    assert stats.chisquare([counts[name] for name in scored], expected).pvalue > 0.001


def test_theta_takes_the_place_of_the_prediction() -> None:
    """The score is θ × value × weight × boosts, and the reasons name what was drawn, and from what."""
    bundle = world([offer("a", value=2.0, weight=0.5), offer("b")], explore=COUNTS)
    values = frame({}, {"a": {"popularity.rank": 3, "affinity.shown": 2}, "b": {"popularity.rank": -5}})
    decision = ask(bundle, values, seed=3)
    told = {
        ranked.offer: next(r.detail for r in ranked.reasons if r.kind is ReasonKind.EXPLORATION)
        for ranked in decision.offers
    }
    theta = {
        "a": kernels.draw_beta(3, draw_key("a"), 4.0, 3.0),
        "b": kernels.draw_beta(3, draw_key("b"), 1.0, 1.0),
    }
    assert {ranked.offer: ranked.score for ranked in decision.offers} == theta
    assert {ranked.prediction for ranked in decision.offers} == {None}
    assert told["a"].startswith(f"drew {theta['a']:.4g} from Beta(4, 3) in place of the prediction")
    assert "from Beta(1, 1)" in told["b"]


def test_theta_is_drawn_for_a_single_offer() -> None:
    """What an offer scores does not hang on whether another is there to compete with."""
    decision = ask(world([offer("a", value=2.0)], explore=COUNTS), seed=3)
    (alone,) = decision.offers
    assert alone.score == 2.0 * kernels.draw_beta(3, draw_key("a"), 1.0, 1.0)
    assert alone.propensity == 1.0
    assert ReasonKind.EXPLORATION in {reason.kind for reason in alone.reasons}


def test_the_best_are_explored_by_their_means() -> None:
    """Without a model the means of the distributions choose the top k, and those below keep their order."""
    how = Explore(
        kind=Exploration.THOMPSON,
        top_k=2,
        prior=(1.0, 3.0),
        successes=COUNTS.successes,
        failures=COUNTS.failures,
    )
    bundle = world([offer(name) for name in "abcd"], explore=how)
    values = frame(
        {}, {name: {"popularity.rank": rank} for name, rank in zip("abcd", (1, 90, 80, 2), strict=True)}
    )
    for seed in range(30):
        order = shown(ask(bundle, values, seed=seed))
        assert set(order[:2]) == {"b", "c"}
        assert order[2:] == ["d", "a"]


def test_thompson_takes_under_a_millisecond() -> None:
    """Eight offers' first places are worked out within a millisecond: the best of many tries."""
    a, b = (
        np.array([1.0, 2.0, 5.0, 0.5, 0.5, 1e6, 3.0, 30.0]),
        np.array([1.0, 3.0, 5.0, 0.5, 0.5, 1e6, 100.0, 1.5]),
    )
    c, found = np.array([1.0, 1.2, 1.0, 0.9, 0.9, 1.0, 10.0, 0.7]), np.empty(8)
    took = []
    for _ in range(200):
        started = time.perf_counter()
        kernels.first_places(a, b, c, found)
        took.append(time.perf_counter() - started)
    assert min(took) < 1e-3


POLICY = """placement home: candidates tagged "t"
  explore thompson successes popularity.rank failures affinity.shown prior 2, 30 over top 3
offer a (category = "a"): tags "t" value 2 weight 0.5
cap c on home: at most 3 in 7 days per customer per offer counted by affinity.shown
"""


def test_policy_text_says_thompson_weight_and_per_customer() -> None:
    """The language's words arrive in the policy."""
    policy = compile_policy({"a.policy": POLICY}, CATALOG, frozenset(), customer_key="customer_id").policy
    assert policy is not None
    assert policy.placements[0].explore == Explore(
        kind=Exploration.THOMPSON,
        top_k=3,
        prior=(2.0, 30.0),
        successes=COUNTS.successes,
        failures=COUNTS.failures,
    )
    assert (policy.offers[0].value, policy.offers[0].weight) == (2.0, 0.5)
    assert (policy.caps[0].limit, policy.caps[0].selector) == (3, None)


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ("thompson over top 3", "needs counts, a prior or both"),
        ("thompson prior 1, 1 over top 9", "from 1 to 8"),
        ("thompson prior 0.1, 1 over top 3", "a prior is from 0.5"),
        ("thompson successes segments.vip failures affinity.shown over top 3", "not a count"),
        ("thompson successes profile.nothing failures affinity.shown over top 3", "nothing"),
    ],
)
def test_compiler_refuses_what_cannot_be_drawn_from(clause: str, message: str) -> None:
    """Wrong shapes, too many offers and features that count nothing are findings."""
    text = POLICY.replace(
        "thompson successes popularity.rank failures affinity.shown prior 2, 30 over top 3", clause
    )
    found = compile_policy({"a.policy": text}, CATALOG, frozenset(), customer_key="customer_id").findings
    assert any(message in finding.message for finding in found), found


@pytest.mark.parametrize(
    "how",
    [
        Explore(kind=Exploration.THOMPSON, top_k=9),
        Explore(kind=Exploration.THOMPSON, top_k=2, prior=(0.0, 1.0)),
        Explore(kind=Exploration.THOMPSON, top_k=2, successes=COUNTS.successes),
    ],
)
def test_bundle_refuses_what_cannot_be_drawn_from(how: Explore) -> None:
    """The engine checks again what the compiler promises."""
    with pytest.raises(BundleError):
        world([offer("a")], explore=how)
    with pytest.raises(BundleError, match="negative"):
        world([offer("a", value=-1.0)], explore=COUNTS, candidates=(ALL,))
