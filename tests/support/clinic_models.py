"""Models for the clinic of `tests/fixtures/clinic`: what defines them, and files in its registry."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost

from tests.support.clinic import TIMEOUT_S, Clinic
from training import registry
from training.registry import Manifest
from waypost.admin.v1 import admin_pb2

CARE = """
name: care
feature_service: care_v1
label: {event_type: booked, join_keys: [patient_id, department], horizon_s: 604800}
decision_times: {entity: patient_id, every_s: 604800, jitter_s: 0, active_within_s: 7776000}
candidates: {tag: care, join_keys: [department]}
splits:
  train: {start: 2024-01-01T00:00:00Z, end: 2024-02-01T00:00:00Z}
  validation: {start: 2024-02-01T00:00:00Z, end: 2024-02-10T00:00:00Z}
  test: {start: 2024-02-10T00:00:00Z, end: 2024-02-20T00:00:00Z}
"""
LOYALTY = """
kind: kmeans
name: loyalty
feature_service: loyalty_v1
entity: patient_id
instants: [2024-01-20T00:00:00Z]
labels: [rare, frequent]
order_by: visits.visit_count_30d
"""
FEATURES = ("visits.visit_count_30d", "profile.age_years", "profile.insurer")
INSURERS = ("north", "south")


def define(repo: Path, **texts: str) -> None:
    """Definitions in a repo, by name."""
    (repo / "models").mkdir(exist_ok=True)
    for name, text in texts.items():
        (repo / "models" / f"{name}.yaml").write_text(text)


def trained(kind: str = "json", rounds: int = 5, **parameters: Any) -> bytes:
    """A small model of `FEATURES` that knows `INSURERS`."""
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "visits__visit_count_30d": rng.integers(0, 9, 200).astype(np.float32),
            "profile__age_years": rng.integers(1, 99, 200).astype(np.float32),
            "profile__insurer": pd.Categorical(rng.choice(INSURERS, 200), categories=list(INSURERS)),
        }
    )
    labels = (rows["visits__visit_count_30d"] > 3).astype(int)
    data = xgboost.DMatrix(rows, labels, enable_categorical=True)
    settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, **parameters}
    return bytes(xgboost.train(settings, data, rounds).save_raw(kind))


def stored(
    models_dir: Path, data: bytes, name: str = "care", features: tuple[str, ...] = FEATURES, **parts: Any
) -> Manifest:
    """A file in the registry under its own hash, and in use."""
    manifest = Manifest.model_validate(
        {
            "name": name,
            "version": registry.version_of(data, parts.get("labels", ())),
            "content_hash": hashlib.sha256(data).hexdigest(),
            "feature_service": f"{name}_v1",
            "features": features,
            "splits": {},
            "metrics": {},
            "catalog_hash": "",
            "definition_hash": "",
            "parameters": {},
            "libraries": {},
            "created_us": 1,
            **parts,
        }
    )
    registry.save(models_dir, manifest, data)
    registry.promote(models_dir, name, manifest.version)
    return manifest


def score_with_care(clinic: Clinic) -> None:
    """Have the running clinic's portal scored by a good model."""
    define(clinic.settings.repo, care=CARE)
    policy = clinic.settings.repo / "policy" / "portal.policy"
    policy.write_text(policy.read_text().replace("  limit 3\n", "  limit 3\n  model care\n"))
    stored(clinic.settings.models_dir, trained())
    clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
