"""The join of training against Feast's own `get_historical_features`, on the example shop's definitions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from decision.schema import Catalog, ValueType, View
from server.repo import load_repo
from tests.support.training_world import DAY_US, START_US, write_log
from training.dataset import Dataset, features_at, find_service
from training.verify import verify_against_feast

if TYPE_CHECKING:
    from feast import FeatureStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

REPO = Path(__file__).parents[2] / "feature_repo"
SERVICE = "category_affinity_v1"
CUSTOMERS = tuple(str(number) for number in range(12))
CATEGORIES = ("SOFT DRINKS", "BEEF", "CHEESE")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's repo, applied by Feast's own command."""
    folder = tmp_path_factory.mktemp("shop") / "feature_repo"
    shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    feast = Path(sys.executable).with_name("feast")
    subprocess.run([feast, "apply"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def catalog(repo: Path) -> Catalog:
    return load_repo(repo).catalog


@pytest.fixture(scope="module")
def store(repo: Path) -> FeatureStore:
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repo))


@pytest.fixture(scope="module")
def dataset(catalog: Catalog) -> Dataset:
    """Random logs over 500 days (the CRM's TTL is 400), and instants before, between, at and after their rows."""
    rng = np.random.default_rng(11)
    service = find_service(catalog, SERVICE)
    stamps: list[int] = []
    for name in dict.fromkeys(ref.view for ref in service.features):
        rows = [_row(rng, catalog.view_by_name[name]) for _ in range(150)]
        write_log(catalog.view_by_name[name], rows)
        stamps += [row["at"] for row in rows]
    count = 600
    chosen = rng.choice(stamps, count) + rng.choice([-1, 0, 0, 1, 30 * DAY_US, 450 * DAY_US], count)
    asked = pa.table(
        {
            "customer_id": rng.choice(CUSTOMERS, count).tolist(),
            "product_category": rng.choice(CATEGORIES, count).tolist(),
            "label_time_us": chosen,
        }
    )
    asked = asked.group_by(asked.column_names, use_threads=False).aggregate([])
    joined = features_at(catalog=catalog, service=service, rows=asked)
    return Dataset(table=joined, features=service.features, join_keys=("customer_id", "product_category"))


def _row(rng: np.random.Generator, view: View) -> dict[str, Any]:
    row: dict[str, Any] = {key.name: _key(rng, key.name) for key in view.join_keys}
    row |= {feature.name: _value(rng, feature.value_type) for feature in view.features}
    at = START_US + int(rng.integers(0, 500)) * DAY_US + int(rng.integers(0, 3))
    return row | {"at": at, "created": at + int(rng.integers(0, DAY_US))}


def _key(rng: np.random.Generator, name: str) -> str:
    return str(rng.choice(CUSTOMERS if name == "customer_id" else CATEGORIES))


def _value(rng: np.random.Generator, kind: ValueType) -> object:
    if rng.random() < 0.1:
        return None
    if kind is ValueType.STRING:
        return f"band {rng.integers(0, 5)}"
    if kind is ValueType.DOUBLE:
        return float(rng.normal())
    if kind is ValueType.UNIX_TIMESTAMP:
        return START_US + int(rng.integers(0, 500 * 86_400)) * 1_000_000
    return int(rng.integers(0, 1_000))


def test_join_equals_feast(store: FeatureStore, dataset: Dataset) -> None:
    """Every cell, expired, missing and same-instant ones included, is what Feast gives for the same rows."""
    verification = verify_against_feast(store, SERVICE, dataset, row_count=2_000)
    assert verification.equal, verification.differences
    assert verification.row_count == dataset.table.num_rows > 400
    cells = verification.row_count * verification.column_count
    assert 0.05 * cells < verification.missing_count < 0.95 * cells


def test_verification_finds_a_changed_cell(store: FeatureStore, dataset: Dataset) -> None:
    """One number that is off by one is reported with its row and column: equality is not vacuous."""
    name = "purchase_history__orders_7d"
    values = dataset.table[name].to_pylist()
    changed = next(number for number, value in enumerate(values) if value is not None)
    values[changed] += 1
    index = dataset.table.column_names.index(name)
    table = dataset.table.set_column(index, name, pa.array(values, pa.int64()))
    tampered = Dataset(table=table, features=dataset.features, join_keys=dataset.join_keys)
    verification = verify_against_feast(store, SERVICE, tampered)
    assert verification.difference_count == 1
    assert verification.differences[0].column == name
