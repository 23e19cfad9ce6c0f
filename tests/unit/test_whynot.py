"""The smallest change: which values are proposed, which of equal changes wins, and where the search ends."""

from __future__ import annotations

import math
import time

import pytest

from decision.bundle import Bundle
from decision.engine import Request
from decision.explain import why_not
from decision.frame import Frame
from decision.lang.compiler import compile_policy
from decision.lang.findings import render
from decision.lang.values import like
from decision.schema import DType, ValueType
from decision.whynot.lattice import lattice_of
from decision.whynot.nearest import Nearest
from decision.whynot.texts import texts_for
from tests.support.engine_world import CATALOG, NOW_US, frame

PLACEMENT = """
placement home:
  context page string, basket float64, code string
  candidates a
  changeable page, basket, profile.age, profile.spend, profile.last_at, segments.vip, affinity.shown, code
segment vip: profile.spend > 1
"""


def bundle(text: str) -> Bundle:
    """A bundle of the placement and more text."""
    sources = {"a.policy": PLACEMENT + text}
    compiled = compile_policy(sources, CATALOG)
    assert compiled.policy is not None, render(compiled.findings, sources)
    return Bundle.build(CATALOG, compiled.policy, {}, "customer_id")


def ask(text: str, values: Frame | None = None, **context: str | float | None) -> Nearest:
    """The smallest change that makes `a` eligible."""
    request = Request(placement="home", customer_id="c", context=context)
    nearest = why_not(bundle(text), request, values or frame(), "a", NOW_US).nearest
    assert nearest is not None
    return nearest


def changes(nearest: Nearest) -> dict[str, object]:
    """New values by name."""
    return {change.name: change.after for change in nearest.changes}


def when(condition: str) -> str:
    """An offer with a condition."""
    return f'offer a (category = "a"):\n  when {condition}\n'


@pytest.mark.parametrize(
    ("condition", "before", "name", "after"),
    [
        ("profile.spend > 500", 100.0, "profile.spend", 500.1),
        ("profile.spend >= 500", 100.0, "profile.spend", 500.0),
        ("profile.spend < 0.85", 100.0, "profile.spend", 0.8499),
        ("profile.spend > 500 AND profile.spend < 500.00001", 1.0, "profile.spend", 500.000001),
        ("profile.spend > 1e300 AND profile.spend < 1e301", 1.0, "profile.spend", 1.001e300),
        ("profile.spend IS NULL", 100.0, "profile.spend", None),
        ("profile.spend IS NOT NULL", None, "profile.spend", 0.0),
        ("profile.age + 1 > 18", 3, "profile.age", 18),
        ("10 - profile.age >= 4", 9, "profile.age", 6),
        ("profile.age > 17.5", 3, "profile.age", 18),
        ("coalesce(profile.age, 40) < 30", None, "profile.age", 0),
        ("profile.age > 9007199254740992.0", 1, "profile.age", 2**53 + 2),
        ("profile.age NOT IN (3, 4, 5)", 4, "profile.age", 6),
        ("least(profile.age, 3) = 3", 1, "profile.age", 3),
        ("-profile.age > 3", 5, "profile.age", -4),
        ("now() - profile.last_at < 2 hours", NOW_US - 10**12, "profile.last_at", NOW_US - 7_199 * 10**6),
        ("profile.last_at > now()", None, "profile.last_at", NOW_US + 10**6),
        ("in_segment(vip)", False, "segments.vip", True),
        ("NOT in_segment(vip)", None, "segments.vip", False),
    ],
)
def test_nearest_value_that_does_is_proposed(condition: str, before: float, name: str, after: float) -> None:
    """One input is changed to the nearest value beyond the constant: short floats, whole seconds."""
    nearest = ask(when(condition), frame({name: before}))
    assert changes(nearest) == {name: after}
    assert (nearest.exact, nearest.note, nearest.place) == (True, "", 1)


