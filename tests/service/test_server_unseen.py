"""A category that the model never saw, through a running server: answer, metric, record and replay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from decision.schema import Value
from server.bundles import kept_bundle
from server.decision_codec import models_of, record_bytes
from server.decision_files import find
from server.embedded import EmbeddedValkey
from server.replay import replay
from tests.support.clinic import TIMEOUT_S, Clinic, run_clinic
from tests.support.clinic_models import INSURERS, score_with_care
from waypost.decision.v1 import decision_pb2

UNSEEN = decision_pb2.DEGRADATION_KIND_UNSEEN_CATEGORY


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server that scores by the insurer, among others; patient 7 has one that the model knows, 8 has not."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url) as running:
        score_with_care(running)
        for patient, insurer in ((7, INSURERS[0]), (8, "west")):
            values: dict[str, Value] = {"age_years": 40, "insurer": insurer, "reminders_wanted": True}
            running.put("profile", {"patient_id": patient}, values, time.time_ns() // 1_000)
        yield running


def decide(clinic: Clinic, customer: str) -> decision_pb2.DecideResponse:
    request = decision_pb2.DecideRequest(placement="portal_banner", customer_id=customer)
    return clinic.decisions.Decide(request, timeout=TIMEOUT_S)


def counted(clinic: Clinic) -> float:
    """Decisions so far that met an unseen category."""
    with urlopen(f"http://{clinic.addresses.http}/metrics", timeout=TIMEOUT_S) as page:
        lines = page.read().decode().splitlines()
    start = 'waypost_decisions_degraded_total{kind="unseen_category"} '
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_an_unseen_category_is_answered_counted_and_replayed(clinic: Clinic) -> None:
    """The answer scores without it and says so; the metric counts it; the record replays to the same bytes."""
    assert [item.kind for item in decide(clinic, "7").degraded] == []
    assert counted(clinic) == 0
    answer = decide(clinic, "8")
    (told,) = answer.degraded
    assert (told.kind, told.name) == (UNSEEN, "profile.insurer")
    assert told.detail == f"'west' is no category of {answer.model_version}: it counts as missing"
    assert counted(clinic) == 1
    deadline = time.monotonic() + TIMEOUT_S
    while (record := find(clinic.settings.decisions_dir, answer.decision_id)) is None:
        assert time.monotonic() < deadline
    settings = clinic.settings
    bundle = kept_bundle(settings.bundles_dir, settings.models_dir, record.bundle_version, models_of(record))
    assert record_bytes(replay(record, bundle)) == record_bytes(record)
