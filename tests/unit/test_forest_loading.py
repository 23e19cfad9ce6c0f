"""Loading model files: formats, categories, refusals, and what a corrupt file is told."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost

from decision.forest import (
    ForestError,
    ForestInputError,
    ModelFormatError,
    UnsupportedModelError,
    load_forest,
)
from decision.forest.document import float32_of_text
from decision.forest.ubjson import MAX_DEPTH, decode_ubjson
from tests.support.forest_models import columns_of, same_bits

ROWS = np.random.default_rng(7).normal(size=(120, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] > ROWS[:, 1]).astype(np.float32)


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    matrix = xgboost.DMatrix(ROWS, LABELS, feature_names=["a", "b", "c"], feature_types=["float", "int", "q"])
    return xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, matrix, 4)


@pytest.fixture(scope="module")
def document(booster: xgboost.Booster) -> str:
    return str(booster.save_raw("json").decode())


def _edited(document: str, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    value = json.loads(document)
    edit(value)
    return json.dumps(value).encode()


def _model(value: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = value["learner"]["gradient_booster"]["model"]
    return model


def _tree(value: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = _model(value)["trees"][1]
    return tree


def test_forest_is_the_same_from_json_and_ubjson(booster: xgboost.Booster) -> None:
    """Both formats give the same forest, told apart without being told."""
    from_json, from_ubjson = (load_forest(bytes(booster.save_raw(kind))) for kind in ("json", "ubj"))
    assert same_bits(from_json.margins(ROWS), from_ubjson.margins(ROWS))
    assert from_json.feature_names == from_ubjson.feature_names == ("a", "b", "c")
    assert from_json.feature_types == ("float", "int", "q")
    assert from_json.objective == "binary:logistic"
    assert from_json.content_hash != from_ubjson.content_hash


def test_forest_names_features_as_xgboost_does_without_names() -> None:
    """A model trained on a bare array has features f0, f1, …."""
    booster = xgboost.train({"max_depth": 1}, xgboost.DMatrix(ROWS, LABELS), 1)
    forest = load_forest(bytes(booster.save_raw()))
    assert forest.feature_names == ("f0", "f1", "f2")
    assert forest.feature_types == ("float",) * 3


def test_forest_without_trees_gives_the_base_margin() -> None:
    """Zero rounds are a model too."""
    for params in ({"base_score": 0.25}, {}, {"base_score": 0.25, "objective": "binary:logistic"}):
        empty = xgboost.train(params, xgboost.DMatrix(ROWS, LABELS > 0), 0)
        forest = load_forest(bytes(empty.save_raw()))
        theirs = empty.inplace_predict(ROWS, predict_type="margin")
        assert same_bits(forest.margins(ROWS), columns_of(theirs, len(ROWS)))


def test_forest_decimal_is_rounded_once(document: str) -> None:
    """A threshold whose float64 lies halfway between two float32 is still rounded as XGBoost rounds it."""
    text = "1.00000005960464477540"  # one digit above the middle of 1 and the next float32
    assert float32_of_text(text) == np.nextafter(np.float32(1), np.float32(2))
    assert np.float32(float(text)) == np.float32(1)
    assert float32_of_text("1.00000005960464477538") == 1
    assert float32_of_text("1.000000059604644775390625") == 1

    def edit(value: dict[str, Any]) -> None:
        tree = _tree(value)
        tree["split_conditions"][0] = "MARK"
        tree["split_indices"][0] = 0

    data = _edited(document, edit).replace(b'"MARK"', text.encode())
    booster = xgboost.Booster(model_file=bytearray(data))
    rows = np.array([[1, 0, 0], [np.nextafter(np.float32(1), np.float32(2)), 0, 0]], np.float32)
    theirs = booster.inplace_predict(rows, predict_type="margin")
    assert same_bits(load_forest(data).margins(rows), columns_of(theirs, 2))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["red", "green", "blue", ""], "pandas"),
        (["red", "gr\u00fcn", "\u9752", "bl\u00e5", "\U0001f3a8"], "arrow"),
        ([3, 5, 900], "pandas"),
    ],
)
def test_forest_knows_the_models_categories(words: list[str | int], kind: str) -> None:
    """Values of categorical features map to the codes of the frame the model was trained on."""
    values = [words[i % len(words)] for i in range(120)]
    frame = pd.DataFrame({"colour": pd.Series(values, dtype="category"), "size": ROWS[:, 0]})
    booster = _train(frame if kind == "pandas" else pa.Table.from_pandas(frame), frame)
    forest = load_forest(bytes(booster.save_raw()))
    assert forest.categories == {"colour": tuple(frame["colour"].cat.categories)}
    encoded = forest.encode([values, ROWS[:, 0].tolist()])
    assert encoded.rows[:, 0].tolist() == frame["colour"].cat.codes.tolist()
    assert not encoded.unseen
    theirs = booster.inplace_predict(frame, predict_type="margin") if kind == "pandas" else None
    if theirs is not None:
        assert same_bits(forest.margins(encoded.rows), columns_of(theirs, 120))


def _train(table: Any, frame: pd.DataFrame) -> xgboost.Booster:
    labels = frame["colour"].cat.codes.to_numpy() % 2 + frame["size"].to_numpy()
    matrix = xgboost.DMatrix(table, labels, enable_categorical=True)
    return xgboost.train({"max_depth": 3, "nthread": 1}, matrix, 3)


def test_forest_refuses_categories_that_xgboost_cut_short() -> None:
    """XGBoost counts characters where it needs bytes of a pandas frame: such a model is refused, with the way out."""
    values = ["\u00e9a" if i % 2 else "\u00e9b" for i in range(120)]
    frame = pd.DataFrame({"colour": pd.Series(values, dtype="category"), "size": ROWS[:, 0]})
    with pytest.raises(ModelFormatError, match="Arrow"):
        load_forest(bytes(_train(frame, frame).save_raw()))


def test_forest_refuses_what_it_cannot_reproduce(document: str) -> None:
    """gblinear, vector leaves, unknown objectives, future formats and untrained models are refused by name."""
    untrained = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, LABELS > 0), 0)
    linear = xgboost.train({"booster": "gblinear"}, xgboost.DMatrix(ROWS, LABELS), 1)
    vector = xgboost.train({"multi_strategy": "multi_output_tree"}, xgboost.DMatrix(ROWS, ROWS[:, :2]), 1)
    refused = {
        "gblinear": bytes(linear.save_raw()),
        "vector leaves": bytes(vector.save_raw()),
        "objective 'x:y'": _edited(document, lambda v: v["learner"]["objective"].update(name="x:y")),
        "no trees and no base score": bytes(untrained.save_raw()),
        "format 4": _edited(document, lambda v: v.update(version=[4, 0, 0])),
        "right child": _edited(document, lambda v: _swap_children(_tree(v))),
        "kind of split": _edited(document, lambda v: _tree(v)["split_type"].__setitem__(0, 2)),
    }
    for words, data in refused.items():
        with pytest.raises(UnsupportedModelError, match=words):
            load_forest(data)


def _swap_children(tree: dict[str, Any]) -> None:
    tree["left_children"], tree["right_children"] = tree["right_children"], tree["left_children"]


_BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "NaN": lambda v: _tree(v)["split_conditions"].__setitem__(0, float("nan")),
    "leaf is not finite": lambda v: _tree(v)["split_conditions"].__setitem__(-1, float("inf")),
    "feature index": lambda v: _tree(v)["split_indices"].__setitem__(0, 3),
    "child index": lambda v: (
        _tree(v)["left_children"].__setitem__(0, 10**6),
        _tree(v)["right_children"].__setitem__(0, 10**6 + 1),
    ),
    "two parents": lambda v: (
        _tree(v)["left_children"].__setitem__(2, 1),
        _tree(v)["right_children"].__setitem__(2, 2),
    ),
    "an array of": lambda v: _tree(v)["default_left"].pop(),
    "without nodes": lambda v: _tree(v).update(left_children=[], right_children=[]),
    "tree_info": lambda v: _model(v)["tree_info"].__setitem__(0, 1),
    "iteration_indptr": lambda v: _model(v)["iteration_indptr"].__setitem__(1, 99),
    "base_score": lambda v: v["learner"]["learner_model_param"].update(base_score="[nan]"),
    "range of the objective": lambda v: v["learner"]["learner_model_param"].update(base_score="[1E0]"),
    "2 scores for 1": lambda v: v["learner"]["learner_model_param"].update(base_score="[0.1,0.2]"),
    "num_feature": lambda v: v["learner"]["learner_model_param"].update(num_feature="9999999"),
    "feature_names has": lambda v: v["learner"].update(feature_names=["a"]),
    "occurs twice": lambda v: v["learner"].update(feature_names=["a", "a", "b"]),
    "'trees' is missing": lambda v: _model(v).pop("trees"),
    "array of numbers": lambda v: _tree(v)["split_conditions"].__setitem__(0, "1"),
    "array of integers": lambda v: _tree(v)["left_children"].__setitem__(0, 1.5),
    "out of range": lambda v: _tree(v)["split_conditions"].__setitem__(0, 10**400),
    "whole number": lambda v: v["learner"]["learner_model_param"].update(num_class="many"),
    "categories": lambda v: _tree(v)["split_type"].__setitem__(0, 1),
    "category is not in": lambda v: _tree(v).update(categories=[1 << 24]),
    "segment is out": lambda v: _tree(v).update(
        categories_nodes=[0], categories_segments=[0], categories_sizes=[2]
    ),
}


@pytest.mark.parametrize("words", _BROKEN)
def test_forest_corrupt_field_is_named(document: str, words: str) -> None:
    """Each broken field gives one clear error that says what is wrong."""
    with pytest.raises(ModelFormatError, match=words):
        load_forest(_edited(document, _BROKEN[words]))


def test_forest_cut_short_is_refused_at_every_length(booster: xgboost.Booster) -> None:
    """A model file cut anywhere is a ForestError, never a crash and never a smaller model."""
    for kind in ("ubj", "json"):
        data = bytes(booster.save_raw(kind))
        for length in range(0, len(data), 7):
            with pytest.raises(ForestError):
                load_forest(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"{L" + b"\xff" * 8,
        b"{i\x01a" + b"[" * 1_000_000,
        b"{i\x01a[$d#L\x7f" + b"\xff" * 7,
        b"{i\x01a[$Z#L\x00\x00\x00\x7f\xff\xff\xff\xff}",
        b"{i\x01a[#L\x00\x00\x00\x7f\xff\xff\xff\xff",
        b"{i\x01aSi\xff",
        b"{i\x01aZi\x01aZ}",
        b"{i\x01aZ}x",
        b"{i\x01a?}",
        bytes(range(256)) * 4096,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a": 1, "a": 2}',
        b"[1, 2]",
        b"\xff\xfe",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_forest_garbage_is_refused_within_a_second(data: bytes) -> None:
    """Garbage, nesting without end and absurd lengths are refused at once, without the memory they ask for."""
    started = time.thread_time()
    with pytest.raises(ForestError):
        load_forest(data)
    assert time.thread_time() - started < 1


def test_ubjson_reads_every_kind() -> None:
    """Scalars, strings, counted and open containers decode to Python values."""
    text = b"{i\x01a[i\xffU\xffI\x01\x00l\x00\x00\x00\x02Cx]i\x01b{#i\x01i\x01cTi\x01d[#i\x02ZF}"
    assert decode_ubjson(text) == {"a": [-1, 255, 256, 2, "x"], "b": {"c": True}, "d": [None, False]}
    nested = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert decode_ubjson(nested)
    with pytest.raises(ModelFormatError, match="deeper"):
        decode_ubjson(b"[" + nested + b"]")


def test_forest_bounds_its_sets_of_categories(document: str) -> None:
    """Sets with the greatest codes take megabytes each: a small file cannot ask for gigabytes."""

    def edit(value: dict[str, Any]) -> None:
        model = _model(value)
        model["trees"] = [_with_set(model["trees"][0], number) for number in range(100)]
        model["tree_info"] = [0] * 100
        model["iteration_indptr"] = list(range(101))

    data = _edited(document, edit)
    started = time.thread_time()
    with pytest.raises(UnsupportedModelError, match="sets of categories"):
        load_forest(data)
    assert time.thread_time() - started < 1


def _with_set(tree: dict[str, Any], number: int) -> dict[str, Any]:
    split_type = [1, *tree["split_type"][1:]]
    segment = {"categories_nodes": [0], "categories_segments": [0], "categories_sizes": [2]}
    return tree | segment | {"split_type": split_type, "categories": [number, 2**24 - 1]}


def test_forest_without_sound_cover_scores_but_does_not_attribute(booster: xgboost.Booster) -> None:
    """Cover is read for attributions alone: a signalling NaN there leaves margins alone and refuses attributions."""
    data = bytes(booster.save_raw())
    tree = _tree(json.loads(booster.save_raw("json")))
    cover = struct.pack(">f", tree["sum_hessian"][0])
    broken = data.replace(cover, b"\x7f\xa0\x00\x00", 1)
    assert broken != data
    forest = load_forest(broken)
    assert same_bits(forest.margins(ROWS), load_forest(data).margins(ROWS))
    with pytest.raises(ForestInputError, match="sum_hessian"):
        forest.contributions(ROWS)
