"""`waypost check` on a repo for each of the broken policies: what it prints, and the exit code that CI goes by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from decision.lang.findings import WARNINGS
from server.cli import app

FINDINGS = Path(__file__).parent / "lang" / "findings"
REPO = Path(__file__).parents[1] / "fixtures" / "findings"
POLICIES = sorted(FINDINGS.glob("*.policy"))
WRONG = "the repo cannot be served"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repo that the policies are written against, without one."""
    folder = Path(shutil.copytree(REPO, tmp_path_factory.mktemp("repo") / "shop"))
    (folder / "policy").mkdir()
    return folder


@pytest.fixture
def policy(repo: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A broken policy, in the repo while a test runs."""
    placed = Path(shutil.copy(request.param, repo / "policy"))
    yield placed
    placed.unlink()


def check(repo: Path, *options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["check", "--repo", str(repo), *options])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem, indirect=True)
def test_command_prints_the_findings_and_exits_by_them(repo: Path, policy: Path) -> None:
    """Errors give 1, warnings alone give 0, and every finding is printed with its caret."""
    expected = (FINDINGS / policy.name).with_suffix(".txt").read_text("utf-8")
    done = check(repo)
    assert done.output.replace(f"policy/{policy.name}", policy.name).startswith(expected.rstrip("\n"))
    has_errors = ": error[" in expected
    assert done.exit_code == int(has_errors)
    assert (WRONG in done.output) == has_errors


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.stem, indirect=True)
def test_machines_read_the_same(repo: Path, policy: Path) -> None:
    """`--json` has the same findings by code, line and column, and the same exit code."""
    done = check(repo, "--json")
    told = json.loads(done.output)
    lines = (FINDINGS / policy.name).with_suffix(".txt").read_text("utf-8").splitlines()
    heads = [line for line in lines if line.startswith(f"{policy.name}:")]
    assert [
        f"{policy.name}:{item['line']}:{item['column']}: {item['severity']}[{item['code']}]: "
        for item in told["findings"]
    ] == [line[: line.index("]: ") + 3] for line in heads]
    assert told["ok"] == (done.exit_code == 0) == all(item["code"] in WARNINGS for item in told["findings"])
