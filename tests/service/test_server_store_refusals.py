"""A store that cannot be used ends a command in one line, whenever that shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from online.store import connect
from server.scaffold import write_repo
from tests.support.feast_world import free_port
from tests.support.valkey import start_valkey


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repo."""
    folder = tmp_path_factory.mktemp("repo") / "library"
    write_repo(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with a user that may be told about it and read, and no more."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as found:
        with connect(found) as client:
            client.execute_command("ACL SETUSER reader on >reader ~* &* +@read +@connection +info")
        yield found.replace("redis://", "redis://reader:reader@")


def said(command: str, repo: Path, url: str, folder: Path) -> str:
    """What a command says that must fail."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "server.cli",
            command,
            "--repo",
            repo,
            "--data-dir",
            folder,
            "--redis-url",
            url,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    return ran.stderr


@pytest.mark.parametrize("command", ["serve", "materializer"])
def test_a_user_who_may_not_write_is_said(command: str, repo: Path, url: str, tmp_path: Path) -> None:
    """It is found out after the store was looked at."""
    text = said(command, repo, url, tmp_path)
    assert "Traceback" not in text
    assert "no permissions" in text
    assert "docs/operations.md" in text


@pytest.mark.parametrize("command", ["serve", "materializer"])
def test_a_store_that_is_not_there_is_all_that_is_said(command: str, repo: Path, tmp_path: Path) -> None:
    """Nothing of what libraries count when the process ends comes behind it."""
    text = said(command, repo, f"redis://127.0.0.1:{free_port()}", tmp_path)
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert "does not answer" in lines[0]


@pytest.mark.parametrize("command", ["serve", "materializer"])
def test_a_database_that_the_store_has_not_is_said(
    command: str, repo: Path, url: str, tmp_path: Path
) -> None:
    """Not that its user wants permissions."""
    text = said(command, repo, url.replace("/0", "/99"), tmp_path)
    assert "has no database 99" in text
    assert "such as /0" in text
    assert "allow the user" not in text
