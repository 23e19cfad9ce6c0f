"""Once a server serves, nothing is compiled or imported any more: for a reload, a new model or any first call."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np

from decision.centroids import Centroids
from server.embedded import EmbeddedValkey
from tests.support.clinic import CLINIC, TIMEOUT_S, text
from tests.support.clinic_models import CARE, FEATURES, LOYALTY, define, stored, trained
from tests.support.up import ENV
from waypost.admin.v1 import admin_pb2, admin_pb2_grpc
from waypost.decision.v1 import decision_pb2, decision_pb2_grpc

POLICY = """
placement everything:
  context note string, size int64, ratio float64, flag bool, at timestamp
  candidates tagged "care", priority_slot
  model care
  limit 3
  at most 2 tagged "care"
  minimum score 0.0
  explore {explore}
  fallback call_us
  changeable note, size, visits.visit_count_30d

cap twice on everything: at most 200 in 30 days counted by visits.visit_count_30d

rule words on everything priority 3:
  IF note LIKE "%pain%" OR note IN ("itch", "ache") OR contains(offer.tags, note) OR note = profile.insurer
  THEN boost(tag "care", 1.5), tag("words") ELSE bury("skin_check", 0.5)
rule times on everything:
  IF hour(at, "Europe/Berlin") < 10 OR weekday(now()) = 1 OR at > now() - 3 days THEN include(tag "care")
rule numbers on everything:
  IF round(ratio * 3) % 2 = 1 AND size BETWEEN -3 AND 10 OR coalesce(size, 0) + least(size, 4) > 100
  THEN pin("skin_check", 2)
rule told on everything:
  IF label(loyalty) = "frequent" AND NOT flag AND bucket(customer, "salt", 10) < 9
  THEN display_recommendation("priority_slot")
"""
EXPLORES = (
    "epsilon 0.1 over top 3",
    "softmax temperature 0.5 over top 3",
    "thompson successes visits.visit_count_30d failures department_load.visit_count_1d over top 3",
)


def store_models(models_dir: Path, depth: int) -> None:
    """A forest with words among its inputs, as deep as that, and centroids."""
    stored(models_dir, trained("ubj", 10 * depth, max_depth=depth))
    centroids = Centroids(
        feature_names=("visits__visit_count_30d",),
        means=np.array([float(depth)]),
        deviations=np.array([4.0]),
        points=np.array([[-1.0], [1.0]]),
    )
    stored(
        models_dir,
        centroids.to_bytes(),
        "loyalty",
        FEATURES[:1],
        kind="kmeans",
        labels=("rare", "frequent"),
    )


def write(repo: Path, explore: str) -> None:
    (repo / "policy" / "everything.policy").write_text(POLICY.format(explore=explore))


def exercise(channel: grpc.Channel) -> None:
    """Decide and explain at every placement, on what is there and what is not."""
    decisions = decision_pb2_grpc.DecisionServiceStub(channel)
    contexts = [{}, {"note": text("back pain")}, {"note": text("never seen before")}]
    for placement in ("everything", "portal_banner", "quiet_corner"):
        for context in contexts if placement == "everything" else [{}]:
            request = decision_pb2.DecideRequest(placement=placement, customer_id="7", context=context)
            answer = decisions.Decide(request, timeout=TIMEOUT_S)
            assert answer.offers
            explained = decision_pb2.ExplainRequest(request=request, why_not=["call_us"])
            decisions.Explain(explained, timeout=TIMEOUT_S)


def test_nothing_is_compiled_once_a_server_serves(store: EmbeddedValkey, tmp_path: Path) -> None:
    """Neither compiled nor loaded from the compiler's cache: rules of every kind, models and exploration are data."""
    repo, data_dir = tmp_path / "repo", tmp_path / "data"
    shutil.copytree(CLINIC, repo)
    command = [sys.executable, "-m", "tests.support.watched_server", str(repo), str(data_dir), store.url]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            target = next(line for line in server.stdout if line.startswith("127.0.0.1:")).strip()
            define(repo, care=CARE, loyalty=LOYALTY)
            with grpc.insecure_channel(target) as channel:
                admin = admin_pb2_grpc.AdminServiceStub(channel)
                for depth, explore in enumerate(EXPLORES, 3):
                    write(repo, explore)
                    store_models(data_dir / "models", depth)
                    admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
                    assert len(admin.GetStatus(admin_pb2.GetStatusRequest()).model_versions) == 2
                    exercise(channel)
        finally:
            server.send_signal(signal.SIGTERM)
        heard = [line for line in server.stdout if line.startswith("{")]
    assert server.returncode == 0
    assert json.loads(heard[-1]) == {"compiled": [], "imported": []}
