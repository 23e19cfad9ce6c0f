"""What findings about a policy claim, against what the engine then does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from decision.bundle import Bundle
from decision.lang.compiler import Compiled, compile_policy
from decision.lang.findings import Code
from decision.policy import Exclude, Pin, Policy, Rule, Selector, Show
from tests.oracle.engine_oracle import Act, Question, World, answer
from tests.support.decision_catalog import CATALOG, CUSTOMER_NAMES, KEY, LABELS
from tests.support.decision_models import LABELLERS, predictors
from tests.support.decision_policies import ALWAYS, Policies
from tests.support.decision_trials import ask, bundled, decided
from tests.support.policy_text import sources


@st.composite
def crowded_policies(draw: st.DrawFn) -> Compiled:
    """Rules that often hold together, often want the same and often the opposite."""
    drawer = Policies(lambda least, most: draw(st.integers(least, most)))
    conditions = [ALWAYS, drawer.condition(CUSTOMER_NAMES)]
    policy = replace(
        drawer.policy(),
        rules=tuple(_rule(drawer, number, conditions) for number in range(drawer.number(2, 5))),
    )
    labels = {"personas": LABELS, "ghosts": LABELS}
    models = frozenset([*predictors(), "gone"])
    compiled = compile_policy(sources(policy, 0), CATALOG, models, labels=labels, customer_key=KEY)
    assert compiled.policy is not None
    return compiled


def _rule(drawer: Policies, number: int, conditions: list) -> Rule:  # type: ignore[type-arg]
    own = drawer.once_in(3)
    return replace(
        drawer._rule(number),
        placement="home",
        condition=drawer.of_candidate() if own else drawer.pick(conditions),
        per_candidate=own,
        actions=drawer._actions(1, 2, per_candidate=own),
        otherwise=drawer._actions(1, 2, per_candidate=own) if drawer.once_in(4) else (),
        priority=drawer.number(0, 1),
    )


def _questions(bundle: Bundle, seed: int) -> Iterator[Question]:
    rng = random.Random(seed)
    return (ask(bundle.placement("home"), rng) for _ in range(6))


@given(crowded_policies(), st.integers(0, 2**64 - 1))
def test_a_shadowed_rule_changes_nothing(compiled: Compiled, seed: int) -> None:
    """Without it, the same offers come in the same order with the same scores and propensities."""
    policy = compiled.policy
    assert policy is not None
    for name in _named(compiled, Code.SHADOWED):
        bundle, without = bundled(policy), bundled(_without(policy, name))
        for question in _questions(without, seed):
            assert _shown(bundle, question) == _shown(without, question), name


def _without(policy: Policy, name: str) -> Policy:
    return replace(policy, rules=tuple(rule for rule in policy.rules if rule.name != name))


def _named(compiled: Compiled, code: Code) -> list[str]:
    return [item.message.split("`")[1] for item in compiled.findings if item.code == code]


def _shown(bundle: Bundle, question: Question) -> list[tuple[str, float, float]]:
    decision = decided(bundle, question)
    return [(ranked.offer, ranked.score, ranked.propensity) for ranked in decision.offers]


@given(crowded_policies(), st.integers(0, 2**64 - 1))
def test_what_contradicts_in_a_decision_was_found(compiled: Compiled, seed: int) -> None:
    """Where one act excludes what another of equal priority shows, or two pin against each other, a finding said so."""
    policy = compiled.policy
    assert policy is not None
    world = World(
        catalog=CATALOG, policy=policy, predictors=predictors(), labellers=LABELLERS, customer_key=KEY
    )
    found = {
        frozenset(item.message.partition(" contradict")[0].split("`")[1::2])
        for item in compiled.findings
        if item.code == Code.CONTRADICTORY
    }
    for question in _questions(bundled(policy), seed):
        assert set(_contradictions(world, question)) <= found


def _contradictions(world: World, question: Question) -> Iterator[frozenset[str]]:
    """Rules whose acts upon one offer, or one position, are at odds."""
    candidates = answer(world, question).candidates
    pins = [act for candidate in candidates for act in candidate.acted(Pin)]
    yield from (_names(a, b) for a in pins for b in pins if _equal(a, b) and _pins_differ(a.action, b.action))
    for candidate in candidates:
        wanted = candidate.acted(Show, Pin)
        for out in candidate.acted(Exclude):
            if out.action.selector != Selector():  # type: ignore[union-attr]
                yield from (_names(out, act) for act in wanted if _equal(out, act))


def _equal(a: Act, b: Act) -> bool:
    return a.rule.priority == b.rule.priority


def _names(a: Act, b: Act) -> frozenset[str]:
    return frozenset({a.rule.name, b.rule.name})


def _pins_differ(a: object, b: object) -> bool:
    assert isinstance(a, Pin)
    assert isinstance(b, Pin)
    return (a.offer == b.offer) != (a.position == b.position)
