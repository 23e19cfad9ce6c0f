"""Explain over a real store: logged decisions and made-up ones in words, and why offers are not in them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from server.bundles import CATALOG_FILE, META_FILE
from server.cli import app
from server.decision_files import Row, find, write_rows
from server.embedded import EmbeddedValkey
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic, text, whole
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2

DAY_US = 86_400_000_000
TRUE, FALSE, NULL = decision_pb2.TRUTH_TRUE, decision_pb2.TRUTH_FALSE, decision_pb2.TRUTH_NULL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server of the clinic with one patient who came once."""
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url) as running:
        now_us = time.time_ns() // 1_000
        visits = {"visit_count_30d": 1, "fees_90d": 12.5}
        running.put("visits", {"patient_id": 7}, visits, now_us - DAY_US)
        yield running


def asked(**fields: Any) -> decision_pb2.DecideRequest:
    """A request for patient 7, with changes."""
    return decision_pb2.DecideRequest(**({"placement": "portal_banner", "customer_id": "7"} | fields))


def explain(clinic: Clinic, **fields: Any) -> decision_pb2.ExplainResponse:
    """A decision in words."""
    return clinic.decisions.Explain(decision_pb2.ExplainRequest(**fields), timeout=TIMEOUT_S)


def logged(clinic: Clinic) -> str:
    """The id of a decision that is in the log."""
    request = asked(context={"reason": text("itch")})
    decision_id = clinic.decisions.Decide(request, timeout=TIMEOUT_S).decision_id
    deadline = time.monotonic() + TIMEOUT_S
    while find(clinic.settings.decisions_dir, decision_id) is None:
        assert time.monotonic() < deadline, "the decision was not logged"
    return decision_id


def test_a_request_is_decided_and_explained(clinic: Clinic) -> None:
    """Every rule says whether it held, which comparison came out how, and on which values."""
    answer = explain(clinic, request=asked(context={"reason": text("pain")}))
    (slot,) = [verdict for verdict in answer.conditions if verdict.rule == "slot_for_regulars"]
    assert (slot.truth, slot.active, list(slot.actions), slot.offer) == (FALSE, True, [], "")
    assert slot.text == 'visits.visit_count_30d >= 2 AND context.reason = "pain"'
    assert [(part.text, part.truth) for part in slot.comparisons] == [
        ("visits.visit_count_30d >= 2", FALSE),
        ('context.reason = "pain"', TRUE),
    ]
    assert slot.comparisons[0].values["visits.visit_count_30d"].int64_value == 1
    assert answer.decision.offers[0].offer == "flu_shot"


def test_conditions_per_candidate_are_told_for_the_offers_in_the_answer(clinic: Clinic) -> None:
    """A rule on a candidate's own feature comes out for each; what is missing is NULL."""
    answer = explain(clinic, request=asked(limit=1))
    found = {verdict.offer: verdict for verdict in answer.conditions if verdict.rule == "spread_the_load"}
    assert found.keys() == {"flu_shot"}
    assert found["flu_shot"].truth == NULL
    wanted = explain(clinic, request=asked(limit=1), why_not=["skin_check"])
    assert {verdict.offer for verdict in wanted.conditions} == {"", "flu_shot", "skin_check"}


def test_a_logged_decision_says_why_not_and_what_would_do(clinic: Clinic) -> None:
    """The smallest change of what the policy declares changeable is told with old and new values."""
    (why,) = explain(clinic, decision_id=logged(clinic), why_not=["priority_slot"]).why_not
    assert (why.offer, why.shown) == ("priority_slot", False)
    assert why.obstacles[0].kind == decision_pb2.OBSTACLE_KIND_NOT_A_CANDIDATE
    changes = [(change.name, change.before, change.after) for change in why.nearest.changes]
    assert changes == [
        ("context.reason", text("itch"), text("pain")),
        ("visits.visit_count_30d", whole(1), whole(2)),
    ]
    assert (why.nearest.place, why.nearest.exact, why.nearest.note) == (1, True, "")


