"""Random XGBoost models and rows for the forest's tests; XGBoost itself is the oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

REGRESSIONS = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:logistic",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
    "survival:cox",
)
BINARY = ("binary:logistic", "binary:logitraw", "binary:hinge")
MULTI = ("multi:softprob", "multi:softmax")
RANKING = ("rank:ndcg", "rank:map", "rank:pairwise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trained model and rows to score with it."""

    name: str
    booster: xgboost.Booster
    rows: NDArray[np.float32]


def random_case(seed: int) -> Case:
    """A model whose objective, shape, features and training are all drawn from the seed."""
    rng = np.random.default_rng(seed)
    objective = str(
        rng.choice((*REGRESSIONS, *BINARY, *BINARY, *MULTI, *MULTI, *RANKING, "reg:quantileerror"))
    )
    features = int(rng.integers(1, 13))
    categorical = rng.random(features) < rng.choice((0, 0, 0.5))
    train = _rows(rng, 150, categorical, hostile=False)
    params = _params(rng, objective, bool(categorical.any()))
    matrix = _matrix(rng, objective, params, train, categorical)
    stopping = {"early_stopping_rounds": 2} if rng.random() < 0.3 else {}
    booster = xgboost.train(
        params, matrix, int(rng.integers(1, 13)), evals=[(matrix, "train")], verbose_eval=False, **stopping
    )
    count = int(rng.choice((1, 2, 3, 7, 8, 9, 17, 40)))
    return Case(name=f"{seed}: {params}", booster=booster, rows=_rows(rng, count, categorical, hostile=True))


def _rows(
    rng: np.random.Generator, count: int, categorical: NDArray[np.bool_], *, hostile: bool
) -> NDArray[np.float32]:
    """Normal, integral or tied columns with gaps; hostile rows add zeros of both signs, infinities and odd codes."""
    rows = rng.normal(size=(count, len(categorical))).astype(np.float32)
    tied = rng.random(len(categorical)) < 0.4
    rows[:, tied] = np.round(rows[:, tied] * 2)
    rows[:, categorical] = rng.integers(0, 37, (count, int(categorical.sum())))
    rows[rng.random(rows.shape) < rng.choice((0, 0.1, 0.5))] = np.nan
    if hostile:
        odd = rng.random(rows.shape) < 0.1
        values = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, 3.4e38, 36.5, 64, -1, 2**24, -0.5], np.float32)
        rows[odd] = rng.choice(values, int(odd.sum()))
    return rows


def _params(rng: np.random.Generator, objective: str, categorical: bool) -> dict[str, Any]:
    params: dict[str, Any] = {
        "objective": objective,
        "nthread": 1,
        "seed": int(rng.integers(1 << 30)),
        "max_depth": int(rng.choice((0, 1, 2, 3, 6, 12), p=(0.05, 0.1, 0.2, 0.25, 0.3, 0.1))),
        "eta": float(rng.choice((0.1, 0.3, 1.0))),
        "min_child_weight": float(rng.choice((0.01, 1))),
        "gamma": float(rng.choice((0, 0, 0.5))),
        "max_cat_to_onehot": int(rng.choice((1, 4, 100))),
        "num_parallel_tree": int(rng.choice((1, 1, 3))),
        "subsample": float(rng.choice((1.0, 0.6))),
        "tree_method": str(rng.choice(("hist", "approx") if categorical else ("hist", "approx", "exact"))),
    }
    if rng.random() < 0.3:
        params |= {"booster": "dart", "rate_drop": 0.4, "normalize_type": str(rng.choice(("tree", "forest")))}
    if params["tree_method"] == "exact":
        params["max_depth"] = max(params["max_depth"], 1)
    elif rng.random() < 0.2:
        params |= {"grow_policy": "lossguide", "max_leaves": 20}
    if objective in MULTI:
        params["num_class"] = int(rng.integers(2, 6))
    if objective == "reg:quantileerror":
        params["quantile_alpha"] = [0.1, 0.5, 0.9][: int(rng.integers(1, 4))]
    elif rng.random() < 0.3:
        params["base_score"] = float(rng.choice((0.1, 0.5, 0.77)))
    return params


def _matrix(
    rng: np.random.Generator,
    objective: str,
    params: dict[str, Any],
    rows: NDArray[np.float32],
    categorical: NDArray[np.bool_],
) -> xgboost.DMatrix:
    types = ["c" if coded else "float" for coded in categorical]
    matrix = xgboost.DMatrix(rows, feature_types=types, enable_categorical=True)
    matrix.set_label(_labels(rng, objective, params, rows))
    if objective in RANKING:
        matrix.set_group([50] * (len(rows) // 50))
    return matrix


def _labels(
    rng: np.random.Generator, objective: str, params: dict[str, Any], rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Labels that follow the rows, so that trees grow."""
    signal = np.nan_to_num(rows, nan=0.7, posinf=3, neginf=-3).astype(np.float64) % 5
    score = signal @ rng.normal(size=rows.shape[1]) + rng.normal(size=len(rows))
    rank = score.argsort().argsort() / np.float64(len(score))
    kinds = {"multi": params.get("num_class", 0), "binary": 2, "rank": 2 if objective == "rank:map" else 4}
    kind, _, _ = objective.partition(":")
    if kind in kinds:
        return np.asarray(np.floor(rank * kinds[kind]), np.float64)
    if objective in {"count:poisson", "survival:cox"}:
        return np.floor(rank * 4) + np.float64(objective == "survival:cox")
    return score if objective == "reg:squarederror" else 0.98 * rank + 0.01


def columns_of(values: NDArray[np.float32], row_count: int) -> NDArray[np.float32]:
    """XGBoost's answer as [n, g], whatever shape it chose."""
    return np.ascontiguousarray(values, np.float32).reshape(row_count, -1)


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    """Equal shape and equal bits, which tells zeros apart."""
    return left.shape == right.shape and bool(np.all(left.view(np.uint32) == right.view(np.uint32)))
