"""The smallest change that makes an offer eligible, against trying every value of small worlds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any, get_args

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decision.bundle import Bundle
from decision.engine import Request
from decision.explain import WhyNot, why_not
from decision.lang.interpreter import evaluate
from decision.lang.syntax import (
    And,
    Arithmetic,
    Call,
    Compare,
    CompareOp,
    Expr,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Now,
    Or,
    Ref,
    ToFloat,
    references,
)
from decision.policy import Action, Cap, Exclude, Include, Pin, Rule, Selector, Show
from decision.schema import DType, Value
from tests.support.engine_world import ALL, NOW_US, cap, frame, offer, rule, world

HOUR_US = 3_600_000_000
PAGE = Ref(name="context.page", dtype=DType.STRING)
BASKET = Ref(name="context.basket", dtype=DType.FLOAT64)
AGE = Ref(name="profile.age", dtype=DType.INT64)
LAST = Ref(name="profile.last_at", dtype=DType.TIMESTAMP)
VIP = Ref(name="segments.vip", dtype=DType.BOOL)
SHOWN = Ref(name="affinity.shown", dtype=DType.INT64)
TEXTS = ["".join(chars) for size in range(4) for chars in product("abc", repeat=size)]
DOMAINS: Mapping[Ref, list[Value]] = {
    PAGE: [None, *TEXTS],
    BASKET: [None, *(n / 4 for n in range(-2, 15))],
    AGE: [None, *range(-1, 6)],
    LAST: [None, *(NOW_US + n * HOUR_US // 2 for n in range(-8, 3))],
    VIP: [None, True, False],
    SHOWN: [None, *range(-1, 6)],
}
"""Every value that can make a difference to the comparisons below, and some that cannot."""


def literal(value: Value, dtype: DType) -> Literal:
    return Literal(value=value, dtype=dtype)


OPS: st.SearchStrategy[CompareOp] = st.sampled_from(get_args(CompareOp))
SAME: list[CompareOp] = ["=", "<>"]


@st.composite
def numbers(draw: st.DrawFn) -> Expr:
    """A comparison of a number with a constant, perhaps after some arithmetic."""
    ref = draw(st.sampled_from([AGE, SHOWN, BASKET]))
    limit: Value = draw(st.integers(0, 4))
    side: Expr = ref
    if ref is BASKET:
        limit = float(draw(st.integers(0, 6))) / 2
    elif draw(st.integers(0, 3)) == 0:
        three = literal(3, DType.INT64)
        sides: list[Expr] = [
            Arithmetic(op="+", left=ref, right=literal(1, DType.INT64), dtype=DType.INT64),
            Arithmetic(op="-", left=three, right=ref, dtype=DType.INT64),
            Arithmetic(op="*", left=literal(-2, DType.INT64), right=ref, dtype=DType.INT64),
            Call(function="coalesce", args=(ref, three), dtype=DType.INT64),
        ]
        side = draw(st.sampled_from(sides))
    elif draw(st.integers(0, 3)) == 0:
        side, limit = ToFloat(operand=ref), float(draw(st.integers(0, 8))) / 2
    return Compare(op=draw(OPS), left=side, right=literal(limit, side.dtype))


@st.composite
def texts(draw: st.DrawFn) -> Expr:
    """A comparison of a text with constants or a pattern."""
    words = st.sampled_from(["a", "b", "ab", ""])
    match draw(st.integers(0, 2)):
        case 0:
            return Like(
                operand=PAGE, pattern=draw(st.sampled_from(["a%", "%b", "%a%", "_", "__", "%", "_b%"]))
            )
        case 1:
            items = tuple(
                literal(text, DType.STRING) for text in draw(st.lists(words, min_size=1, max_size=3))
            )
            return In(operand=PAGE, items=items)
        case _:
            op = draw(st.sampled_from(SAME))
            return Compare(op=op, left=PAGE, right=literal(draw(words), DType.STRING))


@st.composite
def instants(draw: st.DrawFn) -> Expr:
    """A comparison of an instant with now."""
    hours = literal(draw(st.integers(0, 3)) * HOUR_US, DType.INTERVAL)
    if draw(st.booleans()):
        ago = Arithmetic(op="-", left=Now(), right=LAST, dtype=DType.INTERVAL)
        return Compare(op=draw(OPS), left=ago, right=hours)
    then = Arithmetic(op="-", left=Now(), right=hours, dtype=DType.TIMESTAMP)
    return Compare(op=draw(OPS), left=LAST, right=then)


ATOMS = st.one_of(
    numbers(),
    numbers(),
    texts(),
    instants(),
    st.just(VIP),
    st.builds(IsNull, operand=st.sampled_from([PAGE, BASKET, AGE, VIP, SHOWN])),
)
NESTED = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(Not, operand=inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(operands=tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(operands=tuple(parts))),
    ),
    max_leaves=5,
)
CONDITIONS = st.one_of(
    NESTED,
    st.lists(ATOMS, min_size=2, max_size=4).map(lambda parts: And(operands=tuple(parts))),
    st.lists(ATOMS, min_size=1, max_size=3).map(lambda parts: And(operands=(*parts, *parts[:1]))),
)
ACTING: list[Action] = [
    Show(offer="a"),
    Pin(offer="a", position=1),
    Include(selector=ALL),
    Exclude(selector=Selector(offer="a")),
]
ACTIONS = st.sampled_from(ACTING)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    """Rules about the offer, some of them with an ELSE."""
    found = []
    for number in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        when = draw(CONDITIONS)
        parts: dict[str, Any] = {"per_candidate": SHOWN.name in str(when)}
        if draw(st.integers(0, 3)) == 0:
            parts["otherwise"] = (draw(ACTIONS),)
        found.append(rule(f"r{number}", draw(ACTIONS), when=when, **parts))
    return found


@st.composite
def rows(draw: st.DrawFn) -> dict[Ref, Value]:
    """Present values."""
    return {ref: draw(st.sampled_from(values)) for ref, values in DOMAINS.items()}


def eligible(when: Expr, policy: list[Rule], caps: list[Cap], listed: bool, row: Mapping[str, Value]) -> bool:
    """The rules of eligibility, said once more."""
    acts = [
        act
        for each in policy
        for act in (each.actions if evaluate(each.condition, row, NOW_US) is True else each.otherwise)
    ]
    kinds = {type(act) for act in acts}
    fits = evaluate(when, row, NOW_US) is True or Include in kinds
    shown = row.get(SHOWN.name)
    capped = any(isinstance(shown, int) and shown >= each.limit for each in caps)
    return (listed or bool({Show, Pin} & kinds)) and Exclude not in kinds and fits and not capped


def assignments(refs: list[Ref], count: int, row: Mapping[Ref, Value]) -> Iterator[dict[str, Value]]:
    """Every way to change that many inputs."""
    for chosen in combinations(refs, count):
        for values in product(*(DOMAINS[ref] for ref in chosen)):
            if all(value != row[ref] for ref, value in zip(chosen, values, strict=True)):
                yield {ref.name: value for ref, value in zip(chosen, values, strict=True)}


def ask(bundle: Bundle, row: Mapping[Ref, Value]) -> WhyNot:
    """Why `a` is not shown on a row."""
    customer = {ref.name: row[ref] for ref in (AGE, LAST, VIP)}
    context = {"page": row[PAGE], "basket": row[BASKET]}
    request = Request(placement="home", customer_id="c", context=context)
    values = frame(customer, {"a": {SHOWN.name: row[SHOWN]}})
    return why_not(bundle, request, values, "a", NOW_US)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(data=st.data())
def test_smallest_change_is_the_smallest_there_is(data: st.DataObject) -> None:
    """No change of fewer inputs makes the offer eligible, what is found does, and "none found" means that none does."""
    when, policy, row = data.draw(CONDITIONS), data.draw(rules()), data.draw(rows())
    caps = [cap("often", SHOWN.name, data.draw(st.integers(1, 3)))] if data.draw(st.booleans()) else []
    listed = data.draw(st.sampled_from([True, True, True, False]))
    read = sorted(references(And(operands=(when, *(each.condition for each in policy)))))
    refs = data.draw(st.permutations([ref for ref in DOMAINS if ref.name in {*read, SHOWN.name}]))
    refs = refs[: data.draw(st.sampled_from([4, 4, 3, 2, 0]))]
    bundle = world(
        [offer("a", when=when)],
        policy,
        caps,
        candidates=(ALL,) if listed else (),
        changeable=tuple(ref.name for ref in refs),
    )
    present = {ref.name: value for ref, value in row.items()}
    answer = ask(bundle, row)
    if eligible(when, policy, caps, listed, present):
        assert answer.nearest is None
        return
    nearest = answer.nearest
    assert nearest is not None
    assert nearest.exact
    changes = {change.name: change.after for change in nearest.changes}
    assert changes.keys() <= {ref.name for ref in refs}
    assert all(present[change.name] == change.before != change.after for change in nearest.changes)
    if changes:
        assert eligible(when, policy, caps, listed, {**present, **changes})
    for count in range(1, len(changes) if changes else 4):
        for tried in assignments(refs, count, row):
            assert not eligible(when, policy, caps, listed, {**present, **tried}), tried
