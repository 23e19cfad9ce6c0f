"""A trained segmentation model, through a running server: answer, record, replay and explanation."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from decision.centroids import Centroids
from server.bundles import kept_bundle
from server.checking import check_repo
from server.decision_codec import models_of, record_bytes
from server.decision_files import find
from server.replay import replay
from tests.support.clinic import CLINIC, TIMEOUT_S, refusal, run_clinic
from tests.support.clinic_models import LOYALTY, define, stored
from tests.support.valkey import start_valkey
from training.registry import Manifest
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2

RULE = """
rule slot_for_the_frequent on portal_banner:
  IF label(loyalty) = "frequent"
  THEN tag("frequent")
"""
SERVICE = '\nloyalty_v1 = FeatureService(name="loyalty_v1", features=[visits[["visit_count_30d"]]])\n'


def store_model(models_dir: Path, labels: tuple[str, ...] = ("rare", "frequent")) -> Manifest:
    """Two centroids, at one visit and at nine."""
    data = Centroids(
        feature_names=("visits__visit_count_30d",),
        means=np.array([5.0]),
        deviations=np.array([4.0]),
        points=np.array([[-1.0], [1.0]]),
    ).to_bytes()
    features = ("visits.visit_count_30d",)
    return stored(models_dir, data, "loyalty", features, kind="kmeans", labels=labels)


def make_repo(repo: Path) -> None:
    """The clinic's, with the model and the rule."""
    shutil.copytree(CLINIC, repo)
    define(repo, loyalty=LOYALTY)
    with (repo / "policy" / "portal.policy").open("a") as policy, (repo / "views.py").open("a") as views:
        policy.write(RULE)
        views.write(SERVICE)
    assert check_repo(repo).ok


def test_a_model_that_tells_other_labels_is_refused(tmp_path: Path) -> None:
    """Labels renamed in the definition wait for a model that tells them; until then the bundle before decides."""
    make_repo(tmp_path / "repo")
    before = store_model(tmp_path / "data" / "models")
    request = decision_pb2.DecideRequest(placement="portal_banner", customer_id="7")
    with start_valkey(tmp_path / "valkey") as url, run_clinic(tmp_path, url) as clinic:
        clinic.put("visits", {"patient_id": 7}, {"visit_count_30d": 8}, time.time_ns() // 1_000)
        define(tmp_path / "repo", loyalty=LOYALTY.replace("frequent]", "regular]"))
        policy = tmp_path / "repo" / "policy" / "portal.policy"
        policy.write_text(policy.read_text().replace('"frequent"', '"regular"'))
        with pytest.raises(grpc.RpcError) as caught:
            clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        refused = refusal(caught.value)
        assert refused.info.reason == "RELOAD_REFUSED"
        assert refused.message == (
            "the new policy is refused, the old one goes on deciding:\n"
            f"model {before} tells 'rare', 'frequent', but its definition names 'rare', 'regular': "
            "run `waypost train loyalty`, or put the definition back"
        )
        assert list(clinic.decisions.Decide(request, timeout=TIMEOUT_S).segments) == ["loyalty:frequent"]
        after = store_model(clinic.settings.models_dir, ("rare", "regular"))
        assert after.version != before.version
        clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        answer = clinic.decisions.Decide(request, timeout=TIMEOUT_S)
        assert (list(answer.segments), list(answer.tags)) == (["loyalty:regular"], ["regular"])


def test_label_decides_is_recorded_and_replays(tmp_path: Path) -> None:
    """The label of stored features fires a rule; the record names the model and replays to the same bytes."""
    make_repo(tmp_path / "repo")
    manifest = store_model(tmp_path / "data" / "models")
    with start_valkey(tmp_path / "valkey") as url, run_clinic(tmp_path, url) as clinic:
        clinic.put("visits", {"patient_id": 7}, {"visit_count_30d": 8}, time.time_ns() // 1_000)
        told = {
            customer: clinic.decisions.Decide(
                decision_pb2.DecideRequest(placement="portal_banner", customer_id=customer), timeout=TIMEOUT_S
            )
            for customer in ("7", "8")
        }
        assert (list(told["7"].segments), list(told["7"].tags)) == (["loyalty:frequent"], ["frequent"])
        assert (list(told["8"].segments), list(told["8"].tags)) == ([], [])
        decision_id = told["7"].decision_id
        deadline = time.monotonic() + TIMEOUT_S
        while (record := find(clinic.settings.decisions_dir, decision_id)) is None:
            assert time.monotonic() < deadline
        assert models_of(record) == (str(manifest),)
        settings = clinic.settings
        bundle = kept_bundle(
            settings.bundles_dir, settings.models_dir, record.bundle_version, models_of(record)
        )
        assert record_bytes(replay(record, bundle)) == record_bytes(record)
        answer = clinic.decisions.Explain(
            decision_pb2.ExplainRequest(decision_id=decision_id), timeout=TIMEOUT_S
        )
        condition = next(item for item in answer.conditions if item.rule == "slot_for_the_frequent")
        assert condition.text == 'label(loyalty) = "frequent"'
        assert condition.comparisons[0].values["label(loyalty)"].string_value == "frequent"
