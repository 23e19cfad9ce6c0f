"""What goes into a forest and comes out: encoding, checks of rows, compiled kernels."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from numba import config
from numba.core.dispatcher import Dispatcher

from decision.forest import Forest, ForestInputError, kernels, lanes, load_forest
from tests.support.forest_models import random_case, same_bits


@pytest.fixture(scope="module")
def forest() -> Forest:
    """Features: a number, words, whole-number categories."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "spend": rng.normal(size=90),
            "colour": pd.Series(["red", "blue", "green"] * 30, dtype="category"),
            "shop": pd.Series([7, 9] * 45, dtype="category"),
        }
    )
    matrix = xgboost.DMatrix(frame, rng.integers(0, 3, 90), enable_categorical=True)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, matrix, 3)
    return load_forest(bytes(booster.save_raw()))


def test_encode_puts_values_into_columns(forest: Forest) -> None:
    """Numbers, bools, None and categories become float32, one column per feature."""
    rows, unseen = forest.encode([[1.5, None, True], ["red", "blue", None], [9, 7.0, None]])
    expected = np.array([[1.5, 2, 1], [np.nan, 0, 0], [1, np.nan, np.nan]], np.float32)
    assert np.array_equal(rows, expected, equal_nan=True)
    assert rows.dtype == np.float32
    assert unseen == ()


def test_encode_reports_unseen_categories(forest: Forest) -> None:
    """An unseen category is missing, and named once."""
    rows, unseen = forest.encode([[0.0] * 3, ["Red", "Red", "blue"], [8, float("nan"), 7]])
    assert np.isnan(rows[:, 1]).tolist() == [True, True, False]
    assert np.isnan(rows[:, 2]).tolist() == [True, True, False]
    assert unseen == (("colour", "Red"), ("shop", 8))


def test_encode_rounds_numbers_once(forest: Forest) -> None:
    """int64 go straight to float32; float64 beyond its range become infinite, as in XGBoost."""
    great = 2**60 + 2**36 + 1  # rounds up; by way of float64 it would tie and round down
    rows, _ = forest.encode([[great, 1e300, -1e300, 0.1], ["red"] * 4, [7] * 4])
    assert rows[:, 0].tolist() == [
        float(np.int64(great).astype(np.float32)),
        np.inf,
        -np.inf,
        float(np.float32(0.1)),
    ]
    assert float(np.float32(great)) == rows[0, 0] or float(np.float32(float(great))) != rows[0, 0]


@pytest.mark.parametrize("depth", range(1, lanes.MAX_DEPTH + 2))
def test_every_number_of_rows_goes_through_trees_of_every_depth(depth: int) -> None:
    """Where vectors of one width end and the next begin, and where trees get too deep for them."""
    rng = np.random.default_rng(depth)
    rows = rng.normal(size=(2 * lanes.ROWS + 2, 5)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    matrix = xgboost.DMatrix(rows, rng.normal(size=len(rows)))
    params = {"max_depth": depth, "min_child_weight": 0, "tree_method": "exact", "nthread": 1}
    booster = xgboost.train(params, matrix, 9)
    forest = load_forest(bytes(booster.save_raw("ubj")))
    theirs = booster.inplace_predict(rows, predict_type="margin")[:, None]
    around = [width + more for width in (0, *lanes.WIDTHS, 2 * lanes.ROWS) for more in (-1, 0, 1, 2)]
    for count in around[1:]:
        assert same_bits(forest.margins(rows[:count]), theirs[:count])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([[1.0], ["red"]], "2 columns for 3 features"),
        ([[1.0], ["red"], [7, 9]], "different lengths"),
        ([["1.0"], ["red"], [7]], "spend: a number expected"),
        ([[(1.0,)], ["red"], [7]], "spend: a number expected"),
        ([[1.0], [b"red"], [7]], "colour: a category"),
        ([[1.0], ["red"], [(7,)]], "shop: a category"),
        ([[2**63], ["red"], [7]], "not an int64"),
    ],
)
def test_encode_refuses_what_is_no_value_of_a_feature(forest: Forest, columns: list[Any], words: str) -> None:
    """A wrong shape or kind is an error that names the feature, never a NaN."""
    with pytest.raises(ForestInputError, match=words):
        forest.encode(columns)


