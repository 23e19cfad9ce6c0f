"""What compiled policies contain."""

from __future__ import annotations

import pytest

from decision.lang.compiler import Compiled, compile_policy
from decision.lang.findings import render
from decision.lang.interpreter import evaluate
from decision.lang.syntax import Compare, references
from decision.policy import (
    Boost,
    Exclude,
    Exploration,
    Explore,
    Include,
    Pin,
    Policy,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import Catalog, DType, FeatureRef, Value
from tests.support.lang_world import CATALOG, SHOP

SEGMENTS = """\
segment big_spender:   purchase_history.last_month_total > 500
segment cart_abandoner "did not come back": session.last_cart_at < now() - 30 minutes
  AND session.last_cart_at > coalesce(session.last_purchase_at, epoch())
"""

BRIEF = """\
rule premium_for_spenders on home_hero priority 80:
  IF (purchase_history.last_month_total > 500 AND browsing_category = "electronics")
  THEN display_recommendation("premium_electronics")
"""


def compiled(*texts: str, **options: object) -> Policy:
    """The policy of texts that are right."""
    sources = {f"{index}.policy": text for index, text in enumerate((SEGMENTS, SHOP, *texts))}
    result = compile_policy(sources, CATALOG, **options)  # type: ignore[arg-type]
    assert result.policy is not None, render(result.findings, sources)
    return result.policy


def refused(*texts: str) -> Compiled:
    """The findings of texts that are wrong."""
    result = compile_policy(
        {f"{index}.policy": text for index, text in enumerate((SEGMENTS, SHOP, *texts))}, CATALOG
    )
    assert result.policy is None
    return result


def test_brief_rule_parses_as_it_stands() -> None:
    """The IF … THEN … form of the brief becomes a rule that shows the offer."""
    (rule,) = compiled(BRIEF).rules
    assert (rule.name, rule.placement, rule.priority) == ("premium_for_spenders", "home_hero", 80)
    assert rule.actions == (Show(offer="premium_electronics"),)
    assert not rule.per_candidate
    row: dict[str, Value] = {
        "purchase_history.last_month_total": 600.0,
        "context.browsing_category": "electronics",
    }
    assert evaluate(rule.condition, row, 0) is True
    assert evaluate(rule.condition, {**row, "purchase_history.last_month_total": 500.0}, 0) is False


def test_else_acts_on_an_action_list_of_its_own() -> None:
    """THEN and ELSE take lists of actions, of every kind."""
    (rule,) = compiled(
        'RULE r ON home_hero: IF hour_of_day > 12 THEN boost(tag "dairy", 2), bury("soft_drinks", 0.5), tag("late")'
        ' ELSE include(fluid_milk), exclude(tagged "snacks"), pin("fluid_milk", 2), show(premium_electronics)'
    ).rules
    assert rule.actions == (
        Boost(selector=Selector(tag="dairy"), factor=2.0),
        Boost(selector=Selector(offer="soft_drinks"), factor=0.5),
        TagDecision(name="late"),
    )
    assert rule.otherwise == (
        Include(selector=Selector(offer="fluid_milk")),
        Exclude(selector=Selector(tag="snacks")),
        Pin(offer="fluid_milk", position=2),
        Show(offer="premium_electronics"),
    )


def test_placement_keeps_every_clause() -> None:
    """Context, candidates, model, limits, exploration and fallback arrive as written."""
    (placement,) = compiled().placements
    assert placement.context == {"browsing_category": DType.STRING, "hour_of_day": DType.INT64}
    assert placement.candidates == (Selector(tag="category"), Selector(offer="premium_electronics"))
    assert (placement.model, placement.limit, placement.minimum_score) == ("category_affinity", 5, 0.01)
    assert placement.max_per_tag == {"snacks": 2}
    assert placement.explore == Explore(kind=Exploration.SOFTMAX, top_k=5, parameter=0.05)
    assert placement.fallback == ("soft_drinks", "fluid_milk")


def test_epsilon_exploration_parses() -> None:
    """The other form of exploration."""
    policy = compiled("placement other: explore epsilon 0.1 over top 3")
    assert policy.placements[1].explore == Explore(kind=Exploration.EPSILON_GREEDY, top_k=3, parameter=0.1)


def test_offer_keeps_keys_content_and_attributes() -> None:
    """Keys, JSON, tags, value and eligibility arrive typed; an attribute has one type in all offers."""
    drinks, _, milk = compiled().offers
    assert milk.keys == {"product_category": "FLUID MILK PRODUCTS"}
    assert milk.content == {"title": "Fresh milk", "image": "/img/milk.png"}
    assert milk.tags == ("category", "dairy")
    assert (milk.value, drinks.value) == (1.2, 1.0)
    assert (milk.attributes, drinks.attributes) == ({"margin": 0.15}, {"margin": 1.0})
    assert isinstance(drinks.attributes["margin"], float)
    assert milk.when is not None
    assert references(milk.when) == {"segments.big_spender"}


def test_segment_knows_its_entity_and_store() -> None:
    """A segment's entity is the keys of the views it reads, its store the segments view of those keys."""
    spender, abandoner = compiled().segments
    assert (spender.view, spender.join_keys) == ("segments", ("customer_id",))
    assert abandoner.description == "did not come back"
    assert references(abandoner.condition) == {"session.last_cart_at", "session.last_purchase_at"}


def test_segments_come_after_those_they_read() -> None:
    """Evaluating them in order needs no second pass."""
    policy = compiled("", "segment loyal: in_segment(big_spender) AND orders_30d > 3")
    early = compile_policy(
        {"a.policy": "segment loyal: in_segment(big_spender) AND orders_30d > 3", "b.policy": SEGMENTS},
        CATALOG,
    ).policy
    assert early is not None
    assert [segment.name for segment in policy.segments] == ["big_spender", "cart_abandoner", "loyal"]
    assert [segment.name for segment in early.segments] == ["big_spender", "loyal", "cart_abandoner"]


def test_cap_keeps_window_and_counter() -> None:
    """A cap per offer applies to every candidate, one with a selector to what it selects."""
    each, tagged, named = compiled(
        "cap a on home_hero: at most 2 in 7 days per offer counted by customer_category.impressions_7d\n"
        'cap b: at most 3 in 1 hour per tag "snacks" counted by session.views_30m\n'
        'cap c: at most 0 in 1 week per offer "fluid_milk" counted by impressions_7d'
    ).caps
    assert (each.placement, each.limit, each.window_s, each.selector) == ("home_hero", 2, 604_800, None)
    assert each.counter == FeatureRef(view="customer_category", feature="impressions_7d")
    assert (tagged.placement, tagged.window_s, tagged.selector) == (None, 3600, Selector(tag="snacks"))
    assert named.selector == Selector(offer="fluid_milk")


@pytest.mark.parametrize(
    ("condition", "per_candidate"),
    [
        ("purchase_history.orders_30d > 1", False),
        ("weather.raining", False),
        ("in_segment(big_spender) AND browsing_category = 'x' AND bucket(customer, 'a', 2) = 0", False),
        ("orders_30d > 1 AND offer.margin > 0.1", True),
        ('contains(offer.tags, "dairy")', True),
        ("customer_category.spend_30d > 5", True),
    ],
)
def test_rule_level_follows_what_it_reads(condition: str, per_candidate: bool) -> None:
    """What reads the offer, or a feature keyed by more than the customer, is evaluated per candidate."""
    (rule,) = compiled(f"rule r on home_hero: IF {condition} THEN boost(tag 'dairy', 2)").rules
    assert rule.per_candidate is per_candidate


def test_candidate_rule_may_act_on_the_candidate_itself() -> None:
    """Without a name, boost is about the candidate; in a rule on the customer that is an error."""
    (rule,) = compiled("rule r on home_hero: IF offer.margin > 0.1 THEN boost(2.0), exclude()").rules
    assert rule.actions == (Boost(selector=Selector(), factor=2.0), Exclude(selector=Selector()))
    result = refused("rule r on home_hero: IF orders_30d > 1 THEN boost(2.0)")
    assert [item.code for item in result.findings] == ["bad-argument"]


def test_active_period_is_instants() -> None:
    """FROM and UNTIL are RFC 3339 with any offset, either may be missing."""
    both, since, until = compiled(
        'rule a on home_hero when active from "1970-01-01T01:00:00+01:00" until "1970-01-01T00:00:01Z":'
        " IF hour_of_day = 1 THEN show(fluid_milk)\n"
        'rule b on home_hero priority -3 when active from "1970-01-02T00:00:00Z": IF hour_of_day = 2'
        " THEN show(fluid_milk)\n"
        'rule c on home_hero when active until "1970-01-01T00:00:02Z": IF hour_of_day = 3 THEN show(fluid_milk)\n'
    ).rules
    assert (both.active_from_us, both.active_until_us) == (0, 1_000_000)
    assert (since.active_from_us, since.active_until_us, since.priority) == (86_400_000_000, None, -3)
    assert (until.active_from_us, until.active_until_us) == (None, 2_000_000)


def test_names_like_keywords_need_no_quotes() -> None:
    """Words with a meaning in their place are names elsewhere; reserved ones are names in backticks."""
    policy = compiled(
        "placement limit: context value int64, `case` string\n"
        'rule offer on limit: IF value > 1 AND `case` = "x" THEN show(fluid_milk)\n'
    )
    assert references(policy.rules[0].condition) == {"context.value", "context.case"}


def test_source_hash_is_of_names_and_texts_alone() -> None:
    """Equal texts give equal hashes in any order of the mapping, and any change another."""
    first = compile_policy({"a.policy": SHOP, "b.policy": SEGMENTS}, CATALOG).policy
    second = compile_policy({"b.policy": SEGMENTS, "a.policy": SHOP}, CATALOG).policy
    other = compile_policy({"b.policy": SEGMENTS + "\n", "a.policy": SHOP}, CATALOG).policy
    assert first is not None
    assert second is not None
    assert other is not None
    assert first == second
    assert first.source_hash != other.source_hash


def test_customer_key_decides_the_level() -> None:
    """With another customer key, what was the customer's is the candidate's."""
    text = {
        "a.policy": "placement p: candidates o\noffer o (customer_id = 'x'):\n"
        "rule r on p: IF orders_30d > 1 THEN show(o)"
    }
    default = compile_policy(text, CATALOG).policy
    other = compile_policy(text, CATALOG, customer_key="product_category").policy
    assert default is not None
    assert other is not None
    assert (default.rules[0].per_candidate, other.rules[0].per_candidate) == (False, True)


def test_empty_policy_compiles() -> None:
    """No files, an empty file and a file of comments are policies without anything in them."""
    for sources in ({}, {"a.policy": ""}, {"a.policy": "-- nothing\n# here either\n"}):
        assert compile_policy(sources, Catalog(project="p", views=())).findings == ()


def test_spans_are_of_the_file() -> None:
    """Lines and columns count from 1 in the whole file, wherever the declaration is."""
    text = "\n\n  segment big_spender:\n\n    orders_30d\n      > 3\n"
    policy = compile_policy({"a.policy": text}, CATALOG).policy
    assert policy is not None
    (segment,) = policy.segments
    assert (segment.span.line, segment.span.column, segment.span.end_column) == (3, 11, 22)
    condition = segment.condition
    assert isinstance(condition, Compare)
    assert (condition.span.line, condition.span.column, condition.span.end_line) == (5, 5, 6)
    assert (condition.left.span.end_line, condition.left.span.end_column) == (5, 15)


def test_unchanged_declaration_moves_with_its_file() -> None:
    """A declaration parsed before keeps no memory of where it was."""
    first = compile_policy({"a.policy": SEGMENTS}, CATALOG).policy
    moved = compile_policy({"b.policy": "-- a line\n" + SEGMENTS}, CATALOG).policy
    assert first is not None
    assert moved is not None
    assert [segment.span.line for segment in first.segments] == [1, 2]
    assert [segment.span.line for segment in moved.segments] == [2, 3]
    assert moved.segments[0].span.file == "b.policy"


def test_what_an_error_leaves_is_checked_beside_it() -> None:
    """One look shows everything; only what may be missing because of the error is not said to be missing."""
    result = refused(
        "rule wrong on home_hero: IF no_such_feature > 1 THEN show(orphan)\n"
        "offer orphan:\n"
        "rule half on home_hero priority 5: IF TRUE THEN show(nobody), exclude(orphan)\n"
        "rule below on home_hero priority 1: IF session.views_30m > 5 AND session.views_30m < 3 THEN pin(orphan, 1)\n"
    )
    assert [finding.code for finding in result.findings] == [
        "unknown-feature",
        "unknown-offer",
        "always-false",
    ]


def test_a_rule_without_its_head_is_told_so() -> None:
    """The bare IF … THEN … says nothing about where it acts."""
    result = refused('offer plain:\nIF session.views_30m > 5 THEN show("plain")\n')
    assert "rule NAME on PLACEMENT" in result.findings[0].suggestion


def test_a_rule_with_a_warning_acts() -> None:
    """A tag that no offer has is worth a word, and no reason to leave the rule out."""
    policy = compiled('rule hopeful on home_hero: IF session.views_30m > 5 THEN boost(tag "nobody", 2)\n')
    assert [rule.name for rule in policy.rules] == ["hopeful"]
