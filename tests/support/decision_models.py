"""Small models of the catalog's features, as XGBoost has them and as the engine loads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import xgboost

from decision.bundle import Model, ModelHandle
from decision.centroids import Centroids
from decision.forest import load_forest
from decision.labelling import LabelHandle
from decision.schema import FeatureRef
from tests.oracle.engine_oracle import Labeller, Predictor
from tests.support.decision_catalog import CITIES, LABELS

INPUTS = tuple(
    FeatureRef(view=view, feature=feature)
    for view, feature in (
        ("affinity", "spend"),
        ("profile", "city"),
        ("affinity", "last_at"),
        ("profile", "age"),
        ("popularity", "rank"),
        ("profile", "member"),
    )
)
CITY = "profile__city"


def _trained(**settings: Any) -> xgboost.Booster:
    rng = np.random.default_rng(11)
    rows = pd.DataFrame(
        {
            "affinity__spend": rng.normal(1.0, 2.0, 400).astype(np.float32),
            CITY: pd.Categorical(rng.choice(CITIES, 400), categories=list(CITIES)),
            "affinity__last_at": rng.exponential(1.5, 400).astype(np.float32),
            "profile__age": rng.choice([0, 1, 2, 3, 5, 20], 400).astype(np.float32),
            "popularity__rank": rng.choice([0, 1, 2, 3, 5, 20], 400).astype(np.float32),
            "profile__member": rng.integers(0, 2, 400).astype(np.float32),
        }
    )
    pull = rows["affinity__spend"] + 2.0 * (rows[CITY] == "oslo") - rows["affinity__last_at"]
    pull = pull + rows["profile__member"] + (rows["profile__age"] > 2) - (rows["popularity__rank"] > 3)
    labels = (pull > pull.median()).astype(float) if "reg:squarederror" not in settings.values() else pull
    gaps = rng.random((400, 6)) < 0.1
    rows = rows.mask(pd.DataFrame(gaps, columns=rows.columns))
    data = xgboost.DMatrix(rows, labels, enable_categorical=True)
    return xgboost.train({"max_depth": 3, "nthread": 1, "eta": 0.5, **settings}, data, 8)


def _wild() -> xgboost.Booster:
    """A model whose prediction is beyond float32 for some rows."""
    document = json.loads(_trained(objective="count:poisson").save_raw("json"))
    document["learner"]["learner_model_param"]["base_score"] = "[2e38]"
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(json.dumps(document).encode()))
    return booster


@cache
def predictors() -> Mapping[str, Predictor]:
    """Models that are loaded; a policy may name `gone` too."""
    boosters = {
        "worth": _trained(objective="reg:squarederror"),
        "click": _trained(objective="binary:logistic"),
        "wild": _wild(),
    }
    return {
        name: Predictor(name=name, version="7", booster=booster, features=INPUTS, categories={CITY: CITIES})
        for name, booster in boosters.items()
    }


LABELLERS = {
    "personas": Labeller(
        name="personas",
        features=(FeatureRef(view="profile", feature="age"), FeatureRef(view="profile", feature="spend")),
        labels=LABELS,
        means=(3.0, 1.0),
        deviations=(2.0, 1.5),
        points=((-1.0, -1.0), (0.0, 0.25), (1.0, 1.0)),
    )
}


@cache
def handles() -> Mapping[str, Model]:
    """The same models, loaded as the engine wants them."""
    loaded: dict[str, Model] = {
        name: ModelHandle(
            name=name,
            version=predictor.version,
            features=predictor.features,
            forest=load_forest(bytes(predictor.booster.save_raw("ubj"))),
        )
        for name, predictor in predictors().items()
    }
    for name, labeller in LABELLERS.items():
        model = Centroids(
            feature_names=tuple(f"{ref.view}__{ref.feature}" for ref in labeller.features),
            means=np.array(labeller.means),
            deviations=np.array(labeller.deviations),
            points=np.array(labeller.points),
        )
        loaded[name] = LabelHandle(
            name=name, version="1", features=labeller.features, labels=labeller.labels, model=model
        )
    return loaded