def test_encode_takes_no_rows(forest: Forest) -> None:
    """Nothing in, nothing out."""
    rows, unseen = forest.encode([[], [], []])
    assert rows.shape == (0, 3)
    assert unseen == ()
    assert forest.margins(rows).shape == forest.predict(rows).shape == (0, 3)
    assert forest.contributions(rows).shape == (0, 3, 4)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 3)), np.zeros((2, 4), np.float32), np.zeros(3, np.float32)],
    ids=["float64", "wide", "flat"],
)
def test_margins_refuse_other_shapes_and_types(forest: Forest, rows: np.ndarray) -> None:
    """Rows are float32[n, f] and nothing else."""
    for method in (forest.margins, forest.predict, forest.contributions):
        with pytest.raises(ForestInputError, match=r"float32\[n, 3\]"):
            method(rows)


def test_margins_take_any_memory_layout(forest: Forest) -> None:
    """Strided, Fortran-ordered, unaligned and read-only rows score as their contiguous copy."""
    rows = np.random.default_rng(5).normal(size=(20, 3)).astype(np.float32)
    expected = forest.margins(rows)
    padded = np.zeros((40, 6), np.float32)
    padded[::2, ::2] = rows
    unaligned = np.frombuffer(b"\0" + rows.tobytes(), np.uint8)[1:].view(np.float32).reshape(20, 3)
    frozen = rows.copy()
    frozen.flags.writeable = False
    for same in (padded[::2, ::2], np.asfortranarray(rows), unaligned, frozen):
        assert same_bits(forest.margins(same), expected)


def test_forest_is_shared_between_threads() -> None:
    """Several threads scoring with one forest get the bits that one gets alone."""
    case = random_case(11)
    forest = load_forest(bytes(case.booster.save_raw()))
    rows = np.repeat(case.rows, 50, axis=0)
    expected = forest.margins(rows)
    results: list[bool] = []

    def score() -> None:
        results.extend(same_bits(forest.margins(rows), expected) for _ in range(20))

    threads = [threading.Thread(target=score) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


def test_kernels_compile_nothing_after_warm(forest: Forest) -> None:
    """Every kernel has exactly its declared signature before and after use, and refuses any other."""
    kernels.warm()
    compiled = [value for value in vars(kernels).values() if isinstance(value, Dispatcher)]
    assert len(compiled) >= 10
    rows, _ = forest.encode([[1.0] * 9, ["red"] * 9, [7] * 9])
    forest.predict(rows)
    forest.contributions(rows)
    assert [len(kernel.signatures) for kernel in compiled] == [1] * len(compiled)
    with pytest.raises(TypeError):
        kernels.transform(np.zeros((1, 1)), 0)


def test_kernels_keep_nan_and_cache() -> None:
    """Options that the proofs rest on: no fastmath, no GIL, a cache on disk."""
    for kernel in vars(kernels).values():
        if isinstance(kernel, Dispatcher):
            assert not kernel.targetoptions["fastmath"]
            assert kernel.targetoptions["nogil"]
            assert kernel.stats.cache_path


def test_keys_order_as_floats_do() -> None:
    """Keys of sorted floats are sorted, both zeros share one, and missing is outside of all."""
    values = np.array([-np.inf, -3.4e38, -1, -1e-45, -0.0, 0.0, 1e-45, 1, 3.4e38, np.inf], np.float32)
    keys = [kernels.key_of(value) for value in values]
    assert keys == sorted(keys)
    assert keys[4] == keys[5]
    assert len(set(keys)) == len(keys) - 1
    assert keys[0] > kernels.KEY_LEAST
    assert keys[-1] < kernels.KEY_GREATEST


@pytest.mark.parametrize(
    ("name", "features", "wide"),
    [("generic", None, False), ("haswell", "+avx2", False), (None, "+avx2,+avx512f", True)],
)
def test_width_of_vectors_follows_the_processor_compiled_for(
    monkeypatch: pytest.MonkeyPatch, name: str | None, features: str | None, wide: bool
) -> None:
    """Not the one it runs on, where Numba is told another."""
    monkeypatch.setattr(config, "CPU_NAME", name)
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    assert lanes._is_wide() is wide
