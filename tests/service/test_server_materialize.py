"""The materializer process follows the policy that a server has taken over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from decision.lang.format import format_expr
from online.store import connect
from server import materialize
from server.bundles import repo_policy
from server.materialize import PolicyFollower, current_plan
from server.repo import Repo, load_repo
from server.stream_plans import stream_plan
from streaming.keys import policy_key
from streaming.plan import StreamPlan
from tests.support.valkey import start_valkey

CLINIC = Path(__file__).parents[1] / "fixtures" / "clinic"
POLICY = "policy/portal.policy"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url, connect(url) as client:
        yield client


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    shutil.copytree(CLINIC, tmp_path / "clinic")
    return load_repo(tmp_path / "clinic")


def _conditions(plan: StreamPlan) -> list[str]:
    return [format_expr(segment.condition) for segment in plan.customer.segments]


def test_follower_notices_each_new_version_once_announced(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was announced before the materializer started is what it started with."""
    monkeypatch.setattr(materialize, "FOLLOW_S", 0)
    client.set(policy_key("clinic"), "one")
    follower = PolicyFollower(client, "clinic")
    assert not follower.changed()
    client.set(policy_key("clinic"), "two")
    assert follower.changed()


def test_plan_takes_a_changed_segment_and_keeps_the_old_one_when_it_is_broken(repo: Repo) -> None:
    """The segments are those of the policy as it lies there; one with errors changes nothing."""
    plan = stream_plan(repo, repo_policy(repo))
    text = (repo.path / POLICY).read_text()
    (repo.path / POLICY).write_text(
        text.replace(
            "segment regular: visits.visit_count_30d >= 2", "segment regular: visits.visit_count_30d >= 5"
        )
    )
    changed = current_plan(repo, plan)
    assert _conditions(plan) != _conditions(changed)
    assert "5" in _conditions(changed)[0]
    (repo.path / POLICY).write_text(text.replace("visit_count_30d >= 2", "visit_cuont_30d >= 2"))
    assert current_plan(repo, changed) is changed
