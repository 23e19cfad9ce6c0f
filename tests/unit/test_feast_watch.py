"""Changes of definitions are noticed, and other changes beside them are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config import FeastSource
from server.feast.watch import Watch


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repo of two modules, with data beside them."""
    for name in (
        "feature_store.yaml",
        "views.py",
        "more/deep/views.py",
        "data/rows.parquet",
        ".hidden/views.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("registry: data/registry.db\n")
    return tmp_path


def rewrite(path: Path) -> None:
    """Change a file as an editor does: another file takes its name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(path.read_text() + "#\n")
    fresh.replace(path)


def add(path: Path) -> None:
    """Make a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


@pytest.mark.parametrize(
    "change",
    [
        lambda repo: rewrite(repo / "views.py"),
        lambda repo: rewrite(repo / "more/deep/views.py"),
        lambda repo: rewrite(repo / "feature_store.yaml"),
        lambda repo: add(repo / "newer/views.py"),
        lambda repo: add(repo / "more/deep/other.py"),
        lambda repo: (repo / "views.py").unlink(),
        lambda repo: os.utime(repo / "views.py", ns=(1, 1)),
    ],
    ids=["module", "deep", "store", "folder", "file", "gone", "touched"],
)
def test_a_changed_definition_is_noticed_once(repo: Path, change: Callable[[Path], object]) -> None:
    """Whatever way it changes, and not again."""
    watch = Watch(repo, FeastSource.REPO)
    assert watch.changed() is False
    change(repo)
    assert watch.changed() is True
    assert watch.changed() is False


def test_data_and_caches_are_no_definitions(repo: Path) -> None:
    """Parquet files, compiled modules and hidden folders change without a word."""
    watch = Watch(repo, FeastSource.REPO)
    for name in ("data/more.parquet", "__pycache__/views.pyc", ".hidden/views.py", ".git/hooks/a.py"):
        add(repo / name)
    assert watch.changed() is False


def test_a_registry_file_is_watched_and_another_kind_of_registry_cannot_be(repo: Path) -> None:
    """A path in the repo; a bucket, a database and an environment variable tell nothing."""
    add(repo / "data/registry.db")
    watch = Watch(repo, FeastSource.REGISTRY)
    assert watch.changed() is False
    rewrite(repo / "data/registry.db")
    assert watch.changed() is True
    for text in (
        "registry: s3://bucket/registry.db",
        "registry: {registry_type: sql, path: postgresql://db}",
        "registry: ${REGISTRY}",
        "project: x",
    ):
        (repo / "feature_store.yaml").write_text(text)
        assert Watch(repo, FeastSource.REGISTRY).changed() is None


def test_where_versions_are_kept_apart_the_registry_is_watched_beside_the_files(repo: Path) -> None:
    """Its file as soon as there is one; of another kind of registry nothing is known, and files still tell."""
    store_file = repo / "feature_store.yaml"
    versions = "enable_online_feature_view_versioning: true"
    store_file.write_text(f"registry: {{path: data/registry.db, {versions}}}\n")
    watch = Watch(repo, FeastSource.REPO)
    assert watch.changed() is False
    add(repo / "data/registry.db")
    assert watch.changed() is True
    rewrite(repo / "data/registry.db")
    assert watch.changed() is True
    rewrite(repo / "views.py")
    assert watch.changed() is True
    store_file.write_text(f"registry: {{registry_type: sql, path: sqlite://, {versions}}}\n")
    assert watch.changed() is True
    assert watch.changed() is None
    rewrite(repo / "views.py")
    assert watch.changed() is True
