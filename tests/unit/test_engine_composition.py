from __future__ import annotations

from dataclasses import replace

import pytest

from decision.engine import Degradation, DegradationKind, ReasonKind, Request, decide
from decision.frame import Block, Frame
from decision.lang.syntax import Expr
from decision.policy import (
    Boost,
    Exclude,
    Exploration,
    Explore,
    Include,
    Pin,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import DType, Status
from tests.support.engine_world import (
    ALL,
    FALSE,
    HOUR_US,
    IN_VIP,
    NOW_US,
    NULL,
    ask,
    block,
    cap,
    cells,
    compare,
    frame,
    offer,
    rule,
    shown,
    world,
)

A, B, C, D = (offer(name, value=value) for name, value in zip("abcd", (4.0, 3.0, 2.0, 1.0), strict=True))


def named(name: str) -> Selector:
    return Selector(offer=name)


def test_ranking_follows_value() -> None:
    """Without model and rules the score is the offer's value."""
    decision = ask(world([C, A, B]))
    assert shown(decision) == ["a", "b", "c"]
    assert [ranked.score for ranked in decision.offers] == [4.0, 3.0, 2.0]
    assert [ranked.propensity for ranked in decision.offers] == [1.0, 0.0, 0.0]


def test_ranking_breaks_ties_by_name() -> None:
    """Equal scores are ordered by offer name, whatever the file order."""
    assert shown(ask(world([offer("z"), offer("m"), offer("b")]))) == ["b", "m", "z"]


def test_boosts_multiply() -> None:
    """Factors of several rules multiply."""
    rules = [rule("r", Boost(selector=named("b"), factor=2.0)), rule("s", Boost(selector=ALL, factor=0.5))]
    decision = ask(world([A, B], rules))
    assert [(ranked.offer, ranked.score) for ranked in decision.offers] == [("b", 3.0), ("a", 2.0)]


def test_boost_by_tag_hits_only_tagged_offers() -> None:
    """A tag selector is about the offers that carry it."""
    offers = [offer("a"), offer("b", tags=("new",))]
    decision = ask(world(offers, [rule("r", Boost(selector=Selector(tag="new"), factor=2.0))]))
    assert shown(decision) == ["b", "a"]


@pytest.mark.parametrize("condition", [FALSE, NULL])
def test_otherwise_acts_on_false_and_null(condition: Expr) -> None:
    """ELSE acts where the condition is FALSE or NULL."""
    bundle = world(
        [A], [rule("r", TagDecision(name="yes"), when=condition, otherwise=(TagDecision(name="no"),))]
    )
    assert ask(bundle).tags == ("no",)


@pytest.mark.parametrize(
    ("start", "end", "acts"),
    [
        (None, None, True),
        (NOW_US, None, True),
        (NOW_US + 1, None, False),
        (None, NOW_US, False),
        (None, NOW_US + 1, True),
    ],
)
def test_rule_acts_within_its_life(start: int | None, end: int | None, acts: bool) -> None:
    """A rule lives in [from, until); outside of it neither branch acts."""
    either = rule("r", TagDecision(name="yes"), otherwise=(TagDecision(name="no"),))
    bundle = world([A], [replace(either, active_from_us=start, active_until_us=end)])
    assert ask(bundle).tags == (("yes",) if acts else ())


def test_exclude_beats_include_show_and_pin() -> None:
    """An excluded offer is not shown, whatever other rules say."""
    rules = [
        rule("in", Include(selector=named("a")), Show(offer="a"), Pin(offer="a", position=1), priority=100),
        rule("out", Exclude(selector=named("a")), priority=-1),
    ]
    assert shown(ask(world([A, B], rules))) == ["b"]


@pytest.mark.parametrize("condition", [FALSE, NULL])
def test_offer_condition_must_be_true(condition: Expr) -> None:
    """An offer whose condition is FALSE or NULL is not eligible."""
    assert shown(ask(world([offer("a", when=condition), B]))) == ["b"]


def test_include_overrides_the_offer_condition() -> None:
    """Include makes an offer eligible against its own condition."""
    bundle = world([offer("a", when=FALSE)], [rule("r", Include(selector=named("a")))])
    assert shown(ask(bundle)) == ["a"]


def test_show_does_not_override_the_offer_condition() -> None:
    """Showing adds to the candidates, but does not make eligible."""
    assert shown(ask(world([offer("a", when=FALSE), B], [rule("r", Show(offer="a"))]))) == ["b"]


def test_show_adds_an_offer_above_scored_ones() -> None:
    """A shown offer competes though the placement does not list it, and comes before better scored ones."""
    bundle = world([A, B, D], [rule("r", Show(offer="d"))], candidates=(named("a"), named("b")))
    decision = ask(bundle)
    assert shown(decision) == ["d", "a", "b"]
    assert decision.offers[0].propensity == 1.0


def test_shown_offers_follow_priority_then_file_order() -> None:
    """Of several shown offers the highest priority comes first, then the earlier rule, then the earlier action."""
    rules = [
        rule("low", Show(offer="a"), priority=1),
        rule("first", Show(offer="d"), Show(offer="c"), priority=5),
        rule("second", Show(offer="b"), priority=5),
    ]
    assert shown(ask(world([A, B, C, D], rules))) == ["d", "c", "b", "a"]


def test_show_stands_though_the_request_names_other_candidates() -> None:
    """A rule adds its offer to whatever the request asks about."""
    bundle = world([A, B, C], [rule("r", Show(offer="c"))])
    assert shown(ask(bundle, candidates=("b",))) == ["c", "b"]


def test_request_candidates_restrict() -> None:
    """Only named candidates compete."""
    assert shown(ask(world([A, B, C]), candidates=("c", "b", "c"))) == ["b", "c"]


def test_pin_takes_its_position() -> None:
    """A pinned offer stands where the rule says, others fill in around it."""
    decision = ask(world([A, B, C, D], [rule("r", Pin(offer="d", position=2))]))
    assert shown(decision) == ["a", "d", "b", "c"]


def test_pin_moves_up_where_too_few_are_left() -> None:
    """A pin beyond the end takes the last place."""
    assert shown(ask(world([A, B, C], [rule("r", Pin(offer="a", position=9))]))) == ["b", "c", "a"]


def test_pin_comes_before_shown_offers() -> None:
    """A pin to the first position beats a shown offer."""
    rules = [rule("s", Show(offer="b"), priority=9), rule("p", Pin(offer="d", position=1), priority=1)]
    decision = ask(world([A, B, D], rules))
    assert shown(decision) == ["d", "b", "a"]
    assert decision.offers[0].propensity == 1.0


def test_contested_position_goes_to_priority_then_file_order() -> None:
    """Of two offers pinned to one position the higher priority wins; the loser competes by score."""
    rules = [
        rule("r", Pin(offer="c", position=1), priority=1),
        rule("s", Pin(offer="d", position=1), priority=2),
        rule("t", Pin(offer="b", position=2), priority=2),
        rule("u", Pin(offer="a", position=2), priority=2),
    ]
    assert shown(ask(world([A, B, C, D], rules))) == ["d", "b", "a", "c"]


def test_offer_pinned_twice_takes_the_higher_priority() -> None:
    """An offer has one position."""
    rules = [
        rule("r", Pin(offer="d", position=1), priority=1),
        rule("s", Pin(offer="d", position=2), priority=2),
    ]
    assert shown(ask(world([A, D], rules))) == ["a", "d"]


def test_ineligible_pin_leaves_its_position_to_others() -> None:
    """A pin of an ineligible offer does not contest."""
    rules = [
        rule("r", Pin(offer="d", position=1), priority=9),
        rule("s", Pin(offer="c", position=1), priority=1),
    ]
    assert shown(ask(world([A, C, offer("d", when=FALSE)], rules))) == ["c", "a"]


def test_per_candidate_rule_acts_on_that_candidate_alone() -> None:
    """A rule that reads a candidate's feature boosts only where it holds."""
    hot = compare("affinity.spend", ">", 10.0)
    bundle = world([A, D], [rule("r", Boost(selector=ALL, factor=10.0), when=hot, per_candidate=True)])
    values = frame(candidates={"a": {"affinity.spend": 1.0}, "d": {"affinity.spend": 20.0}})
    assert [(ranked.offer, ranked.score) for ranked in ask(bundle, values).offers] == [
        ("d", 10.0),
        ("a", 4.0),
    ]


def test_per_candidate_rule_reads_offer_attributes() -> None:
    """`offer.NAME` is the candidate's own constant."""
    offers = [offer("a", attributes={"margin": 0.1}), offer("b", attributes={"margin": 0.9})]
    thin = compare("offer.margin", "<", 0.5)
    bundle = world(offers, [rule("r", Exclude(selector=ALL), when=thin, per_candidate=True)])
    assert shown(ask(bundle)) == ["b"]


def test_per_candidate_tag_needs_a_competing_candidate() -> None:
    """A decision tag of a per-candidate rule counts once, and only for offers that compete."""
    tagging = rule("r", TagDecision(name="t"), when=compare("affinity.spend", ">", 1.0), per_candidate=True)
    bundle = world([A, B], [tagging])
    values = frame(candidates={"a": {"affinity.spend": 0.0}, "b": {"affinity.spend": 2.0}})
    assert ask(bundle, values).tags == ("t",)
    assert ask(bundle, values, candidates=("a",)).tags == ()


def test_rules_read_context() -> None:
    """A condition on declared context holds for the request's value and is NULL without one."""
    bundle = world(
        [A], [rule("r", TagDecision(name="t"), when=compare("context.page", "=", "tv", DType.STRING))]
    )
    assert ask(bundle, context={"page": "tv"}).tags == ("t",)
    assert ask(bundle).tags == ()


def test_cap_keeps_an_offer_out_even_if_included() -> None:
    """An offer whose counter has reached the cap is not shown, not even by include, show or pin."""
    rules = [rule("r", Include(selector=named("a")), Show(offer="a"), Pin(offer="a", position=1))]
    bundle = world([A, B], rules, [cap("thrice", "affinity.shown", 3)])
    values = frame(candidates={"a": {"affinity.shown": 3}, "b": {"affinity.shown": 2}})
    assert shown(ask(bundle, values)) == ["b"]


def test_customer_level_cap_counts_for_its_selector() -> None:
    """A counter of the customer caps the offers that the selector is about."""
    bundle = world(
        [offer("a", tags=("ad",)), offer("b")], caps=[cap("ads", "profile.shown", 2, Selector(tag="ad"))]
    )
    assert shown(ask(bundle, frame({"profile.shown": 2}))) == ["b"]
    assert shown(ask(bundle, frame({"profile.shown": 1}))) == ["a", "b"]


def test_cap_without_counter_has_counted_nothing() -> None:
    """A counter that is not stored does not cap."""
    assert shown(ask(world([A], caps=[cap("c", "profile.shown", 1)]))) == ["a"]


@pytest.mark.parametrize("counter", ["profile.shown", "affinity.shown", "profile.spend"])
def test_cap_of_none_shows_nothing(counter: str) -> None:
    """Nothing counted is as much as a cap of 0 allows, also where no counter is stored."""
    bundle = world([A], caps=[cap("c", counter, 0)])
    assert shown(ask(bundle)) == []
    assert shown(ask(bundle, frame({"profile.shown": -1}))) == (["a"] if counter == "profile.shown" else [])


def test_max_per_tag_leaves_out_the_worse() -> None:
    """At most k offers of a tag are shown, the best ones."""
    offers = [
        offer(name, value=value, tags=("x",)) for name, value in zip("abc", (3.0, 2.0, 1.0), strict=True)
    ]
    assert shown(ask(world([*offers, D], max_per_tag={"x": 2}))) == ["a", "b", "d"]


def test_max_per_tag_counts_pins_first() -> None:
    """A pin at a later position takes its tag's room, so that better scored offers of the tag are out."""
    offers = [offer("a", value=9.0, tags=("x",)), offer("b", tags=("x",)), offer("c")]
    decision = ask(world(offers, [rule("r", Pin(offer="b", position=2))], max_per_tag={"x": 1}))
    assert shown(decision) == ["c", "b"]
    assert decision.offers[0].propensity == 1.0


def test_limit_cuts_the_order() -> None:
    """A shorter answer is a prefix of a longer one."""
    bundle = world([A, B, C, D], limit=3)
    assert shown(ask(bundle)) == ["a", "b", "c"]
    assert shown(ask(bundle, limit=2)) == ["a", "b"]


def test_minimum_score_drops_scored_offers_only() -> None:
    """Offers below the minimum are out unless a rule shows or pins them."""
    rules = [rule("r", Show(offer="d"))]
    assert shown(ask(world([A, B, C, D], rules, minimum_score=3.0))) == ["d", "a", "b"]


def test_fallback_answers_where_nothing_is_left() -> None:
    """The fallback shows in its order, marked, whatever its own condition says."""
    bundle = world([A, offer("x", when=FALSE), offer("y")], candidates=(), fallback=("y", "x"))
    decision = ask(bundle)
    assert shown(decision) == ["y", "x"]
    assert [ranked.propensity for ranked in decision.offers] == [1.0, 0.0]
    assert decision.offers[0].reasons[0].kind is ReasonKind.FALLBACK
    assert [d.kind for d in decision.degraded] == [DegradationKind.FALLBACK]


def test_fallback_keeps_to_exclusions() -> None:
    """Exclude beats the fallback too."""
    rules = [rule("r", Exclude(selector=ALL))]
    assert shown(ask(world([A, B], rules, fallback=("a",)))) == []
    partly = [rule("r", Exclude(selector=named("a")))]
    assert shown(ask(world([A, B], partly, candidates=(named("a"),), fallback=("a", "b")))) == ["b"]


def test_missing_model_scores_by_value_and_says_so() -> None:
    """A placement whose model is not loaded ranks by value × boosts, without exploration, degraded."""
    how = Explore(kind=Exploration.SOFTMAX, top_k=2, parameter=1e9)
    bundle = world([A, B], model="m", explore=how, minimum_score=100.0)
    decisions = [ask(bundle, seed=seed) for seed in range(10)]
    assert {tuple(shown(decision)) for decision in decisions} == {("a", "b")}
    assert decisions[0].offers[0].prediction is None
    assert decisions[0].model_version == ""
    assert [d.kind for d in decisions[0].degraded] == [DegradationKind.MODEL_ABSENT]


def test_unknown_customer_is_marked_and_still_decided() -> None:
    """Where nothing is stored under the customer's key the answer comes from defaults and rules, and says so."""
    nothing = (None, Status.NOT_FOUND, 0)
    missing = cells("c", {"profile.age": nothing, "segments.vip": nothing})
    decision = ask(world([A]), Frame(customer=missing, candidates=Block.empty(("a",))))
    assert shown(decision) == ["a"]
    assert [d.kind for d in decision.degraded] == [DegradationKind.UNKNOWN_CUSTOMER]
    assert {age.view: age.age_us for age in decision.feature_ages} == {"profile": None, "segments": None}


def test_stale_values_are_used_and_named() -> None:
    """A STALE value decides, and its view is listed as degraded."""
    stale = cells("c", {"profile.spend": (900.0, Status.STALE, NOW_US - 5)})
    bundle = world([A], [rule("r", TagDecision(name="t"), when=compare("profile.spend", ">", 500.0))])
    decision = ask(bundle, Frame(customer=stale, candidates=Block.empty(())))
    assert decision.tags == ("t",)
    assert [(d.kind, d.name) for d in decision.degraded] == [(DegradationKind.STALE_FEATURES, "profile")]
    assert [(age.view, age.age_us) for age in decision.feature_ages] == [("profile", 5)]


@pytest.mark.parametrize("status", [Status.NULL, Status.NOT_FOUND, Status.TIMEOUT])
def test_only_present_and_stale_cells_carry_a_value(status: Status) -> None:
    """A value under any other status reads as NULL, and so does a NaN."""
    over = rule("r", TagDecision(name="t"), when=compare("profile.spend", ">", 500.0))
    customer = cells("c", {"profile.spend": (900.0, status, 1)})
    assert ask(world([A], [over]), Frame(customer=customer, candidates=Block.empty(()))).tags == ()
    assert ask(world([A], [over]), frame({"profile.spend": float("nan")})).tags == ()


def test_given_degradations_come_first_and_once() -> None:
    """What was taken before deciding is repeated in the answer."""
    taken = Degradation(kind=DegradationKind.STORE_TIMEOUT, name="store")
    decision = decide(
        Request(placement="home", customer_id="c"),
        frame(),
        world([A]),
        now_us=NOW_US,
        seed=0,
        degraded=(taken, taken),
    )
    assert decision.degraded == (taken,)


def test_segments_are_the_stored_memberships() -> None:
    """The decision names the segments the customer is stored to be in, and rules that read them name them too."""
    bundle = world([A], [rule("r", Boost(selector=ALL, factor=2.0), when=IN_VIP)])
    decision = ask(bundle, frame({"segments.vip": True}))
    assert decision.segments == ("vip",)
    assert ("SEGMENT", "vip") in {(reason.kind.name, reason.name) for reason in decision.offers[0].reasons}
    assert ask(bundle, frame({"segments.vip": False})).segments == ()


def test_feature_age_is_the_newest_of_its_view() -> None:
    """The age of a view counts from the newest event time read of it, in either block."""
    values = Frame(customer=block({"": {"profile.age": 3}}), candidates=block({"a": {"affinity.spend": 1.0}}))
    ages = {age.view: age.age_us for age in ask(world([A]), values).feature_ages}
    assert ages == {"profile": HOUR_US, "affinity": HOUR_US}


def test_scores_stay_finite() -> None:
    """Boosts cannot overflow a score."""
    rules = [rule(f"r{i}", Boost(selector=ALL, factor=1e300)) for i in range(3)]
    rules.append(rule("zero", Boost(selector=named("b"), factor=0.0)))
    decision = ask(world([A, B], rules))
    assert [ranked.score for ranked in decision.offers] == [pytest.approx(1.797e308, rel=1e-3), 0.0]
