"""The command line, as a user or a script meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from server.cli import app
from server.commands.as_json import features_json, status_json
from server.commands.calls import key_and_value
from server.commands.check import plain
from server.errors import Problem
from server.scaffold import project_name
from server.wording import counted
from waypost.admin.v1 import admin_pb2
from waypost.features.v1 import features_pb2

ROOT = Path(__file__).parents[2]
CLINIC = Path(__file__).parents[1] / "fixtures" / "clinic"
runner = CliRunner()


def test_init_writes_a_repo_that_passes_its_check(tmp_path: Path) -> None:
    """A fresh repo has no errors and no warnings."""
    repo = tmp_path / "my-library"
    assert runner.invoke(app, ["init", str(repo)]).exit_code == 0
    result = runner.invoke(app, ["check", "--repo", str(repo), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["findings"]) == (0, [])
    assert "project: my_library" in (repo / "feature_store.yaml").read_text()


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    """A folder with something in it stays as it is."""
    (tmp_path / "notes.txt").write_text("mine")
    result = runner.invoke(app, ["init", str(tmp_path)])
    assert (result.exit_code, [path.name for path in tmp_path.iterdir()]) == (1, ["notes.txt"])
    assert "not an empty folder" in result.stderr


@pytest.mark.parametrize(
    ("folder", "project"), [("2nd try", "project_2nd_try"), ("Shop", "shop"), ("é", "project")]
)
def test_project_names_are_what_feast_takes(folder: str, project: str) -> None:
    """Letters, digits and underscores, not beginning with a digit."""
    assert project_name(Path(folder)) == project


def test_check_shows_findings_with_a_caret(tmp_path: Path) -> None:
    """A policy error has file, line, column, the line and a caret; the exit code is 1."""
    repo = tmp_path / "library"
    runner.invoke(app, ["init", str(repo)])
    policy = repo / "policy" / "app.policy"
    policy.write_text(policy.read_text().replace("loan_count_30d", "loan_cuont_30d"))
    result = runner.invoke(app, ["check", "--repo", str(repo)])
    assert result.exit_code == 1
    assert "policy/app.policy:" in result.stdout
    assert "^^^" in result.stdout
    assert "loan_count_30d" in result.stdout


def test_check_reports_broken_definitions_as_json(tmp_path: Path) -> None:
    """An error in Python is a finding with file and line, not a traceback."""
    repo = tmp_path / "library"
    runner.invoke(app, ["init", str(repo)])
    (repo / "more.py").write_text("import nothing_of_the_kind\n")
    result = runner.invoke(app, ["check", "--repo", str(repo), "--json"])
    finding = json.loads(result.stdout)["findings"][0]
    assert (result.exit_code, finding["file"], finding["line"]) == (1, "more.py", 1)


def test_check_warns_of_a_store_that_cannot_be_reached(tmp_path: Path) -> None:
    """An address that makes no sense is told with its place; the repo is served on a store that a setting names."""
    repo = tmp_path / "library"
    runner.invoke(app, ["init", str(repo)])
    store = repo / "feature_store.yaml"
    store.write_text(store.read_text().replace("localhost:6379", "localhost:6379,db=one"))
    result = runner.invoke(app, ["check", "--repo", str(repo)])
    assert result.exit_code == 0
    assert "warning: feature_store.yaml: online_store.connection_string: db is 'one'; use" in result.stdout
    assert "1 warning" in result.stdout


def test_check_wants_a_customer_that_views_know(tmp_path: Path) -> None:
    """The customer of events.yaml must be some view's join key."""
    repo = tmp_path / "library"
    runner.invoke(app, ["init", str(repo)])
    events = repo / "events.yaml"
    events.write_text(events.read_text().replace("customer: reader_id", "customer: reader"))
    result = runner.invoke(app, ["check", "--repo", str(repo)])
    assert (result.exit_code, "'reader'" in result.stdout) == (1, True)


