"""Categories that a model never saw: they count as missing, and the answer says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xgboost

from decision.bundle import Bundle
from decision.engine import Decision, Degradation, DegradationKind, Request, decide
from decision.forest import load_forest
from decision.frame import Block, Frame, layout_of
from decision.labelling import LabelHandle
from decision.lang.compiler import compile_policy
from decision.schema import FeatureRef, Status, Value
from tests.support.decision_catalog import CATALOG, CITIES, KEY, LABELS, NOW_US, ref_of
from tests.support.decision_models import handles

CITY = FeatureRef(view="profile", feature="city")
TEXT = """
placement home: candidates a, b
  model worth
offer a (category = "a"):
offer b (category = "b"):
"""
TOLD = """
rule r on home: IF label(tastes) = "loyal" THEN tag("loyal")
"""


def tastes() -> LabelHandle:
    """A forest of three classes that reads the city alone."""
    cities = [city for city in CITIES[:3] for _ in range(20)]
    rows = pd.DataFrame({"profile__city": pd.Categorical(cities, categories=list(CITIES))})
    data = xgboost.DMatrix(rows, np.repeat([0, 1, 2], 20), enable_categorical=True)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 3)
    return LabelHandle(
        name="tastes",
        version="2",
        features=(CITY,),
        labels=LABELS,
        model=load_forest(bytes(booster.save_raw("ubj"))),
    )


def ask(city: Value, text: str = TEXT, status: Status = Status.PRESENT) -> Decision:
    """Decide for a customer of that city."""
    models = {**handles(), "tastes": tastes()}
    labels = {"tastes": LABELS}
    policy = compile_policy({"p": text}, CATALOG, frozenset(models), labels=labels, customer_key=KEY).policy
    assert policy is not None
    bundle = Bundle.build(CATALOG, policy, models, KEY)
    customer = Block.of(layout_of(CATALOG, [CITY]), ("",), [[city]], [[status]], [[NOW_US]])
    candidates = layout_of(CATALOG, [ref_of("affinity.spend")])
    return decide(
        Request(placement="home", customer_id="c"),
        Frame(
            customer=customer,
            candidates=Block.of(candidates, ("a",), [[1.0]], [[Status.PRESENT]], [[NOW_US]]),
        ),
        bundle,
        now_us=NOW_US,
        seed=1,
    )


def unseen(decision: Decision) -> list[Degradation]:
    return [each for each in decision.degraded if each.kind is DegradationKind.UNSEEN_CATEGORY]


def test_an_unseen_category_is_missing_and_named() -> None:
    """The answer names feature, value and model once, and predicts as if nothing were there."""
    (told,) = unseen(ask("paris"))
    assert (told.name, told.detail) == (
        "profile.city",
        "'paris' is no category of worth@7: it counts as missing",
    )
    nothing = ask(None, status=Status.NOT_FOUND)
    assert [each.prediction for each in ask("paris").offers] == [each.prediction for each in nothing.offers]
    assert not unseen(nothing)


@pytest.mark.parametrize("city", CITIES)
def test_a_known_category_goes_without_a_word(city: str) -> None:
    """Nothing is said of what the model knows."""
    assert not unseen(ask(city))


def test_a_value_that_carries_nothing_is_no_category() -> None:
    """What timed out is missing, whatever it was."""
    assert not unseen(ask("paris", status=Status.TIMEOUT))


def test_segmentation_models_say_so_too() -> None:
    """The label's model never saw it either; each model is named by itself."""
    told = unseen(ask("paris", TEXT + TOLD))
    assert [each.detail for each in told] == [
        "'paris' is no category of tastes@2: it counts as missing",
        "'paris' is no category of worth@7: it counts as missing",
    ]
    assert not unseen(ask("oslo", TEXT + TOLD))


def test_a_long_text_is_cut() -> None:
    """An answer does not repeat a text of any length."""
    (told,) = unseen(ask("p" * 10_000))
    assert len(told.detail) < 200
