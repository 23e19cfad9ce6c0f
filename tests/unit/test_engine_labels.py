"""Model segments: kernels against oracles, rules that read them, training and registry."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decision.bundle import Bundle
from decision.centroids import Centroids, load_centroids
from decision.engine import DegradationKind
from decision.errors import BundleError, ModelFileError
from decision.forest import load_forest
from decision.labelling import LabelHandle
from decision.lang.compiler import compile_expression, compile_policy
from decision.lang.format import format_expr
from decision.lang.interpreter import evaluate
from decision.program import Program
from decision.program.opcodes import FALSE, NULL, TRUE
from decision.schema import Catalog, FeatureRef, Service
from decision.scoring import column_name
from decision.sql.writer import to_sql
from server.models import load_model
from tests.support import training_world
from tests.support.engine_world import CATALOG, ask, frame, shown
from training.clusters import find_clusters
from training.definition import parse_definition
from training.errors import DefinitionError
from training.segmentation import train_segmentation

FEATURES = (FeatureRef(view="profile", feature="age"), FeatureRef(view="profile", feature="spend"))
NAMES = tuple(map(column_name, FEATURES))
LABELS = ("browsers", "high intent", "loyal")
POLICY = """
placement home:
  candidates tagged "x"
offer a (category = "a"):
  tags "x"
offer b (category = "b"):
  tags "x"
  when label(intent) <> "browsers"
rule r on home:
  IF label(intent) = "high intent" THEN tag("keen")
"""
FLOATS = st.floats(-1e3, 1e3, width=32) | st.just(np.nan)


def centroids(points: np.ndarray | None = None) -> Centroids:
    found = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]) if points is None else points
    return Centroids(
        feature_names=NAMES, means=np.array([40.0, 100.0]), deviations=np.array([10.0, 50.0]), points=found
    )


def labeller(model: object) -> LabelHandle:
    return LabelHandle(name="intent", version="1", features=FEATURES, labels=LABELS, model=model)  # type: ignore[arg-type]


def bundle(handle: LabelHandle | None) -> Bundle:
    compiled = compile_policy(
        {"a.policy": POLICY}, CATALOG, frozenset(), labels={"intent": LABELS}, customer_key="customer_id"
    )
    assert compiled.policy is not None, compiled.findings
    return Bundle.build(CATALOG, compiled.policy, {} if handle is None else {"intent": handle}, "customer_id")


@given(arrays(np.float32, (5, 2), elements=FLOATS), arrays(np.float64, (3, 2), elements=st.floats(-3, 3)))
def test_nearest_centroid_is_numpys(rows: np.ndarray, points: np.ndarray) -> None:
    """Squared distances over what is known; ties go to the first; nothing known is no centroid."""
    model = centroids(points)
    nearest, distances = model.nearest(rows)
    scaled = (rows.astype(np.float64) - model.means) / model.deviations
    gaps = np.nan_to_num((scaled[:, None, :] - points) ** 2)
    wanted = gaps[:, :, 0] + gaps[:, :, 1]
    known = np.isfinite(rows).any(axis=1)
    np.testing.assert_array_equal(nearest, np.where(known, wanted.argmin(axis=1), -1))
    np.testing.assert_array_equal(distances, np.where(known, wanted.min(axis=1), 0.0))


def test_label_of_a_forest_is_xgboosts_class() -> None:
    """The class with the largest margin, and none where every input is missing."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 2)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    data = xgb.DMatrix(rows, rng.integers(0, 3, 300), feature_names=list(NAMES))
    booster = xgb.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 8)
    handle = labeller(load_forest(bytes(booster.save_raw("ubj"))))
    wanted = booster.inplace_predict(rows, predict_type="margin").argmax(axis=1)
    for row, place in zip(rows, wanted, strict=True):
        told = None if np.isnan(row).all() else LABELS[place]
        assert handle.label(np.ascontiguousarray(row[None])) == told


@pytest.mark.parametrize(
    ("age", "spend", "label", "offers"),
    [
        (30, 50.0, "browsers", ["a"]),
        (40, 100.0, "high intent", ["a", "b"]),
        (None, 150.0, "loyal", ["a", "b"]),
        (None, None, None, ["a"]),
    ],
)
def test_rules_read_the_label(
    age: int | None, spend: float | None, label: str | None, offers: list[str]
) -> None:
    """Conditions of request and offer read it; the answer names it among the segments."""
    decision = ask(bundle(labeller(centroids())), frame({"profile.age": age, "profile.spend": spend}))
    assert decision.segments == (() if label is None else (f"intent:{label}",))
    assert decision.tags == (("keen",) if label == "high intent" else ())
    assert shown(decision) == offers


def test_absent_model_gives_null_and_says_so() -> None:
    """Without the model its label is NULL and the decision degraded."""
    decision = ask(bundle(None), frame({"profile.age": 40, "profile.spend": 100.0}))
    assert (decision.segments, decision.tags, shown(decision)) == ((), (), ["a"])
    assert (DegradationKind.MODEL_ABSENT, "intent") in {(item.kind, item.name) for item in decision.degraded}


