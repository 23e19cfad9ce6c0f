from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from numpy.typing import NDArray

from decision.bundle import Bundle, ModelHandle
from decision.engine import DegradationKind, ReasonKind, Request, decide
from decision.errors import BundleError
from decision.forest import Forest, load_forest
from decision.frame import Frame
from decision.policy import Boost, Exploration, Explore, Selector, Show
from decision.rows import Rows
from decision.schema import FeatureRef
from decision.scoring import column_name
from tests.support.engine_world import HOUR_US, NOW_US, ask, frame, home, offer, rule, shown, world

FEATURES = (
    FeatureRef(view="affinity", feature="spend"),
    FeatureRef(view="profile", feature="last_at"),
    FeatureRef(view="profile", feature="age"),
    FeatureRef(view="popularity", feature="rank"),
)
VALUES = frame(
    {"profile.last_at": NOW_US - 36 * HOUR_US, "profile.age": 41},
    {"a": {"affinity.spend": 3.5, "popularity.rank": 2}, "b": {"affinity.spend": None, "popularity.rank": 7}},
)
ROWS = np.array([[3.5, 1.5, 41, 2], [np.nan, 1.5, 41, 7], [np.nan, 1.5, 41, np.nan]], np.float32)
"""What the model must see for offers a, b and c; c has no row in the frame."""


def train(labels: NDArray[np.float64] | None = None, **parameters: object) -> xgb.Booster:
    rng = np.random.default_rng(7)
    rows = rng.normal(3.0, 2.0, (400, len(FEATURES))).astype(np.float32)
    if labels is None:
        labels = (rows[:, 0] + rows[:, 1] - rows[:, 3] > 3.0).astype(np.float64)
    data = xgb.DMatrix(rows, labels, feature_names=[column_name(ref) for ref in FEATURES])
    settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **parameters}
    return xgb.train(settings, data, num_boost_round=20)


@pytest.fixture(scope="module")
def booster() -> xgb.Booster:
    return train()


@pytest.fixture(scope="module")
def handle(booster: xgb.Booster) -> ModelHandle:
    return ModelHandle(name="m", version="7", features=FEATURES, forest=load(booster))


def load(booster: xgb.Booster) -> Forest:
    return load_forest(bytes(booster.save_raw("ubj")))


def shop(handle: ModelHandle, **placement: Any) -> Bundle:
    offers = [offer("a", value=2.0), offer("b"), offer("c")]
    return world(offers, models={"m": handle}, model="m", **placement)


def test_model_reads_columns_in_its_own_order(handle: ModelHandle) -> None:
    """Timestamps enter as age in days, NULL and absent values as missing, customer values for every candidate."""
    plan = home(shop(handle))
    assert plan.scoring is not None
    rows = Rows.of(plan, VALUES, Request(placement="home", customer_id="c"), NOW_US)
    assert rows.names == ("a", "b", "c")
    inputs = plan.scoring.inputs(rows.customer_block, rows.candidate_block, rows.index, NOW_US)
    np.testing.assert_array_equal(inputs.matrix, ROWS)
    assert inputs.unseen == ()


def test_score_is_prediction_times_value_times_boosts(booster: xgb.Booster, handle: ModelHandle) -> None:
    """Predictions are XGBoost's own, and the score multiplies them by value and factors."""
    bundle = shop(handle)
    boosted = replace(bundle.policy, rules=(rule("r", Boost(selector=Selector(offer="b"), factor=3.0)),))
    decision = ask(Bundle.build(bundle.catalog, boosted, bundle.models, "customer_id"), VALUES)
    expected = dict(zip("abc", booster.inplace_predict(ROWS), strict=True))
    weights = {"a": 2.0, "b": 3.0, "c": 1.0}
    assert {ranked.offer for ranked in decision.offers} == set("abc")
    for ranked in decision.offers:
        assert ranked.prediction == pytest.approx(float(expected[ranked.offer]), rel=1e-6)
        assert ranked.prediction is not None
        assert ranked.score == ranked.prediction * weights[ranked.offer]
        assert (ReasonKind.MODEL, "m@7") in {(reason.kind, reason.name) for reason in ranked.reasons}
    assert decision.model_version == "m@7"
    assert decision.degraded == ()


def test_model_features_are_read_at_their_levels(handle: ModelHandle) -> None:
    """What the model reads is in the plan."""
    plan = home(shop(handle))
    assert [str(ref) for ref in plan.customer_refs] == ["profile.age", "profile.last_at", "segments.vip"]
    assert [str(ref) for ref in plan.candidate_refs] == ["affinity.spend", "popularity.rank"]


