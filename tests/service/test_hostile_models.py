"""A running server is told to reload hostile models: it says what is wrong, and goes on deciding as before."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import xgboost

from server.embedded import EmbeddedValkey
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic
from tests.support.clinic_models import FEATURES, score_with_care, stored, trained
from training import registry
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2

LIMIT_S = 1.0
"""Of processor time, a reload of everything else included: a busy machine may stall any process."""
DETAILS_MAX = 10_000


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server that scores with a good model."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url) as running:
        score_with_care(running)
        assert decided(running).startswith("care@")
        yield running


@pytest.fixture
def models_dir(clinic: Clinic) -> Iterator[Path]:
    """The registry, whose good model is put back to use afterwards."""
    folder = clinic.settings.models_dir
    good = (folder / "care" / "current").read_text()
    yield folder
    pointer = folder / "care" / "current"
    if pointer.is_dir():
        pointer.rmdir()
    pointer.write_text(good)
    clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)


def decided(clinic: Clinic) -> str:
    """The model that scores now."""
    request = decision_pb2.DecideRequest(placement="portal_banner", customer_id="1")
    response = clinic.decisions.Decide(request, timeout=TIMEOUT_S)
    assert response.offers
    return response.model_version


def assert_refused(clinic: Clinic) -> str:
    """A reload is refused with a reason, and the model from before goes on; returns what was said."""
    before = decided(clinic)
    started = time.process_time()
    with pytest.raises(grpc.RpcError) as caught:
        clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
    assert time.process_time() - started < LIMIT_S
    refused = refusal(caught.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RELOAD_REFUSED")
    assert "care" in refused.message
    assert len(refused.message) < DETAILS_MAX
    assert decided(clinic) == before
    return refused.message


def _edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    document = json.loads(trained())
    edit(document)
    return json.dumps(document).encode()


def _tree(document: dict[str, Any], number: int = 0) -> dict[str, Any]:
    tree: dict[str, Any] = document["learner"]["gradient_booster"]["model"]["trees"][number]
    return tree


def _set(key: str, value: object, at: int = 0) -> Callable[[], bytes]:
    return lambda: _edited(lambda document: _tree(document)[key].__setitem__(at, value))


def _ring(document: dict[str, Any]) -> None:
    """A node is its own child."""
    tree = _tree(document)
    tree["left_children"][2], tree["right_children"][2] = 1, 2


def _deep(document: dict[str, Any]) -> None:
    """A tree that is one long path, deeper than any stack."""
    count = 200_001
    inner = range(0, count - 1, 2)
    left, right = [-1] * count, [-1] * count
    for node in inner:
        left[node], right[node] = node + 1, node + 2
    tree = _tree(document)
    tree.update(
        left_children=left,
        right_children=right,
        parents=[2147483647, *((node - 1) // 2 * 2 for node in range(1, count))],
        split_indices=[0] * count,
        split_conditions=[float(node % 9) for node in range(count)],
        split_type=[0] * count,
        default_left=[0] * count,
        base_weights=[0.0] * count,
        loss_changes=[0.0] * count,
        sum_hessian=[1.0] * count,
        categories=[],
        categories_nodes=[],
        categories_segments=[],
        categories_sizes=[],
    )
    tree["tree_param"]["num_nodes"] = str(count)


def _noise(size: int) -> bytes:
    return random.Random(7).randbytes(1_000_000) * (size // 1_000_000)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut short": (lambda: trained()[:-200], "neither UBJSON nor JSON"),
    "empty": (lambda: b"", "neither UBJSON nor JSON"),
    "100 MB of noise": (lambda: _noise(100_000_000), "neither UBJSON nor JSON"),
    "100 MB of zeros": (lambda: bytes(100_000_000), "neither UBJSON nor JSON"),
    "100 MB of brackets": (lambda: b"[" * 100_000_000, "recursion"),
    "100 MB that begin as UBJSON": (lambda: b"{L" + _noise(100_000_000), "more than the document holds"),
    "a NaN threshold": (_set("split_conditions", float("nan")), "NaN"),
    "an infinite leaf": (_set("split_conditions", float("inf"), -1), "not finite"),
    "a child beyond the tree": (_set("left_children", 10**6), "child index"),
    "a negative child": (_set("left_children", -7), "child index"),
    "a feature beyond the row": (_set("split_indices", 99), "feature index"),
    "a ring": (lambda: _edited(_ring), "two parents"),
    "a path of 100,000": (lambda: _edited(_deep), "deeper than 1024"),
    "several outputs": (lambda: trained(objective="multi:softprob", num_class=2), "2 outputs"),
    "linear": (
        lambda: bytes(
            xgboost.train(
                {"booster": "gblinear"}, xgboost.DMatrix(np.eye(3), np.ones(3)), num_boost_round=1
            ).save_raw("json")
        ),
        "gblinear",
    ),
    "a later format": (lambda: _edited(lambda document: document.update(version=[9, 0, 0])), "format 9"),
    "other names": (
        lambda: _edited(lambda document: document["learner"].update(feature_names=["a", "b", "c"])),
        "columns",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused(clinic: Clinic, models_dir: Path, name: str) -> None:
    """Whatever the file, the answer names the model, and decisions go on with the one before."""
    make, said = HOSTILE[name]
    stored(models_dir, make())
    assert said in assert_refused(clinic)


WRONG = {
    "one too few": FEATURES[:2],
    "one too many": (*FEATURES, "visits.fees_90d"),
    "another order": (FEATURES[1], FEATURES[0], FEATURES[2]),
}


@pytest.mark.parametrize("name", WRONG)
def test_features_that_are_not_the_models_are_refused(clinic: Clinic, models_dir: Path, name: str) -> None:
    """Too few, too many and another order are the wrong columns."""
    data = trained(seed=100 + list(WRONG).index(name), subsample=0.9)
    stored(models_dir, data, features=WRONG[name])
    assert f"its features {tuple(each.replace('.', '__') for each in WRONG[name])}" in assert_refused(clinic)


def test_a_text_without_categories_is_refused(clinic: Clinic, models_dir: Path) -> None:
    """A model that takes the insurer for a number cannot be fed with texts."""
    rows = xgboost.DMatrix(
        np.eye(9, 3), np.arange(9) % 2, feature_names=[name.replace(".", "__") for name in FEATURES]
    )
    data = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 2).save_raw("json")
    stored(models_dir, bytes(data))
    assert "stores no categories" in assert_refused(clinic)


def test_a_feature_of_another_repo_is_refused(clinic: Clinic, models_dir: Path) -> None:
    """A model of features that the repo does not define says which."""
    rows = xgboost.DMatrix(np.eye(9, 1), np.arange(9) % 2, feature_names=["elsewhere__age"])
    data = xgboost.train({"objective": "binary:logistic", "nthread": 1}, rows, 2).save_raw("json")
    stored(models_dir, bytes(data), features=("elsewhere.age",))
    assert "elsewhere.age, which is no feature" in assert_refused(clinic)


def _cut(folder: Path) -> None:
    path = folder / registry.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-100])


def _say(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


def _folder_for_pointer(folder: Path) -> None:
    pointer = folder.parent / "current"
    pointer.unlink()
    pointer.mkdir()


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut after it was stored": (_cut, "its hash differs"),
    "without its file": (lambda folder: (folder / registry.MODEL_FILE).unlink(), "cannot be read"),
    "without its manifest": (lambda folder: (folder / registry.MANIFEST_FILE).unlink(), "cannot be read"),
    "a manifest of noise": (_say(registry.MANIFEST_FILE, "\0" * 1_000_000), "Invalid JSON"),
    "a manifest of nothing": (_say(registry.MANIFEST_FILE, "{}"), "Field required"),
    "a manifest of brackets": (_say(registry.MANIFEST_FILE, "[" * 1_000_000), "Invalid JSON"),
    "a pointer to nowhere": (_say("../current", "0123456789ab"), "is not stored"),
    "a pointer outside": (_say("../current", "../../../etc"), "which is no version"),
    "a pointer of noise": (
        lambda folder: (folder.parent / "current").write_bytes(_noise(1_000_000)),
        "which is no version",
    ),
    "a pointer that is a folder": (_folder_for_pointer, "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_registry_is_refused(clinic: Clinic, models_dir: Path, name: str) -> None:
    """What was damaged where it lies is named with its path, or with what it should be."""
    damage, said = DAMAGED[name]
    manifest = stored(models_dir, trained(seed=list(DAMAGED).index(name), subsample=0.5))
    damage(models_dir / "care" / manifest.version)
    assert said in assert_refused(clinic)
