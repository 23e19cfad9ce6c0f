from __future__ import annotations

import pytest

from decision.bundle import Bundle
from decision.engine import Request
from decision.errors import UnknownCandidateError
from decision.explain import ObstacleKind, WhyNot, describe, why_not
from decision.frame import Frame
from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Case,
    DatePart,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Negate,
    Not,
    Now,
    Or,
    Ref,
    ToFloat,
    Zone,
)
from decision.policy import Boost, Exclude, Exploration, Explore, Include, Pin, Selector, Show
from decision.schema import DType
from decision.words import failures, spell
from tests.support.engine_world import (
    ALL,
    FALSE,
    IN_VIP,
    NOW_US,
    TRUE,
    ask,
    cap,
    compare,
    frame,
    offer,
    rule,
    world,
)

RICH = compare("profile.spend", ">", 500.0)
ADULT = compare("profile.age", ">=", 18, DType.INT64)


def ask_why(bundle: Bundle, name: str, values: Frame | None = None, limit: int = 0) -> WhyNot:
    return why_not(
        bundle, Request(placement="home", customer_id="c", limit=limit), values or frame(), name, NOW_US
    )


def obstacle(
    bundle: Bundle, name: str, values: Frame | None = None, limit: int = 0
) -> tuple[ObstacleKind, str, str]:
    (only,) = ask_why(bundle, name, values, limit).obstacles
    return only.kind, only.name, only.detail


def test_why_not_of_a_shown_offer_has_no_obstacle() -> None:
    """What is in the answer has nothing in its way."""
    assert ask_why(world([offer("a")]), "a") == WhyNot(offer="a", shown=True, obstacles=(), nearest=None)


def test_why_not_names_the_part_of_the_condition_that_failed() -> None:
    """Of an offer's conjunction only the parts that are not TRUE are told, with the values they read."""
    bundle = world([offer("a", when=And(operands=(RICH, ADULT, TRUE)))])
    answer = ask_why(bundle, "a", frame({"profile.spend": 900.0}))
    assert [(found.kind, found.detail) for found in answer.obstacles] == [
        (ObstacleKind.CONDITION, "profile.age >= 18 is NULL (profile.age is NULL)")
    ]


def test_why_not_names_every_rule_that_excludes() -> None:
    """All exclusions are told at once."""
    rules = [rule("one", Exclude(selector=ALL)), rule("two", Exclude(selector=Selector(offer="a")))]
    answer = ask_why(world([offer("a")], rules), "a")
    assert [(found.kind, found.name) for found in answer.obstacles] == [
        (ObstacleKind.EXCLUDED, "one"),
        (ObstacleKind.EXCLUDED, "two"),
    ]


def test_why_not_names_the_cap_and_its_count() -> None:
    """A reached cap tells its counter."""
    bundle = world([offer("a")], caps=[cap("thrice", "affinity.shown", 3)])
    assert obstacle(bundle, "a", frame(candidates={"a": {"affinity.shown": 4}})) == (
        ObstacleKind.CAP,
        "thrice",
        "affinity.shown is 4 and at most 3 are allowed",
    )


def test_why_not_says_which_rule_would_have_added_it() -> None:
    """An offer that no rule added names the rules that could have, and what failed in them."""
    bundle = world([offer("a")], [rule("rich", Show(offer="a"), when=RICH)], candidates=())
    answer = ask_why(bundle, "a", frame({"profile.spend": 100.0}))
    assert [(found.kind, found.name) for found in answer.obstacles] == [
        (ObstacleKind.NOT_A_CANDIDATE, "home"),
        (ObstacleKind.NOT_A_CANDIDATE, "rich"),
    ]
    assert answer.obstacles[1].detail == (
        "the rule would add it, but profile.spend > 500.0 is FALSE (profile.spend is 100.0)"
    )


def test_why_not_says_that_a_rule_is_not_active() -> None:
    """A rule outside of its life is told as such."""
    bundle = world([offer("a")], [rule("later", Show(offer="a"), active_from_us=NOW_US + 1)], candidates=())
    assert "not active" in ask_why(bundle, "a").obstacles[1].detail


def test_why_not_of_an_offer_of_another_placement() -> None:
    """An offer that can never appear here does not compete."""
    bundle = world([offer("a"), offer("b")], candidates=(Selector(offer="b"),))
    assert obstacle(bundle, "a")[0] is ObstacleKind.NOT_A_CANDIDATE


