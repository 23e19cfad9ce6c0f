"""Training and serving read the same numbers out of the same values, and score them the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from decision.forest import load_forest
from decision.frame import Block, layout_of
from decision.schema import DType
from decision.scoring import ModelHandle, column_name, plan_columns, plan_scoring
from tests.support.training_world import CANDIDATES, catalog, definition, events, write_logs
from training import registry
from training.matrix import encode, learn_encoding
from training.pipeline import TrainedModel, train_model
from training.train import predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_logs(catalog(folder), events())
    return folder


def train(folder: Path, models: str) -> TrainedModel:
    return train_model(
        definition=definition(),
        catalog=catalog(folder),
        events=events(),
        candidates=CANDIDATES,
        models_dir=folder / models,
        now_us=1,
        thread_count=1,
    )


@pytest.fixture(scope="module")
def trained(folder: Path) -> TrainedModel:
    return train(folder, "models")


def test_training_twice_gives_the_same_model(folder: Path, trained: TrainedModel) -> None:
    """Same data, definition and threads: same bytes, so the same version."""
    assert train(folder, "again").manifest == trained.manifest


def test_training_keeps_all_rounds_up_to_the_best(trained: TrainedModel) -> None:
    """The stored model has no rounds that early stopping rejected, and knows its categories."""
    stored = registry.load(trained.folder)
    forest = load_forest(stored.data)
    assert forest.iteration_count == stored.manifest.round_count <= definition().boosting.max_rounds
    assert tuple(forest.categories["crm__band"]) == ("b0", "b1", "b2", "b3")


def test_serving_scores_equal_training_scores(folder: Path, trained: TrainedModel) -> None:
    """A request's values give, through the engine's scoring, the bits that training's own encoding gives."""
    world = catalog(folder)
    stored = registry.load(trained.folder)
    handle = ModelHandle(
        name=stored.manifest.name,
        version=stored.manifest.version,
        features=stored.manifest.feature_refs,
        forest=load_forest(stored.data),
    )
    columns = plan_columns(handle, world, {"buyer", "crm"})
    once = layout_of(world, [ref for ref in handle.features if ref.view in {"buyer", "crm"}])
    each = layout_of(world, [ref for ref in handle.features if ref.view not in {"buyer", "crm"}])
    plan = plan_scoring(handle, columns, world, once, each)
    test = trained.dataset.split("test")
    encoding = learn_encoding(world, trained.dataset.split("train"))
    booster = xgb.Booster(model_file=bytearray(stored.data))
    expected = predict(booster, encode(encoding, test))
    timestamps = {column_name(ref) for ref in test.features if world.feature(ref).dtype is DType.TIMESTAMP}
    assert timestamps
    rows = test.table.to_pylist()
    for number in range(0, len(rows), 5):
        row = {str(ref): rows[number][column_name(ref)] for ref in test.features}
        matrix, unseen = plan.inputs(
            Block.of_row(once, row),
            Block.of_row(each, row),
            np.zeros(1, np.int64),
            int(test.times_us[number]),
        )
        assert not unseen
        margin = handle.forest.margins(matrix)[0, 0]
        wanted = booster.inplace_predict(encode(encoding, test).iloc[[number]], predict_type="margin")[0]
        assert np.float32(margin).tobytes() == np.float32(wanted).tobytes()
        predictions = plan.predict(matrix)
        assert predictions is not None
        assert predictions[0] == pytest.approx(float(expected[number]), rel=1e-6)
