"""What is asked of random policies, and the engine's answer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from hypothesis import strategies as st

from decision.bundle import Bundle
from decision.engine import Decision, Degradation, DegradationKind, Request, decide
from decision.frame import Block, Frame, Layout, layout_of
from decision.lang.compiler import compile_policy
from decision.lang.findings import render
from decision.lang.syntax import NOWHERE, Now
from decision.plan import PlacementPlan
from decision.policy import Policy
from decision.schema import DType, Status, Value
from tests.oracle.engine_oracle import Cell, Question, World
from tests.support.decision_catalog import (
    CATALOG,
    CONTEXT,
    DTYPES,
    HOUR_US,
    KEY,
    LABELS,
    NOW_US,
    POOLS,
    ref_of,
)
from tests.support.decision_models import LABELLERS, handles, predictors
from tests.support.decision_policies import Policies
from tests.support.policy_text import sources


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A world, the policy that the compiler made of its text, its bundle, and what is asked."""

    world: World
    policy: Policy
    bundle: Bundle
    text: str
    asked: tuple[Question, ...]

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Only what tells one trial from another."""
        printer.text("\n".join([self.text, *map(str, self.asked)]))


def declared(policy: Policy) -> Policy:
    """All but conditions, places in the text and its hash."""
    return replace(
        policy,
        segments=tuple(replace(each, condition=Now(), span=NOWHERE) for each in policy.segments),
        rules=tuple(replace(each, condition=Now(), span=NOWHERE) for each in policy.rules),
        offers=tuple(replace(each, when=None, span=NOWHERE) for each in policy.offers),
        placements=tuple(replace(each, span=NOWHERE) for each in policy.placements),
        caps=tuple(replace(each, span=NOWHERE) for each in policy.caps),
        source_hash="",
    )


def compiled(policy: Policy, split: int) -> tuple[Policy, str]:
    """The policy that the compiler makes of its text, and the text; AssertionError where it finds mistakes."""
    texts = sources(policy, split)
    models = frozenset([*predictors(), "gone"])
    labels = {"personas": LABELS, "ghosts": LABELS}
    made = compile_policy(texts, CATALOG, models, labels=labels, customer_key=KEY)
    assert made.policy is not None, render(made.findings, texts)
    return made.policy, "\n".join(texts.values())


def bundled(policy: Policy) -> Bundle:
    """The bundle that decides."""
    return Bundle.build(CATALOG, policy, handles(), KEY)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    """A world with several questions."""
    return trial_of(lambda least, most: draw(st.integers(least, most)))


def trial_of(number: Callable[[int, int], int], requests: int = 3) -> Trial:
    """The same of a function that draws a number from the least to the most."""
    meant = Policies(number).policy()
    policy, text = compiled(meant, number(0, 6))
    assert declared(policy) == declared(meant), text
    bundle = bundled(policy)
    world = World(
        catalog=CATALOG, policy=meant, predictors=predictors(), labellers=LABELLERS, customer_key=KEY
    )
    home = bundle.placement("home")
    asked = tuple(ask(home, random.Random(number(0, 2**64 - 1))) for _ in range(requests))
    return Trial(world=world, policy=policy, bundle=bundle, text=text, asked=asked)


_DEGRADED = (
    Degradation(kind=DegradationKind.STORE_TIMEOUT, name="store"),
    Degradation(
        kind=DegradationKind.STALE_FEATURES, name="profile", detail="older than the view's TTL, and used"
    ),
)


def ask(plan: PlacementPlan, rng: random.Random) -> Question:
    """A question about the placement `home`, with everything that can be missing missing at times."""
    nulls = rng.choice([0.0, 0.1, 0.4])
    exact = rng.random() < 0.5
    customer = {name: _cell(name, rng, nulls) for name in _columns(plan.customer_layout, rng, exact)}
    if rng.random() < 0.1:
        nothing = Cell(value=None, status=Status.NOT_FOUND, event_us=0)
        customer = dict.fromkeys(customer, nothing)
    columns = _columns(plan.candidate_layout, rng, exact)
    candidates = tuple(rng.choices(plan.offer_names, k=3)) if plan.offer_names and rng.random() < 0.2 else ()
    asked_for = plan.offer_names if rng.random() < 0.1 else plan.considered(candidates)
    rows = [name for name in asked_for if rng.random() < 0.9]
    rng.shuffle(rows)
    offers = {offer: {name: _cell(name, rng, nulls) for name in columns} for offer in rows}
    context = {name: _value(dtype, rng) for name, dtype in CONTEXT.items() if rng.random() < 0.8}
    return Question(
        request=Request(
            placement="home",
            customer_id=rng.choice(["c-1", "c-2", "c-3", "é", "42"]),
            context={name: _nan_is_null(value) for name, value in context.items()},
            candidates=candidates,
            limit=rng.choice([0, 0, 0, 1]),
        ),
        customer=customer,
        offers=offers,
        now_us=rng.choice([NOW_US, NOW_US, NOW_US + 1, NOW_US - 1, NOW_US + HOUR_US]),
        seed=rng.choice([0, 1, 2**64 - 1, rng.getrandbits(64), rng.getrandbits(64), rng.getrandbits(64)]),
        degraded=_DEGRADED if rng.random() < 0.1 else (),
        skip_scoring=rng.random() < 0.1,
    )


def _columns(layout: Layout, rng: random.Random, exact: bool) -> list[str]:
    """The plan's own columns, or what else a store might have answered with."""
    if exact or not layout.names:
        return list(layout.names)
    views = {name.split(".")[0] for name in layout.names}
    names = [name for name in DTYPES if name.split(".")[0] in views and rng.random() < 0.9]
    rng.shuffle(names)
    return names