def test_config_show_names_sources_and_hides_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is listed with where it comes from; a password is not shown."""
    monkeypatch.setenv("WAYPOST_REDIS_URL", "redis://me:secret@store:6379/0")
    result = runner.invoke(app, ["config", "show", "--json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["redis_url"] == {
        "name": "redis_url",
        "value": "redis://me:***@store:6379/0",
        "source": "environment",
    }
    assert "secret" not in result.stdout


def test_config_show_breaks_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns every variable stands whole, and what is not set is a dash, null in JSON."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = subprocess.run(
        [sys.executable, "-m", "server.cli", "config", "show"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"WAYPOST_LIMITS__MAX_CONCURRENT_CALLS +│ 1000", shown)
    assert re.search(r"WAYPOST_REDIS_URL +│ –", shown)
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["config", "show", "--json"]).stdout)}
    assert rows["redis_url"]["value"] is None


def test_json_has_null_for_what_never_was() -> None:
    """A feature that was never written and a partition that was never applied have no time, not the epoch's."""
    stamps = [Timestamp(), Timestamp(seconds=1)]
    columns = [features_pb2.FeatureColumn(name="v:f", event_timestamps=stamps)]
    shown = features_json(features_pb2.GetOnlineFeaturesResponse(columns=columns))
    assert shown["columns"][0]["eventTimestamps"] == [None, "1970-01-01T00:00:01Z"]
    partitions = [admin_pb2.PartitionStatus(watermark=stamp) for stamp in (Timestamp(), None, stamps[1])]
    state = status_json(admin_pb2.GetStatusResponse(partitions=partitions))
    assert [part["watermark"] for part in state["partitions"]] == [None, None, "1970-01-01T00:00:01Z"]


def test_check_names_a_file_once() -> None:
    """Problems of one file stand under its name, without the library's pointers to its own pages."""
    text = "events.yaml: types: wrong\n/tmp/r/events.yaml: customer: missing\n  see https://errors.pydantic.dev/x"
    shown = str(plain(Problem(message=text, file="events.yaml")))
    assert shown == "events.yaml: types: wrong\n  customer: missing"


@pytest.mark.parametrize(("count", "text"), [(0, "0 entities"), (1, "1 entity"), (2, "2 entities")])
def test_counts_agree_with_their_noun(count: int, text: str) -> None:
    """One is singular."""
    assert counted(count, "entity", "entities") == text


def test_only_up_says_that_it_starts_a_store() -> None:
    """Commands that need a store do not promise one."""
    promise = "one is started here"
    for command in ("up", "serve", "materializer", "backfill"):
        shown = " ".join(runner.invoke(app, [command, "--help"], env={"COLUMNS": "300"}).stdout.split())
        assert (promise in shown) == (command == "up")


def test_wrong_settings_end_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is named; no traceback."""
    monkeypatch.setenv("WAYPOST_PARTITION", "3")
    result = runner.invoke(app, ["config", "show"])
    assert (result.exit_code, "WAYPOST_PARTITION" in result.stderr) == (1, True)


def test_no_server_is_exit_code_3() -> None:
    """Scripts can tell that nothing listens from a refusal."""
    result = runner.invoke(app, ["status", "--target", "127.0.0.1:1"])
    assert (result.exit_code, "UNAVAILABLE" in result.stderr) == (3, True)


def test_an_unknown_decision_is_exit_code_1(tmp_path: Path) -> None:
    """Where the log has no such decision, the message says where it looked."""
    result = runner.invoke(app, ["explain", "0", "--data-dir", str(tmp_path)])
    assert (result.exit_code, str(tmp_path) in result.stderr.replace("\n", "")) == (1, True)


def test_an_unknown_bench_is_wrong_usage() -> None:
    """A measurement that does not exist is exit code 2."""
    assert runner.invoke(app, ["bench", "nothing"]).exit_code == 2


@pytest.mark.parametrize(
    ("sent", "kind", "value"),
    [
        ("3", "int64_value", 3),
        ("2.5", "double_value", 2.5),
        ("true", "bool_value", True),
        ("crime", "string_value", "crime"),
        ('"3"', "string_value", "3"),
        ("a=b", "string_value", "a=b"),
    ],
)
def test_values_are_read_from_text(sent: str, kind: str, value: object) -> None:
    """What looks like JSON is JSON, everything else is text."""
    name, message = key_and_value(f"name={sent}", "--context")
    assert (name, message.WhichOneof("kind"), getattr(message, kind)) == ("name", kind, value)


def test_instants_and_lists_are_read_from_text() -> None:
    """`@` makes an instant; JSON lists are lists."""
    instant = key_and_value("at=@1970-01-01T00:00:01Z", "--context")[1]
    assert instant.timestamp_value.seconds == 1
    items = key_and_value('tags=["a", "b"]', "--context")[1].list_value.values
    assert [item.string_value for item in items] == ["a", "b"]


def test_help_imports_nothing_heavy() -> None:
    """Help must come at once: neither Feast nor numba nor gRPC is imported for it."""
    program = (
        "import sys, server.cli; print([m for m in ('feast', 'numba', 'grpc', 'pandas') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_every_command_has_an_example() -> None:
    """A reader of `--help` sees how it is called."""
    commands = [command for command in app.registered_commands if command.callback is not None]
    assert len(commands) >= 16
    for command in commands:
        assert "Example:" in (command.callback.__doc__ or ""), command.name