@pytest.mark.parametrize(
    ("condition", "after", "such_as"),
    [
        ('page = "shoes"', "shoes", False),
        ('page IN ("shoes", "hats")', "hats", False),
        ('page <> "x"', "other", True),
        ('page NOT IN ("x", "other")', "other 2", True),
        ('page LIKE "sale%"', "sale", True),
        ('page LIKE "%a_c%" AND page NOT LIKE "a%"', "aaac", True),
    ],
)
def test_texts_are_proposed_from_the_policy_or_made_up(condition: str, after: str, such_as: bool) -> None:
    """A text that the policy names is told as it is, another as an example of its kind."""
    nearest = ask(when(condition), page="x")
    (change,) = nearest.changes
    assert (change.before, change.such_as) == ("x", such_as)
    assert isinstance(change.after, str)
    assert change.after == after or (condition.startswith("page LIKE") and like(change.after, "%a_c%"))


def test_fewer_changes_beat_nearer_ones() -> None:
    """One far change wins over two near ones."""
    nearest = ask(
        when("(profile.age >= 4 AND basket >= 4) OR profile.spend > 1e9"),
        frame({"profile.age": 3}),
        basket=3.9,
    )
    assert changes(nearest) == {"profile.spend": 1.001e9}


def test_of_equally_many_changes_the_nearest_wins_then_the_declared_order() -> None:
    """Distance decides between one change and another, and where it is equal the order of `changeable`."""
    values = frame({"profile.age": 10, "profile.spend": 10.0})
    assert changes(ask(when("profile.age >= 20 OR profile.spend >= 12"), values)) == {"profile.spend": 12.0}
    assert changes(ask(when("profile.age >= 20 OR profile.spend >= 20"), values)) == {"profile.age": 20}
    assert changes(ask(when('code = "a" OR page = "a"'), page="x", code="x")) == {"context.page": "a"}


def test_caps_and_rules_count() -> None:
    """A counter is brought below its cap and an exclusion is lifted, both at once."""
    text = (
        'offer a (category = "a"):\n'
        "cap thrice on home: at most 3 in 7 days per offer counted by affinity.shown\n"
        'rule no on home: IF basket > 100 THEN exclude("a")\n'
    )
    nearest = ask(text, frame(candidates={"a": {"affinity.shown": 4}}), basket=120.0)
    assert changes(nearest) == {"context.basket": 100.0, "affinity.shown": 2}


def test_a_cap_of_none_is_not_got_round_by_null() -> None:
    """A counter that is NULL has counted nothing, and reaches a cap of 0."""
    text = (
        'offer a (category = "a"):\n'
        "cap never on home: at most 0 in 7 days per offer counted by affinity.shown\n"
    )
    nearest = ask(text, frame(candidates={"a": {"affinity.shown": 4}}))
    assert changes(nearest) == {"affinity.shown": -1}


def test_four_changes_are_too_many() -> None:
    """What would take more than three is none found, and exactly so."""
    nearest = ask(when('page = "p" AND basket > 1 AND profile.age > 1 AND code = "c"'))
    assert (nearest.changes, nearest.exact) == ((), True)
    assert nearest.note == "none found: no change of up to 3 of 4 inputs does"


def test_what_is_read_otherwise_is_said() -> None:
    """An input that more than constants decide about is tried where it can be, and the answer does not claim more."""
    nearest = ask(when("profile.age % 2 = 1 AND profile.age > 4"), frame({"profile.age": 2}))
    assert not nearest.exact
    assert "not every value of profile.age was tried" in nearest.note
    both = ask(when("profile.spend > basket AND basket >= 3"), frame({"profile.spend": 1.0}), basket=0.0)
    assert not both.exact


def test_a_fixed_input_beside_a_changeable_one_is_a_constant() -> None:
    """`shown` of the customer cannot change here, so what is compared with it is compared with its value."""
    nearest = ask(when("profile.age > profile.shown"), frame({"profile.age": 1, "profile.shown": 41}))
    assert (changes(nearest), nearest.exact) == ({"profile.age": 42}, True)