def _cell(name: str, rng: random.Random, nulls: float) -> Cell:
    event_us = rng.choice([0, NOW_US - HOUR_US, NOW_US - 5, NOW_US + 10])
    if rng.random() < nulls:
        status = rng.choice([Status.NULL, Status.NOT_FOUND, Status.TIMEOUT])
        return Cell(value=rng.choice([None, _value(DTYPES[name], rng)]), status=status, event_us=event_us)
    status = Status.STALE if rng.random() < 0.05 else Status.PRESENT
    return Cell(value=_value(DTYPES[name], rng), status=status, event_us=event_us)


def _value(dtype: DType, rng: random.Random) -> Value:
    """Ordinary values more often than those at the ends."""
    pool = POOLS[dtype]
    return cast("Value", rng.choice(pool[:6] if rng.random() < 0.7 else pool))


def _nan_is_null(value: Value) -> Value:
    return None if isinstance(value, float) and math.isnan(value) else value


def frame_of(question: Question, plan: PlacementPlan) -> Frame:
    """What was read, as the store's answer hands it over: in the plan's own layouts where it has their columns."""
    return Frame(
        customer=_block(plan.customer_layout, {"": question.customer}),
        candidates=_block(plan.candidate_layout, question.offers),
    )


def _block(own: Layout, rows: Mapping[str, Mapping[str, Cell]]) -> Block:
    names = tuple(next(iter(rows.values()), {}))
    layout = own if names == own.names else layout_of(CATALOG, map(ref_of, names))
    cells = [[row[name] for row in rows.values()] for name in names]
    return Block.of(
        layout,
        tuple(rows),
        [[cell.value for cell in column] for column in cells],
        [[cell.status for cell in column] for column in cells],
        [[cell.event_us for cell in column] for column in cells],
    )


def decided(bundle: Bundle, question: Question) -> Decision:
    """The engine's decision."""
    return decide(
        question.request,
        frame_of(question, bundle.placement("home")),
        bundle,
        now_us=question.now_us,
        seed=question.seed,
        degraded=question.degraded,
        skip_scoring=question.skip_scoring,
    )