def test_labels_must_be_the_models_outputs() -> None:
    """Two centroids have no three names."""
    with pytest.raises(BundleError, match="3 labels of 2"):
        bundle(labeller(centroids(np.zeros((2, 2)))))


@pytest.mark.parametrize("label", [*LABELS, None])
@pytest.mark.parametrize("text", ['label(intent) = "loyal"', 'label(intent) IN ("loyal", "browsers")'])
def test_evaluators_agree_on_labels(text: str, label: str | None) -> None:
    """Interpreter, program and SQL over a column of that name give one truth; the words compile again."""
    expr, findings = compile_expression(text, CATALOG, labels={"intent": LABELS})
    assert expr is not None, findings
    assert format_expr(expr) == text
    wanted = evaluate(expr, {"label(intent)": label}, 0)
    truth = Program.compile([expr]).run({"label(intent)": label}, 0).registers[0, 0]
    assert {FALSE: False, NULL: None, TRUE: True}[int(truth)] is wanted
    sql = to_sql(expr, {"label(intent)": '"label(intent)"'})
    query = f'SELECT {sql} FROM (SELECT ?::VARCHAR AS "label(intent)")'  # noqa: S608 - the text is the writer's
    assert duckdb.execute(query, [label]).fetchall() == [(wanted,)]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", centroids().to_bytes().replace(b"50.0", b"0.0")])
def test_bad_file_of_centroids_is_refused(data: bytes) -> None:
    """Malformed text and a deviation of zero are refused."""
    with pytest.raises(ModelFileError):
        load_centroids(data)


def test_clusters_are_found_again() -> None:
    """Three clouds are told apart, though some of their values are missing; the same seed gives the same bytes."""
    rng = np.random.default_rng(1)
    rows = np.repeat([[0, 0], [10, 10], [20, 20]], 100, axis=0) + rng.normal(size=(300, 2))
    rows[rng.random(rows.shape) < 0.05] = np.nan
    found = [find_clusters(NAMES, rows.astype(np.float32), 3, seed=5).sorted_by(0) for _ in range(2)]
    assert found[0].centroids.to_bytes() == found[1].centroids.to_bytes()
    middles = found[0].centroids.points * found[0].centroids.deviations + found[0].centroids.means
    np.testing.assert_allclose(middles, [[0, 0], [10, 10], [20, 20]], atol=0.5)
    assert found[0].explained > 0.9


KMEANS = """
kind: kmeans
name: intent
feature_service: buyer_v1
entity: customer
instants: [2024-01-20T00:00:00Z, 2024-02-01T00:00:00Z]
labels: [new, known]
order_by: buyer.orders
"""
CLASSES = """
kind: classes
name: intent
feature_service: buyer_v1
entity: customer
instants: [2024-01-20T00:00:00Z, 2024-01-25T00:00:00Z]
test_instants: [2024-02-10T00:00:00Z]
horizon_s: 86400
classes: [{label: loyal, event_type: purchase, at_least: 2}, {label: high intent, event_type: purchase}]
otherwise: browsers
boosting: {max_rounds: 5}
min_accuracy_gain: -1
"""


@pytest.mark.parametrize("text", [KMEANS, CLASSES])
def test_definition_becomes_a_stored_model(text: str, tmp_path: Path) -> None:
    """Trained on the log, stored under its hash and loaded to tell labels."""
    purchases = training_world.events()
    world = training_world.catalog(tmp_path / "offline")
    refs = tuple(ref for ref in world.services[0].features if ref.view == "buyer")
    service = Service(name="buyer_v1", features=refs)
    world = Catalog(project=world.project, views=world.views, services=(service,))
    training_world.write_logs(world, purchases)
    definition = parse_definition(text, "intent.yaml")
    manifest = train_segmentation(
        definition=definition,  # type: ignore[arg-type]
        catalog=world,
        events=purchases,
        models_dir=tmp_path / "models",
        now_us=1,
    )
    handle = load_model(tmp_path / "models", "intent", manifest.version)
    assert isinstance(handle, LabelHandle)
    assert handle.labels == definition.labels  # type: ignore[union-attr]
    assert handle.label(np.array([[5, 0.5]], np.float32)) in handle.labels
    assert handle.label(np.full((1, 2), np.nan, np.float32)) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: kmeans", "kind: dbscan", "kind: 'dbscan' is none of"),
        ("[new, known]", "[new, new]", "labels must differ"),
        ("order_by: buyer.orders", "order_by: orders", "order_by"),
    ],
)
def test_bad_segmentation_definition_is_named(old: str, new: str, message: str) -> None:
    """Each problem is told with its field."""
    with pytest.raises(DefinitionError, match=message):
        parse_definition(KMEANS.replace(old, new), "intent.yaml")
