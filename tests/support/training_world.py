"""A small made-up shop for the tests of training: events, and value logs written by plain Python, window by window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, Service, ValueType, View
from training.definition import TrainingDefinition, parse_definition

START_US = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000
TIMESTAMP = pa.timestamp("us", tz="UTC")
ARROW = {
    ValueType.INT64: pa.int64(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.UNIX_TIMESTAMP: TIMESTAMP,
}
KINDS = ("tea", "coffee", "milk")
CANDIDATES = tuple({"kind": kind} for kind in KINDS)

DEFINITION = """
name: affinity
feature_service: affinity_v1
label: {event_type: purchase, join_keys: [customer, kind], horizon_s: 172800}
decision_times: {entity: customer, every_s: 86400, jitter_s: 86399, active_within_s: 2592000}
candidates: {tag: kind, join_keys: [kind]}
splits:
  train: {start: 2024-01-05T00:00:00Z, end: 2024-02-05T00:00:00Z, sample: 0.7}
  validation: {start: 2024-02-05T00:00:00Z, end: 2024-02-15T00:00:00Z}
  test: {start: 2024-02-15T00:00:00Z, end: 2024-02-25T00:00:00Z}
boosting:
  max_rounds: 12
  early_stopping_rounds: 5
  parameters: {objective: binary:logistic, eval_metric: logloss, tree_method: hist, max_depth: 3, subsample: 0.8}
baselines:
  - {name: recency, feature: pair.last_at}
gate: {min_auc_gain: -1.0, max_log_loss_ratio: 10.0, max_calibration_error: 1.0}
seed: 7
"""


def definition() -> TrainingDefinition:
    """Trains on three weeks and judges on two."""
    found = parse_definition(DEFINITION, "affinity.yaml")
    assert isinstance(found, TrainingDefinition)
    return found


def view(
    folder: Path, name: str, keys: Iterable[str], features: Mapping[str, ValueType], ttl_s: float = 0
) -> View:
    """A view whose log lies in `folder/name`."""
    return View(
        name=name,
        join_keys=tuple(JoinKey(name=key, value_type=ValueType.STRING) for key in keys),
        features=tuple(Feature(name=feature, value_type=kind) for feature, kind in features.items()),
        ttl_s=ttl_s,
        offline_path=str(folder / name / "*.parquet"),
    )


def catalog(folder: Path) -> Catalog:
    """Three views of one, two and one keys, one of them with a TTL, and the service that reads them."""
    views = (
        view(folder, "buyer", ["customer"], {"orders": ValueType.INT64, "mean": ValueType.DOUBLE}),
        view(
            folder,
            "pair",
            ["customer", "kind"],
            {"orders": ValueType.INT64, "last_at": ValueType.UNIX_TIMESTAMP},
        ),
        view(
            folder, "crm", ["customer"], {"band": ValueType.STRING, "vip": ValueType.BOOL}, ttl_s=20 * 86_400
        ),
    )
    refs = tuple(
        FeatureRef(view=item.name, feature=feature.name) for item in views for feature in item.features
    )
    return Catalog(project="tea", views=views, services=(Service(name="affinity_v1", features=refs),))


def events(customer_count: int = 20, day_count: int = 60, seed: int = 1) -> pd.DataFrame:
    """Purchases with tastes: each customer prefers a kind."""
    rng = np.random.default_rng(seed)
    count = customer_count * day_count // 2
    customer = rng.integers(0, customer_count, count)
    taste = rng.random(count) < 0.7
    kind = np.where(taste, customer % len(KINDS), rng.integers(0, len(KINDS), count))
    times_us = np.sort(START_US + rng.integers(0, day_count * DAY_US, count))
    return event_frame([f"c{number}" for number in customer], [KINDS[number] for number in kind], times_us)


def event_frame(customers: Sequence[str], kinds: Sequence[str], times_us: np.ndarray) -> pd.DataFrame:
    """Purchase events, in the order given."""
    return pd.DataFrame(
        {
            "event_type": "purchase",
            "customer": customers,
            "kind": kinds,
            "event_time": pd.DatetimeIndex(np.asarray(times_us).view("datetime64[us]")).tz_localize("UTC"),
        }
    )


def times_us(purchases: pd.DataFrame) -> list[int]:
    """Event times in microseconds."""
    times: list[int] = pd.DatetimeIndex(purchases["event_time"]).as_unit("us").asi8.tolist()
    return times


def write_logs(world: Catalog, purchases: pd.DataFrame) -> None:
    """The value logs of all views: a row at every purchase, computed by walking the events one by one."""
    counts: dict[str, int] = {}
    pairs: dict[tuple[str, str], int] = {}
    buyers, both = [], []
    for time_us, customer, kind in sorted(
        zip(times_us(purchases), purchases["customer"], purchases["kind"], strict=True)
    ):
        counts[customer] = counts.get(customer, 0) + 1
        pairs[customer, kind] = pairs.get((customer, kind), 0) + 1
        mean = counts[customer] / (1 + (time_us - START_US) / DAY_US)
        buyers.append({"customer": customer, "orders": counts[customer], "mean": mean, "at": time_us})
        key = {"customer": customer, "kind": kind}
        last_us = time_us // 1_000_000 * 1_000_000
        both.append({**key, "orders": pairs[customer, kind], "last_at": last_us, "at": time_us})
    crm = [
        {
            "customer": customer,
            "band": f"b{int(customer[1:]) % 4}",
            "vip": customer.endswith("1"),
            "at": START_US,
        }
        for customer in sorted(set(purchases["customer"]))[1:]
    ]
    for name, rows in (("buyer", buyers), ("pair", both), ("crm", crm)):
        write_log(world.view_by_name[name], rows)


def write_log(target: View, rows: Sequence[Mapping[str, Any]], part: str = "part") -> None:
    """Write rows (join keys, features, `at` in µs and optionally `created`, in µs) as a part of a view's log."""
    folder = Path(str(target.offline_path)).parent
    folder.mkdir(parents=True, exist_ok=True)
    types = {key.name: ARROW[key.value_type] for key in target.join_keys}
    types |= {feature.name: ARROW[feature.value_type] for feature in target.features}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    columns["event_timestamp"] = pa.array([row["at"] for row in rows], TIMESTAMP)
    columns["created"] = pa.array([row.get("created", row["at"]) for row in rows], TIMESTAMP)
    pq.write_table(pa.table(columns), folder / f"{part}.parquet")
