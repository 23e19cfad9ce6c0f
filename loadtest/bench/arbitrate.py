"""One whole decision from a vector that has been read: rules, forest, caps, exploration and ranking."""

from __future__ import annotations

from itertools import count
from typing import Final

import numpy as np
import xgboost
from numpy.typing import NDArray

from decision.bundle import Bundle
from decision.engine import Decision, decide
from decision.forest import load_forest
from decision.frame import Block, Frame, Layout
from decision.lang.compiler import compile_policy
from decision.plan import PlacementPlan
from decision.policy import Policy
from decision.record import Request
from decision.schema import Catalog, DType, Feature, FeatureRef, JoinKey, Status, ValueType, View
from decision.scoring import ModelHandle
from loadtest.bench.measure import cell, environment, in_turn
from server.measurement import Bound, Report, Results, Table, Tell

CANDIDATE_COUNT: Final = 100
RULE_COUNT: Final = 100
TREE_COUNT: Final = 200
DEPTH: Final = 6
FEATURES_PER_LEVEL: Final = 20
TAG_COUNT: Final = 10
TRAINING_ROWS: Final = 5_000
MUST_REACH_US: Final = 400.0
BUDGET_S: Final = 8.0
NOW_US: Final = 1_800_000_000_000_000
MODEL: Final = "propensity"
_CUSTOMER: Final = JoinKey(name="customer_id", value_type=ValueType.INT64)
_CATEGORY: Final = JoinKey(name="category", value_type=ValueType.STRING)


def run(tell: Tell) -> Results:
    """Build the workload and time decisions, each with a seed of its own.

    Returns:
        `us_p50` and `us_p99` of one `decide`; the same without the model; `workload`; `environment`.
    """
    tell(f"training {TREE_COUNT} trees of depth {DEPTH}")
    catalog = _catalog()
    bundle = Bundle.build(catalog, _policy(catalog), {MODEL: _model(catalog)}, _CUSTOMER.name)
    frame = _frame(bundle.placement("home"))
    request = Request(placement="home", customer_id="1")
    seeds = count()

    def whole(*, skip_scoring: bool = False) -> Decision:
        return decide(request, frame, bundle, now_us=NOW_US, seed=next(seeds), skip_scoring=skip_scoring)

    first = whole()
    tell(f"deciding among {CANDIDATE_COUNT} candidates")
    times = in_turn({"whole": whole, "unscored": lambda: whole(skip_scoring=True)}, budget_s=BUDGET_S)
    return {
        "us_p50": times["whole"].p50,
        "us_p99": times["whole"].p99,
        "unscored_us_p50": times["unscored"].p50,
        "unscored_us_p99": times["unscored"].p99,
        "workload": {
            "candidates": CANDIDATE_COUNT,
            "rules": RULE_COUNT,
            "trees": TREE_COUNT,
            "depth": DEPTH,
            "features": 2 * FEATURES_PER_LEVEL,
            "offers_returned": len(first.offers),
        },
        "environment": environment("numpy", "numba", "xgboost-cpu"),
    }


def report(results: Results) -> Report:
    """A row for the whole and one without the forest."""
    work = results["workload"]
    rows = (
        ("whole decision", cell(results["us_p50"]), cell(results["us_p99"])),
        ("without the forest", cell(results["unscored_us_p50"]), cell(results["unscored_us_p99"])),
    )
    title = f"{work['candidates']} candidates, {work['rules']} rules, {work['trees']} trees: µs"
    return Report(
        tables=(Table(title, ("from vector to decision", "median", "p99"), rows),),
        bounds=(Bound("whole decision, µs", results["us_p50"], MUST_REACH_US, "", at_most=True),),
        notes=(),
    )


def _catalog() -> Catalog:
    """Half of the features are the customer's, half the candidate's, with a counter for the cap."""
    numbers = range(FEATURES_PER_LEVEL)
    counter = Feature(name="shown_7d", value_type=ValueType.INT64)
    profile = tuple(Feature(name=f"p{number}", value_type=ValueType.DOUBLE) for number in numbers)
    affinity = tuple(Feature(name=f"a{number}", value_type=ValueType.DOUBLE) for number in numbers)
    return Catalog(
        project="bench",
        views=(
            View(name="profile", join_keys=(_CUSTOMER,), features=profile),
            View(name="affinity", join_keys=(_CUSTOMER, _CATEGORY), features=(*affinity, counter)),
        ),
    )


