"""The check of the deployment files finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_deploy

ROOT = Path(__file__).resolve().parents[2]


def edited(name: str, old: str, new: str) -> str:
    text = (ROOT / name).read_text()
    assert old in text
    return text.replace(old, new)


def test_deployment_files_are_sound() -> None:
    """The files that ship have no problem."""
    assert check_deploy.problems(ROOT) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("USER waypost\n", "", "the image runs as root: the last stage needs a USER"),
        ("HEALTHCHECK ", "LABEL ", "no HEALTHCHECK in the last stage"),
        ("--require-hashes ", "", "dependencies are installed without --require-hashes"),
        (":3.11-slim-bookworm AS", " AS", "base image python names no version"),
        ("COPY decision/ ", "COPY decisions/ ", "COPY decisions: no such file"),
        ("COPY decision/ ", "COPY Makefile ", "COPY Makefile: .dockerignore keeps it out"),
        ('CMD ["serve"]', "CMD serve", "CMD is not in exec form"),
        ("WAYPOST_HOST=", "WAYPOST_HOTS=", "WAYPOST_HOTS is no setting"),
        ("VOLUME", "VOLUMES", "unknown instruction VOLUMES"),
    ],
)
def test_dockerfile_problem_is_named(old: str, new: str, problem: str) -> None:
    """Each way to spoil the Dockerfile is reported in words."""
    assert problem in list(check_deploy.dockerfile_problems(edited("Dockerfile", old, new), ROOT))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("--appendfsync, always", "--appendfsync, everysec", "redis: without --appendfsync always"),
        ("redis:8.2-bookworm", "redis", "redis: its image names no version"),
        ("    redis:\n      condition", "    rediss:\n      condition", "server: depends on rediss"),
        ("  redis-data: {}\n", "", "redis: volume redis-data is not declared"),
        ("WAYPOST_REDIS_URL", "WAYPOST_REDIS_URI", "server: WAYPOST_REDIS_URI is no setting"),
    ],
)
def test_compose_problem_is_named(old: str, new: str, problem: str) -> None:
    """Each way to spoil the compose file is reported in words."""
    found = list(check_deploy.compose_problems(edited("compose.yaml", old, new)))
    assert any(each.startswith(problem) for each in found)