def test_what_no_change_brings_in_says_so(clinic: Clinic) -> None:
    """An offer that this placement cannot show has no change that would do, and an outranked one needs none."""
    answers = explain(clinic, request=asked(limit=1), why_not=["call_us", "skin_check"]).why_not
    assert not answers[0].nearest.changes
    assert answers[0].nearest.note.startswith("none found")
    assert answers[1].obstacles[0].kind == decision_pb2.OBSTACLE_KIND_OUTRANKED
    assert not answers[1].HasField("nearest")


Call = Callable[[Clinic], Any]
REFUSALS: list[tuple[str, grpc.StatusCode, list[str], Call]] = [
    ("REQUIRED_FIELD_MISSING", INVALID, ["decision_id"], explain),
    ("REQUIRED_FIELD_MISSING", INVALID, ["decision_id"], lambda c: explain(c, decision_id="")),
    ("REQUIRED_FIELD_MISSING", INVALID, ["placement"], lambda c: explain(c, request=asked(placement=""))),
    ("UNKNOWN_PLACEMENT", NOT_FOUND, [], lambda c: explain(c, request=asked(placement="portal_baner"))),
    ("UNKNOWN_DECISION", NOT_FOUND, [], lambda c: explain(c, decision_id="nothing-of-the-kind")),
    ("FIELD_OUT_OF_RANGE", INVALID, ["decision_id"], lambda c: explain(c, decision_id="x" * 1_000)),
    (
        "UNKNOWN_CANDIDATE",
        INVALID,
        ["why_not[1]"],
        lambda c: explain(c, request=asked(), why_not=["call_us", "priority_slut"]),
    ),
    (
        "FIELD_OUT_OF_RANGE",
        INVALID,
        ["why_not"],
        lambda c: explain(c, request=asked(), why_not=["call_us"] * 11),
    ),
]


@pytest.mark.parametrize(("reason", "code", "fields", "call"), REFUSALS)
def test_refusals_have_reason_code_and_field(
    clinic: Clinic, reason: str, code: grpc.StatusCode, fields: list[str], call: Call
) -> None:
    """What cannot be explained is refused with a machine-readable reason and the field at fault."""
    with pytest.raises(grpc.RpcError) as error:
        call(clinic)
    found = refusal(error.value)
    assert (found.info.reason, found.code, found.fields) == (reason, code, fields)


@pytest.mark.parametrize(
    ("reason", "code", "changes"),
    [
        ("BUNDLE_NOT_KEPT", NOT_FOUND, {"bundle_version": "f" * 64}),
        ("BUNDLE_NOT_KEPT", NOT_FOUND, {"model_version": "gone@1"}),
        ("ENGINE_MISMATCH", grpc.StatusCode.FAILED_PRECONDITION, {"engine_version": "0"}),
    ],
)
def test_records_of_another_time_are_not_misread(
    clinic: Clinic, reason: str, code: grpc.StatusCode, changes: dict[str, str]
) -> None:
    """A record whose bundle, model or engine is not at hand is refused instead of read by another."""
    record = find(clinic.settings.decisions_dir, logged(clinic))
    assert record is not None
    for name, value in changes.items():
        setattr(record, name, value)
    decision_id = f"of-another-time-{reason}-{len(changes)}-{next(iter(changes))}"
    write_rows(
        clinic.settings.decisions_dir,
        [
            Row(
                decision_id=decision_id,
                decided_at_us=record.decided_at_us,
                placement=record.request.placement,
                customer_id=record.request.customer_id,
                bundle_version=record.bundle_version,
                model_version=record.model_version,
                degraded=(),
                record=record.SerializeToString(),
            )
        ],
    )
    with pytest.raises(grpc.RpcError) as error:
        explain(clinic, decision_id=decision_id)
    found = refusal(error.value)
    assert (found.info.reason, found.code) == (reason, code)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no meta": lambda folder: (folder / META_FILE).unlink(),
    "meta cut short": lambda folder: (folder / META_FILE).write_text("{"),
    "meta of something else": lambda folder: (folder / META_FILE).write_text("{}"),
    "catalog of something else": lambda folder: (folder / CATALOG_FILE).write_text('["a"]'),
    "policy cut short": lambda folder: (folder / "policy" / "portal.policy").write_text("rule x on"),
    "no text": lambda folder: (folder / "policy" / "portal.policy").write_bytes(b"\xff"),
}