def _policy(catalog: Catalog) -> Policy:
    declarations = [
        "placement home:",
        '  candidates tagged "all"',
        f"  model {MODEL}",
        "  limit 10",
        '  at most 3 tagged "t1"',
        "  explore softmax temperature 0.05 over top 5",
        "cap weekly: at most 3 in 7 days per customer per offer counted by affinity.shown_7d",
        *(_offer(number) for number in range(CANDIDATE_COUNT)),
        *(_rule(number) for number in range(RULE_COUNT)),
    ]
    compiled = compile_policy(
        {"bench.policy": "\n".join(declarations)}, catalog, frozenset({MODEL}), customer_key=_CUSTOMER.name
    )
    if compiled.policy is None:
        raise RuntimeError(
            f"the workload's policy is refused: {[str(finding) for finding in compiled.findings]}"
        )
    return compiled.policy


def _offer(number: int) -> str:
    return (
        f'offer o{number} (category = "c{number}"):\n  value {1 + number % 7 / 10}\n'
        f'  tags "all", "t{number % TAG_COUNT}"\n  set margin = {number % 13 / 20}\n'
        f"  when affinity.a{number % FEATURES_PER_LEVEL} > -1.5"
    )


def _rule(number: int) -> str:
    """Every other rule reads the customer alone; two in five do something else than weigh, a fifth has an ELSE."""
    one, other = number % FEATURES_PER_LEVEL, (number * 7 + 3) % FEATURES_PER_LEVEL
    bound = round((number % 17 - 8) / 6, 3)
    tag = f'tag "t{number % TAG_COUNT}"'
    if number % 2:
        condition = f"profile.p{one} > {bound} AND (profile.p{other} < {bound + 1} OR profile.p{one} IS NULL)"
        action = _action(number, tag)
    else:
        condition = (
            f"affinity.a{one} > {bound} AND offer.margin > 0.1 AND NOT affinity.a{other} > {bound + 1}"
        )
        action = f"bury(0.{number:02d})" if number % 4 and number > 9 else f"boost(1.{number:02d})"
    otherwise = f" ELSE bury({tag}, 0.9)" if number % 5 == 4 else ""
    return f"rule r{number} on home priority {number % 5}:\n  IF {condition} THEN {action}{otherwise}"


def _action(number: int, tag: str) -> str:
    """What a rule about the customer does; of twenty rules one excludes, includes, pins, shows, tags."""
    match number % 20:
        case 1:
            return f"exclude({tag})"
        case 3:
            return f"include({tag})"
        case 5:
            return f"pin(o{number}, {2 + number // 20})"
        case 7:
            return f"show(o{number})"
        case 11:
            return f'tag("segment {number}")'
        case _:
            return f"boost({tag}, 1.{number:02d})"


def _model(catalog: Catalog) -> ModelHandle:
    """A binary classifier over all features but the counter, whose trees grow to their full depth."""
    features = tuple(
        FeatureRef(view=view.name, feature=feature.name)
        for view in catalog.views
        for feature in view.features
        if feature.value_type is ValueType.DOUBLE
    )
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(TRAINING_ROWS, len(features))).astype(np.float32)
    score = rows[:, 0] * rows[:, 25] + np.sin(3 * rows[:, 2]) + 0.2 * rows[:, 20:].sum(axis=1)
    matrix = xgboost.DMatrix(
        rows,
        score + rng.normal(size=len(rows)) > 0,
        feature_names=[f"{ref.view}__{ref.feature}" for ref in features],
    )
    params = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 1}
    model = bytes(xgboost.train(params, matrix, TREE_COUNT).save_raw("ubj"))
    return ModelHandle(name=MODEL, version="bench", features=features, forest=load_forest(model))


def _frame(plan: PlacementPlan) -> Frame:
    """What the server reads for a request, in the plan's layouts.

    Values are normal, one in twenty is NULL, and one candidate in ten has reached its cap.
    """
    rng = np.random.default_rng(3)
    return Frame(
        customer=_block(plan.customer_layout, ("",), rng),
        candidates=_block(plan.candidate_layout, plan.considered(()), rng),
    )


def _block(layout: Layout, rows: tuple[str, ...], rng: np.random.Generator) -> Block:
    shape = (len(layout.names), len(rows))
    statuses: NDArray[np.uint8] = np.full(shape, Status.PRESENT, np.uint8)
    statuses[rng.random(shape) < 0.05] = Status.NULL
    words = rng.normal(size=shape).view(np.int64)
    for place, dtype in enumerate(layout.dtypes):
        if dtype is DType.INT64:
            words[place] = np.where(rng.random(len(rows)) < 0.1, 3, 1)
    words[statuses == Status.NULL] = 0
    event_us = np.full((len(layout.views), len(rows)), NOW_US - 3_600_000_000, np.int64)
    return Block(layout, rows, words, statuses, event_us)
