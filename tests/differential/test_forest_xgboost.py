"""Random models and rows: the forest against XGBoost's `inplace_predict`, bit by bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import xgboost

from decision.forest import Forest, ForestInputError, load_forest
from tests.support.forest_models import Case, columns_of, random_case, same_bits

CASE_COUNT = 240
CONTRIBUTION_TOLERANCE = 1e-5  # of the sum of absolute contributions; XGBoost computes in float32

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def cases() -> list[tuple[Case, Forest]]:
    drawn = (random_case(seed) for seed in range(CASE_COUNT))
    return [
        (case, load_forest(bytes(case.booster.save_raw("json" if index % 3 == 0 else "ubj"))))
        for index, case in enumerate(drawn)
    ]


def test_forest_margins_have_xgboosts_bits(cases: list[tuple[Case, Forest]]) -> None:
    """Margins of 240 random models, over hostile rows, are bit-identical to `inplace_predict`'s."""
    different = [
        case.name
        for case, forest in cases
        if not same_bits(forest.margins(case.rows), _margins(case.booster, case.rows))
    ]
    assert not different


def test_forest_predictions_are_within_one_ulp(cases: list[tuple[Case, Forest]]) -> None:
    """Transformed outputs differ from XGBoost's by at most one unit in the last place."""
    for case, forest in cases:
        ours, theirs = (
            forest.predict(case.rows),
            columns_of(case.booster.inplace_predict(case.rows), len(case.rows)),
        )
        assert ours.shape == theirs.shape, case.name
        assert np.all(np.abs(_ordered(ours) - _ordered(theirs)) <= 1), case.name


def test_forest_honours_iteration_ranges(cases: list[tuple[Case, Forest]]) -> None:
    """Every range of rounds that XGBoost accepts gives the same bits, early stopping's own included."""
    for case, forest in cases[::3]:
        for begin, end in _ranges(forest):
            theirs = _margins(case.booster, case.rows, (begin, end))
            assert same_bits(forest.margins(case.rows, (begin, end)), theirs), (case.name, begin, end)


def test_forest_knows_the_best_iteration(cases: list[tuple[Case, Forest]]) -> None:
    """best_iteration is XGBoost's where early stopping ran and None elsewhere, and never applied unasked."""
    for case, forest in cases:
        stored = case.booster.attr("best_iteration")
        assert forest.best_iteration == (None if stored is None else case.booster.best_iteration)
        assert forest.iteration_count == case.booster.num_boosted_rounds()


def test_forest_contributions_match_pred_contribs(cases: list[tuple[Case, Forest]]) -> None:
    """Exact TreeSHAP agrees with XGBoost's, group by group, and sums to the margin."""
    for case, forest in cases[::4]:
        rows = _within_xgboosts_checks(case.rows, forest)
        matrix = xgboost.DMatrix(rows, feature_types=list(forest.feature_types), enable_categorical=True)
        theirs = case.booster.predict(matrix, pred_contribs=True).reshape(len(rows), forest.group_count, -1)
        ours = forest.contributions(rows)
        scale = np.abs(theirs).sum(axis=2, keepdims=True) + 1e-3
        assert np.all(np.abs(ours - theirs) <= CONTRIBUTION_TOLERANCE * scale), case.name
        assert np.all(
            np.abs(ours.sum(axis=2) - forest.margins(rows)) <= CONTRIBUTION_TOLERANCE * scale[:, :, 0]
        )


def test_forest_row_does_not_depend_on_its_neighbours(cases: list[tuple[Case, Forest]]) -> None:
    """A row scored alone, in any batch and at any place in it, has the same bits."""
    for case, forest in cases[::5]:
        together = forest.margins(case.rows)
        alone = np.concatenate([forest.margins(case.rows[i : i + 1]) for i in range(len(case.rows))])
        assert same_bits(together, alone), case.name
        assert same_bits(forest.margins(case.rows[::-1])[::-1].copy(), together), case.name


def test_forest_reads_formats_before_3_1(cases: list[tuple[Case, Forest]]) -> None:
    """A 2.x file (one base score as a bare number, no round index, no categories) gives XGBoost's margins too."""
    for case, _ in cases[:60]:
        data = _as_format_2(case.booster)
        old = xgboost.Booster({"nthread": 1}, model_file=bytearray(data))
        assert same_bits(load_forest(data).margins(case.rows), _margins(old, case.rows)), case.name


def test_forest_cases_cover_the_claims(cases: list[tuple[Case, Forest]]) -> None:
    """The random models really hold every kind that the other tests speak of."""
    seen = Counter(kind for case, forest in cases for kind in _kinds(case, forest))
    assert not {
        kind
        for kind in ("dart", "categorical", "forest", "stopped", "several", "deep", "gap")
        if seen[kind] < 8
    }
    assert len({forest.objective for _, forest in cases}) >= 17


def test_forest_refuses_ranges_as_xgboost_does(cases: list[tuple[Case, Forest]]) -> None:
    """Rounds out of order or past the end are errors in both."""
    case, forest = cases[0]
    for bad in ((0, forest.iteration_count + 1), (2, 1)):
        with pytest.raises(ForestInputError, match="rounds"):
            forest.margins(case.rows, bad)
        with pytest.raises(xgboost.core.XGBoostError):
            case.booster.inplace_predict(case.rows, predict_type="margin", iteration_range=bad)


def _margins(
    booster: xgboost.Booster, rows: np.ndarray, iteration_range: tuple[int, int] = (0, 0)
) -> np.ndarray:
    values = booster.inplace_predict(rows, predict_type="margin", iteration_range=iteration_range)
    return columns_of(values, len(rows))


def _ordered(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(2**31) - bits, bits)


def _ranges(forest: Forest) -> Iterator[tuple[int, int]]:
    count = forest.iteration_count
    yield from ((0, 1), (count // 2, 0), (count - 1, count))
    if forest.best_iteration is not None:
        yield (0, forest.best_iteration + 1)
    if not forest._dart:
        yield (count, count)


def _within_xgboosts_checks(rows: np.ndarray, forest: Forest) -> np.ndarray:
    """A DMatrix refuses infinities and odd codes, which `inplace_predict` takes."""
    kept = np.where(np.isinf(rows), np.float32(7), rows)
    coded = [kind == "c" for kind in forest.feature_types]
    kept[:, coded] = np.where((kept[:, coded] < 0) | (kept[:, coded] >= 2**24), 3, kept[:, coded])
    return kept


def _as_format_2(booster: xgboost.Booster) -> bytes:
    document = json.loads(booster.save_raw("json"))
    document["version"] = [2, 1, 0]
    learner = document["learner"]
    scores = json.loads(learner["learner_model_param"]["base_score"])
    learner["learner_model_param"]["base_score"] = f"{scores[0]:.9E}"
    gradient = learner["gradient_booster"]
    model = gradient.get("gbtree", gradient)["model"]
    model.pop("cats", None)
    return json.dumps(document).encode()


def _kinds(case: Case, forest: Forest) -> Iterator[str]:
    document = json.loads(case.booster.save_raw("json"))["learner"]["gradient_booster"]
    trees = document.get("gbtree", document)["model"]["trees"]
    yield from ["dart"] * ("gbtree" in document)
    yield from ["categorical"] * any(tree["categories"] for tree in trees)
    yield from ["forest"] * (len(trees) > forest.iteration_count * forest.group_count)
    yield from ["stopped"] * (forest.best_iteration is not None)
    yield from ["several"] * (forest.group_count > 1)
    yield from ["deep"] * (forest._layout.paths.depth > 8)
    yield from ["gap"] * bool(np.isnan(case.rows).any())