def test_a_damaged_bundle_is_named(store: EmbeddedValkey, tmp_path: Path) -> None:
    """Its decisions cannot be explained; that is no incident of the server's."""
    with run_clinic(tmp_path, store.url) as clinic:
        decision_id = logged(clinic)
        version = clinic.decisions.Decide(asked(), timeout=TIMEOUT_S).bundle_version
        policy = clinic.settings.repo / "policy" / "portal.policy"
        policy.write_text(policy.read_text().replace("Call us", "Ring us"))
        clinic.admin.Reload(admin_pb2.ReloadRequest(), timeout=TIMEOUT_S)
        folder = clinic.settings.bundles_dir / version
        shutil.copytree(folder, tmp_path / "whole")
        for damage in DAMAGES.values():
            damage(folder)
            with pytest.raises(grpc.RpcError) as error:
                explain(clinic, decision_id=decision_id)
            found = refusal(error.value)
            assert (found.info.reason, found.code) == ("BUNDLE_NOT_KEPT", NOT_FOUND)
            assert f"{version} in {folder.parent} is damaged" in found.message
            shutil.copytree(tmp_path / "whole", folder, dirs_exist_ok=True)
        assert explain(clinic, decision_id=decision_id).decision.decision_id == decision_id


def test_a_damaged_bundle_is_kept_anew_by_the_next_start(store: EmbeddedValkey, tmp_path: Path) -> None:
    """What a crash of the machine left empty is set aside, so that what is decided from then on can be explained."""
    with run_clinic(tmp_path, store.url) as clinic:
        folder = (
            clinic.settings.bundles_dir / clinic.decisions.Decide(asked(), timeout=TIMEOUT_S).bundle_version
        )
    for damage in DAMAGES.values():
        damage(folder)
        with run_clinic(tmp_path, store.url) as clinic:
            assert explain(clinic, decision_id=logged(clinic)).decision.bundle_version == folder.name
    assert len(list(folder.parent.glob(".*.damaged"))) == len(DAMAGES)


def test_the_command_says_the_same(clinic: Clinic) -> None:
    """`waypost explain --why-not` reads the log by itself, for people and for machines."""
    decision_id, folder = logged(clinic), str(clinic.settings.data_dir)
    words = ["explain", decision_id, "--why-not", "priority_slot", "--data-dir", folder]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "rule slot_for_regulars: FALSE" in shown.stdout
    assert "FALSE visits.visit_count_30d >= 2   (visits.visit_count_30d is 1)" in shown.stdout
    assert "context.reason: pain instead of itch" in shown.stdout
    machine = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert machine["whyNot"][0]["nearest"]["changes"][1]["after"] == {"int64Value": "2"}
    assert {"conditions", "request", "response", "requestVerdicts"} <= machine.keys()


def test_the_command_refuses_an_unknown_offer(clinic: Clinic) -> None:
    """A misspelt offer is an error with the nearest name."""
    words = [
        "explain",
        logged(clinic),
        "--why-not",
        "priority_slat",
        "--data-dir",
        str(clinic.settings.data_dir),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "did you mean 'priority_slot'" in result.stderr


def test_the_command_shows_a_record_whose_bundle_is_gone(clinic: Clinic, tmp_path: Path) -> None:
    """Without the bundle of then a record is still shown, and it is said what is missing."""
    record = find(clinic.settings.decisions_dir, logged(clinic))
    assert record is not None
    write_rows(
        tmp_path / "decisions",
        [
            Row(
                decision_id=record.response.decision_id,
                decided_at_us=record.decided_at_us,
                placement=record.request.placement,
                customer_id=record.request.customer_id,
                bundle_version=record.bundle_version,
                model_version="",
                degraded=(),
                record=record.SerializeToString(),
            )
        ],
    )
    result = CliRunner().invoke(app, ["explain", record.response.decision_id, "--data-dir", str(tmp_path)])
    assert result.exit_code == 0
    assert "is not kept" in result.stderr
    assert "visits.visit_count_30d = 1" in result.stdout