def test_skipped_scoring_is_degraded_and_greedy(handle: ModelHandle) -> None:
    """Without time to score, offers rank by value, nothing is explored, and the answer says so."""
    how = Explore(kind=Exploration.SOFTMAX, top_k=3, parameter=100.0)
    request = Request(placement="home", customer_id="c")
    bundle = shop(handle, explore=how, minimum_score=5.0)
    decisions = [
        decide(request, VALUES, bundle, now_us=NOW_US, seed=seed, skip_scoring=True) for seed in range(8)
    ]
    assert {tuple(shown(decision)) for decision in decisions} == {("a", "b", "c")}
    assert {ranked.prediction for ranked in decisions[0].offers} == {None}
    assert decisions[0].model_version == ""
    assert [(d.kind, d.name) for d in decisions[0].degraded] == [(DegradationKind.SCORING_SKIPPED, "m")]


def test_minimum_score_holds_for_predictions(handle: ModelHandle) -> None:
    """Offers that score below the minimum are dropped, those a rule shows are not."""
    bundle = shop(handle, minimum_score=1e9, fallback=("c",))
    assert [d.kind for d in ask(bundle, VALUES).degraded] == [DegradationKind.FALLBACK]
    showing = replace(bundle.policy, rules=(rule("r", Show(offer="b")),))
    decision = ask(Bundle.build(bundle.catalog, showing, bundle.models, "customer_id"), VALUES)
    assert shown(decision) == ["b"]
    assert decision.offers[0].prediction is not None


def test_nothing_to_score_is_not_degraded(handle: ModelHandle) -> None:
    """Where no offer is eligible the model has nothing to do."""
    bundle = shop(handle, candidates=())
    assert ask(bundle, Frame(customer=VALUES.customer, candidates=VALUES.candidates)).model_version == ""
    assert [d.kind for d in ask(bundle, VALUES).degraded] == [DegradationKind.FALLBACK]


def test_model_that_overflows_is_degraded() -> None:
    """A prediction that is not finite never ranks anything."""
    document = json.loads(train(np.ones(400), base_score=0.5).save_raw("json"))
    document["learner"]["learner_model_param"]["base_score"] = "[3e38]"
    document["learner"]["objective"] = {
        "name": "count:poisson",
        "poisson_regression_param": {"max_delta_step": "0.7"},
    }
    handle = ModelHandle(
        name="m", version="1", features=FEATURES, forest=load_forest(json.dumps(document).encode())
    )
    with np.errstate(over="ignore"):
        assert np.isinf(handle.forest.predict(ROWS)).any()
    decision = ask(shop(handle), VALUES)
    assert [d.kind for d in decision.degraded] == [DegradationKind.MODEL_ABSENT]
    assert shown(decision) == ["a", "b", "c"]


def test_attributions_of_a_model_without_covers_are_left_out(
    booster: xgb.Booster, handle: ModelHandle
) -> None:
    """A model that nothing can be attributed by still decides."""
    document = json.loads(booster.save_raw("json"))
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["sum_hessian"] = [0.0] * len(tree["sum_hessian"])
    bare = shop(replace(handle, forest=load_forest(json.dumps(document).encode())))
    request = Request(placement="home", customer_id="c")
    asked = decide(request, VALUES, bare, now_us=NOW_US, seed=0, attributions=True)
    assert asked == decide(request, VALUES, bare, now_us=NOW_US, seed=0)


def test_attributions_name_the_features_that_counted_most(booster: xgb.Booster, handle: ModelHandle) -> None:
    """On request the three features with the largest contributions of XGBoost's own are reasons."""
    request = Request(placement="home", customer_id="c")
    decision = decide(request, VALUES, shop(handle), now_us=NOW_US, seed=0, attributions=True)
    data = xgb.DMatrix(ROWS, feature_names=[column_name(ref) for ref in FEATURES])
    contributions = dict(zip("abc", booster.predict(data, pred_contribs=True)[:, :-1], strict=True))
    for ranked in decision.offers:
        told = [reason.name for reason in ranked.reasons if reason.kind is ReasonKind.FEATURE]
        best = np.argsort(-np.abs(contributions[ranked.offer]))[:3]
        assert told == [str(FEATURES[index]) for index in best]
    details = {
        r.detail.partition(",")[0] for o in decision.offers for r in o.reasons if r.name == "profile.last_at"
    }
    assert details == {"1.5 days ago"}
    assert not any(
        reason.kind is ReasonKind.FEATURE
        for ranked in ask(shop(handle), VALUES).offers
        for reason in ranked.reasons
    )


def test_model_with_other_columns_is_refused(handle: ModelHandle) -> None:
    """Features in another order than the forest's columns, unknown ones and several outputs make no bundle."""
    with pytest.raises(BundleError, match="are not its columns"):
        shop(replace(handle, features=FEATURES[::-1]))
    labels = np.arange(400.0) % 3
    multi = train(labels, objective="multi:softprob", num_class=3)
    with pytest.raises(BundleError, match="3 outputs"):
        shop(replace(handle, forest=load(multi)))
