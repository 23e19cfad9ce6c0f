from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from decision.arbitrate import Ranking
from decision.bundle import Bundle
from decision.engine import Decision, Request, decide
from decision.frame import Frame
from decision.lang.syntax import Expr
from decision.policy import (
    Action,
    Boost,
    Exclude,
    Exploration,
    Explore,
    Include,
    Offer,
    Pin,
    Rule,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import Value
from decision.validate import check_request
from decision.weigh import Weighing, weigh
from tests.support.engine_world import (
    FALSE,
    IN_VIP,
    NOW_US,
    NULL,
    TRUE,
    cap,
    compare,
    frame,
    offer,
    rule,
    shown,
    world,
)

NAMES = tuple("abcdefg")
TAGS = ("x", "y")

names = st.sampled_from(NAMES)
selectors = st.one_of(
    names.map(lambda name: Selector(offer=name)),
    st.sampled_from(TAGS).map(lambda tag: Selector(tag=tag)),
    st.just(Selector()),
)
factors = st.floats(0.0, 10.0)
actions = st.one_of(
    names.map(lambda name: Show(offer=name)),
    st.builds(Boost, selector=selectors, factor=factors),
    st.builds(Include, selector=selectors),
    st.builds(Exclude, selector=selectors),
    st.builds(Pin, offer=names, position=st.integers(1, 9)),
    st.builds(TagDecision, name=st.sampled_from(("t", "u"))),
)
customer_conditions: st.SearchStrategy[Expr] = st.sampled_from(
    (TRUE, FALSE, NULL, IN_VIP, compare("profile.spend", ">", 50.0))
)
candidate_conditions: st.SearchStrategy[Expr] = st.sampled_from(
    (compare("affinity.spend", ">", 50.0), compare("offer.margin", "<", 0.5))
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    per_candidate = draw(st.booleans())
    return rule(
        f"r{draw(st.integers(0, 999))}",
        *draw(st.lists(actions, min_size=1, max_size=3)),
        when=draw(candidate_conditions if per_candidate else customer_conditions),
        otherwise=tuple(draw(st.lists(actions, max_size=1))),
        priority=draw(st.integers(0, 2)),
        per_candidate=per_candidate,
    )


@st.composite
def offers(draw: st.DrawFn) -> list[Offer]:
    return [
        offer(
            name,
            value=draw(st.sampled_from((0.0, 0.5, 1.0, 1.0, 2.0))),
            tags=tuple(sorted(draw(st.sets(st.sampled_from(TAGS))))),
            attributes={"margin": draw(st.sampled_from((0.1, 0.9)))},
            when=draw(st.none() | customer_conditions | candidate_conditions),
        )
        for name in NAMES
    ]


explorations = st.one_of(
    st.just(Explore()),
    st.builds(
        Explore, kind=st.just(Exploration.SOFTMAX), top_k=st.integers(1, 7), parameter=st.floats(0.01, 10.0)
    ),
    st.builds(
        Explore, kind=st.just(Exploration.EPSILON_GREEDY), top_k=st.integers(1, 7), parameter=st.floats(0, 1)
    ),
)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    return world(
        draw(offers()),
        draw(st.lists(rules(), max_size=5)),
        [cap("capped", "affinity.shown", 3)] if draw(st.booleans()) else [],
        candidates=tuple(draw(st.lists(selectors, max_size=2))),
        fallback=tuple(draw(st.lists(names, max_size=2, unique=True))),
        max_per_tag=draw(st.dictionaries(st.sampled_from(TAGS), st.integers(0, 2), max_size=2)),
        explore=draw(explorations),
        minimum_score=draw(st.none() | st.just(0.6)),
    )


amounts = st.none() | st.sampled_from((10.0, 90.0, math.nan))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    customer: dict[str, Value] = {
        "profile.spend": draw(amounts),
        "segments.vip": draw(st.none() | st.booleans()),
    }
    candidates: dict[str, dict[str, Value]] = {
        name: {"affinity.spend": draw(amounts), "affinity.shown": draw(st.none() | st.integers(0, 5))}
        for name in draw(st.lists(names, unique=True))
    }
    return frame(customer, candidates)


seeds = st.integers(0, 2**64 - 1)


def run(bundle: Bundle, values: Frame, seed: int, **parts: object) -> Decision:
    request = Request(placement="home", customer_id="c", **parts)  # type: ignore[arg-type]
    return decide(request, values, bundle, now_us=NOW_US, seed=seed)


def look(bundle: Bundle, values: Frame, seed: int) -> Weighing:
    plan = bundle.placement("home")
    request = check_request(Request(placement="home", customer_id="c"), plan)
    return weigh(request, values, plan, now_us=NOW_US, seed=seed, skip_scoring=False)


def ranking(bundle: Bundle, values: Frame, seed: int) -> Ranking:
    return look(bundle, values, seed).ranking


@given(bundles(), frames(), seeds)
def test_same_inputs_give_the_same_decision(bundle: Bundle, values: Frame, seed: int) -> None:
    """A decision is a function of its inputs, also through a bundle built anew."""
    again = Bundle.build(bundle.catalog, bundle.policy, {}, "customer_id")
    assert run(bundle, values, seed) == run(again, values, seed)


@given(bundles(), frames(), seeds, st.randoms())
def test_order_of_candidates_makes_no_difference(
    bundle: Bundle, values: Frame, seed: int, random: object
) -> None:
    """Neither the order of the request's candidates nor repeats of them change the decision."""
    plan = bundle.placement("home")
    candidates = list(plan.offer_names)
    mixed = candidates + candidates[:2]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert run(bundle, values, seed, candidates=tuple(candidates)) == run(
        bundle, values, seed, candidates=tuple(mixed)
    )


@given(bundles(), frames(), seeds)
def test_order_of_offers_in_the_file_makes_no_difference(bundle: Bundle, values: Frame, seed: int) -> None:
    """Offers declared in another order rank the same."""
    turned = replace(bundle.policy, offers=bundle.policy.offers[::-1])
    other = Bundle.build(bundle.catalog, turned, {}, "customer_id")
    assert run(bundle, values, seed).offers == run(other, values, seed).offers


@given(bundles(), frames(), seeds, names)
def test_exclude_beats_all(bundle: Bundle, values: Frame, seed: int, name: str) -> None:
    """Whatever the policy, one more rule that excludes an offer keeps it out."""
    out = rule("out", Exclude(selector=Selector(offer=name)), priority=-99)
    policy = replace(bundle.policy, rules=(*bundle.policy.rules, out))
    assert name not in shown(run(Bundle.build(bundle.catalog, policy, {}, "customer_id"), values, seed))


@given(bundles(), frames(), seeds)
def test_nothing_overrides_a_cap(bundle: Bundle, values: Frame, seed: int) -> None:
    """An offer whose counter has reached its cap is not ranked, though a rule includes, shows and pins everything."""
    acts: list[Action] = [Include(selector=Selector())]
    acts += [act for name in NAMES for act in (Show(offer=name), Pin(offer=name, position=1))]
    policy = replace(
        bundle.policy,
        rules=(*bundle.policy.rules, rule("all", *acts, priority=99)),
        caps=(cap("capped", "affinity.shown", 3),),
    )
    ranked = ranking(Bundle.build(bundle.catalog, policy, {}, "customer_id"), values, seed)
    counts = {name: row.get("affinity.shown") for name, row in values.candidates.clean_rows().items()}
    assert all((counts.get(name) or 0) < 3 for name in ranked.order)  # type: ignore[operator]


@given(bundles(), frames(), seeds)
def test_propensities_are_probabilities_of_the_first_place(bundle: Bundle, values: Frame, seed: int) -> None:
    """They sum to 1 over all contenders where any is ranked, and do not depend on the seed."""
    found = ranking(bundle, values, seed)
    assert all(0.0 <= propensity <= 1.0 for propensity in found.propensity.values())
    assert math.isclose(math.fsum(found.propensity.values()), 1.0 if found.order else 0.0, abs_tol=1e-12)
    assert found.propensity == ranking(bundle, values, seed ^ 1).propensity
    assert not found.order or found.propensity[found.order[0]] > 0.0


@given(bundles(), frames(), seeds)
def test_tags_keep_their_bound(bundle: Bundle, values: Frame, seed: int) -> None:
    """No answer holds more offers of a tag than the placement allows, and no offer twice."""
    found = ranking(bundle, values, seed)
    tags = {known.name: known.tags for known in bundle.policy.offers}
    for tag, most in bundle.placement("home").placement.max_per_tag.items():
        assert sum(tag in tags[name] for name in found.order) <= most
    assert len(set(found.order)) == len(found.order)


@given(bundles(), frames(), seeds, st.integers(1, 9))
def test_shorter_answer_is_a_prefix(bundle: Bundle, values: Frame, seed: int, limit: int) -> None:
    """The limit only cuts."""
    assert run(bundle, values, seed, limit=limit).offers == run(bundle, values, seed).offers[:limit]


@given(bundles(), frames(), seeds, names, st.floats(1.0, 100.0))
def test_boost_never_worsens_a_place(
    bundle: Bundle, values: Frame, seed: int, name: str, factor: float
) -> None:
    """Without exploration, minimum and tag bounds, a factor of at least 1 never moves an offer down."""
    (home,) = bundle.policy.placements
    plain = replace(home, explore=Explore(), max_per_tag={}, minimum_score=None)
    policy = replace(bundle.policy, placements=(plain,))
    boost = rule("more", Boost(selector=Selector(offer=name), factor=factor))
    more = replace(policy, rules=(*policy.rules, boost))
    before = ranking(Bundle.build(bundle.catalog, policy, {}, "customer_id"), values, seed).order
    after = ranking(Bundle.build(bundle.catalog, more, {}, "customer_id"), values, seed).order
    assert set(before) == set(after)
    assert name not in before or after.index(name) <= before.index(name)


@given(bundles(), frames(), seeds)
def test_eligible_offers_are_ranked_or_accounted_for(bundle: Bundle, values: Frame, seed: int) -> None:
    """An eligible offer is in the order, or a tag bound or the minimum score says why not."""
    found = look(bundle, values, seed)
    assert set(found.scores) == {*found.ranking.order, *found.ranking.crowded, *found.ranking.below}


@given(bundles(), frames(), seeds)
def test_order_is_pins_then_shown_then_scored(bundle: Bundle, values: Frame, seed: int) -> None:
    """Granted pins stand at their positions; around them shown offers by rank, then scored ones by score and name."""
    (home,) = bundle.policy.placements
    policy = replace(bundle.policy, placements=(replace(home, explore=Explore()),))
    found = look(Bundle.build(bundle.catalog, policy, {}, "customer_id"), values, seed)
    standings, order = found.assessment.standings, found.ranking.order
    for name, position in found.ranking.pinned.items():
        assert order.index(name) == position - 1
        assert position in {
            act.action.position for act in standings[name].pins if isinstance(act.action, Pin)
        }
    rest = [name for name in order if not standings[name].pins]
    shows = [name for name in rest if standings[name].shows]
    scored = rest[len(shows) :]
    assert shows == sorted(shows, key=lambda name: min(act.rank for act in standings[name].shows))
    assert scored == sorted(scored, key=lambda name: (-found.scores[name], name))
    assert rest == [*shows, *scored]