def test_why_not_of_placing() -> None:
    """Eligible offers are kept out by a tag's room, the minimum score or better offers."""
    offers = [
        offer("a", value=3.0, tags=("x",)),
        offer("b", value=2.0, tags=("x",)),
        offer("c"),
        offer("d", value=0.1),
    ]
    bundle = world(offers, max_per_tag={"x": 1}, minimum_score=0.5)
    assert obstacle(bundle, "b")[:2] == (ObstacleKind.TAG_LIMIT, "x")
    assert obstacle(bundle, "d")[0] is ObstacleKind.MINIMUM_SCORE
    assert obstacle(bundle, "c", limit=1) == (
        ObstacleKind.OUTRANKED,
        "home",
        "it came 2 of 2 with score 1, and 1 are shown",
    )


def test_why_not_of_an_unknown_offer_suggests_one() -> None:
    """A name that the policy does not have is an error with the nearest one."""
    with pytest.raises(UnknownCandidateError, match="did you mean 'apple'"):
        ask_why(world([offer("apple")]), "aple")


def test_reasons_tell_every_act_in_words() -> None:
    """Each rule that acted is a reason, and says where it changed nothing."""
    rules = [
        rule("p", Pin(offer="a", position=1), priority=1),
        rule("q", Pin(offer="a", position=2), priority=2),
        rule("s", Show(offer="a"), Include(selector=ALL), Boost(selector=ALL, factor=0.5), when=IN_VIP),
    ]
    decision = ask(world([offer("a"), offer("b")], rules), frame({"segments.vip": True}))
    told = {(reason.kind.name, reason.name, reason.detail) for reason in decision.offers[1].reasons}
    assert decision.offers[1].offer == "a"
    assert told == {
        ("RULE", "p", "pins it to position 1, but another pin or too few offers moved it"),
        ("RULE", "q", "pins it to position 2"),
        ("RULE", "s", "shows it above scored offers, priority 0"),
        ("RULE", "s", "makes it eligible, as it is anyway"),
        ("RULE", "s", "multiplies its score by 0.5 (bury)"),
        ("SEGMENT", "vip", "read by s"),
        ("VALUE", "a", "value 1"),
    }


def test_exploration_is_a_reason_where_it_moved_an_offer() -> None:
    """An offer that exploration moved says from where to where."""
    how = Explore(kind=Exploration.EPSILON_GREEDY, top_k=2, parameter=1.0)
    bundle = world([offer("a", value=2.0), offer("b")], explore=how)
    moved = next(d for seed in range(99) if (d := ask(bundle, seed=seed)).offers[0].offer == "b")
    assert moved.offers[0].reasons[-1].detail == "moved it from 2 to 1 among scored offers"


def test_describe_tells_a_decision() -> None:
    """A decision reads as lines."""
    bundle = world([offer("a", when=FALSE)], fallback=("a",))
    assert describe(ask(bundle, frame({"segments.vip": True}))) == [
        "1. a, score 1, first with probability 1",
        "   fallback home: nothing else was left at home",
        "in segment vip",
        "degraded: fallback home: nothing else was left",
    ]


X = Ref(name="v.x", dtype=DType.INT64)
S = Ref(name="v.s", dtype=DType.STRING)
T = Ref(name="v.t", dtype=DType.TIMESTAMP)


def number(value: int) -> Literal:
    return Literal(value=value, dtype=DType.INT64)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (
            And(operands=(RICH, Or(operands=(ADULT, TRUE)))),
            "profile.spend > 500.0 AND (profile.age >= 18 OR TRUE)",
        ),
        (Not(operand=IsNull(operand=S)), "NOT v.s IS NULL"),
        (
            In(operand=X, items=tuple(map(number, range(100, 300)))),
            f"v.x IN ({', '.join(map(str, range(100, 300)))}"[:300] + "…",
        ),
        (Like(operand=S, pattern="a%"), 'v.s LIKE "a%"'),
        (Arithmetic(op="-", left=Now(), right=T, dtype=DType.INT64), "now() - v.t"),
        (Call(function="abs", args=(Negate(operand=X),), dtype=DType.INT64), "abs(- v.x)"),
        (ToFloat(operand=X), "v.x"),
        (DatePart(part="hour", operand=T, zone=Zone(name="UTC")), "hour(v.t)"),
        (
            Case(branches=((TRUE, X),), default=number(0), dtype=DType.INT64),
            "CASE WHEN TRUE THEN v.x ELSE 0 END",
        ),
    ],
)
def test_conditions_are_spelt(tree: Expr, text: str) -> None:
    """Every kind of node has its text."""
    assert spell(tree) == text


def test_failures_flatten_nested_conjunctions() -> None:
    """Parts of nested ANDs are told one by one; what holds is not told."""
    nested = And(operands=(TRUE, And(operands=(FALSE, RICH))))
    assert failures(nested, {"profile.spend": 1.0}, NOW_US) == (
        "FALSE is FALSE",
        "profile.spend > 500.0 is FALSE (profile.spend is 1.0)",
    )