def test_nothing_changeable_is_said() -> None:
    """Where no input that matters may change, the answer says so."""
    assert ask(when("profile.shown > 3")).note.startswith("none found: no input that keeps it out")


@pytest.mark.timeout(30)
def test_search_is_bounded_and_says_where_it_ended() -> None:
    """Hundreds of constants for eight inputs end at the bound, in about a second, with a plain statement."""
    many = " OR ".join(
        f"(basket BETWEEN {n} AND {n}.5 AND profile.age = {n} AND profile.spend = {n} AND affinity.shown = {n + 1}"
        f" AND page = 'p{n}' AND code = 'c{n}' AND profile.last_at > now() - {n} hours)"
        for n in range(60)
    )
    policy = bundle(when(many))
    started = time.perf_counter()
    request = Request(placement="home", customer_id="c", context={"page": "", "basket": -1.0, "code": ""})
    nearest = why_not(policy, request, frame(), "a", NOW_US).nearest
    assert time.perf_counter() - started < 10
    assert nearest is not None
    assert (nearest.changes, nearest.exact) == ((), False)
    assert "the search ended at its bound" in nearest.note


@pytest.mark.timeout(30)
def test_long_lists_are_bounded() -> None:
    """Ten thousand members of an IN cost no more than a moment."""
    items = ", ".join(f"'{n}'" for n in range(9_999))
    started = time.perf_counter()
    nearest = ask(when(f"page IN ({items}) AND profile.age > 3"), frame({"profile.age": 1}))
    assert time.perf_counter() - started < 10
    assert changes(nearest) == {"context.page": "0", "profile.age": 4}
    assert not nearest.exact


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (DType.INT64, ValueType.INT32),
        (DType.INT64, ValueType.INT64),
        (DType.FLOAT64, ValueType.FLOAT),
        (DType.FLOAT64, ValueType.DOUBLE),
        (DType.TIMESTAMP, ValueType.UNIX_TIMESTAMP),
        (DType.TIMESTAMP, None),
    ],
)
def test_lattice_is_in_order_and_finds_its_values(dtype: DType, kind: ValueType | None) -> None:
    """Values rise with their indices, each has its own, and bisection finds the first beyond a constant."""
    lattice = lattice_of(dtype, kind)
    assert lattice is not None
    places = [lattice.low, lattice.low + 1, -1, 0, 1, 1_000, lattice.high - 1, lattice.high]
    values = [lattice.at(place) for place in places]
    assert values == sorted(values)
    assert [lattice.index_of(value) for value in values] == places
    assert lattice.first(lambda value: value > values[5]) == 1_001
    assert lattice.first(lambda _value: False) == lattice.high + 1
    assert math.isinf(lattice.at(lattice.high)) == (dtype is DType.FLOAT64)


@pytest.mark.parametrize("taken", [["", "ab", "aab"], ["", "a"], ["x", "xx", "bbb"], []], ids=repr)
@pytest.mark.parametrize(
    "patterns", [["a%", "%b", "%a_b%", "___"], ["_", "__"], ["_b%", "%"], ["%"]], ids=repr
)
def test_texts_for_patterns_miss_no_way_to_match(patterns: list[str], taken: list[str]) -> None:
    """Every combination of matches that any text has, up to five letters, has its text, and none is taken."""
    texts, whole = texts_for(patterns, taken)
    assert whole
    assert not set(taken) & set(texts)
    found = {tuple(like(text, pattern) for pattern in patterns) for text in texts}
    words = {""}
    for _ in range(5):
        words |= {word + char for word in words for char in "abx"}
    possible = {tuple(like(word, pattern) for pattern in patterns) for word in words - set(taken)}
    assert possible == found


def test_texts_for_many_patterns_end() -> None:
    """Patterns whose states multiply end at the bound and say that ways may be left."""
    texts, whole = texts_for([f"%{a}%{b}%" for a in "abcdefgh" for b in "ijklmnop"], ())
    assert texts
    assert not whole
