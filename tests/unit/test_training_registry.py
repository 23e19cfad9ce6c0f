"""The model registry: immutable, checked, moved by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from training import registry
from training.errors import RegistryError
from training.registry import Manifest, SplitSummary


def manifest(data: bytes, **changes: object) -> Manifest:
    fields: dict[str, object] = {
        "name": "affinity",
        "version": registry.version_of(data),
        "content_hash": hashlib.sha256(data).hexdigest(),
        "feature_service": "affinity_v1",
        "features": ("buyer.orders", "pair.last_at"),
        "label": "purchase",
        "horizon_s": 60,
        "round_count": 3,
        "splits": {"train": SplitSummary(row_count=2, positive_count=1, first_us=0, last_us=9)},
        "metrics": {"model": {"auc": 0.9}},
        "calibration": ((1, 0.5, 0.5),),
        "catalog_hash": "c",
        "definition_hash": "d",
        "parameters": {"max_depth": 3},
        "libraries": {"xgboost": "3"},
        "created_us": 5,
    }
    return Manifest.model_validate(fields | changes)


def test_registry_gives_back_what_was_stored(tmp_path: Path) -> None:
    """Manifest and bytes survive, and nothing else is left in the folder."""
    folder = registry.save(tmp_path, manifest(b"model"), b"model")
    stored = registry.load(folder)
    assert stored.manifest == manifest(b"model")
    assert stored.data == b"model"
    assert str(stored.manifest) == f"affinity@{registry.version_of(b'model')}"
    assert [str(ref) for ref in stored.manifest.feature_refs] == ["buyer.orders", "pair.last_at"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_registry_rolls_forward_and_back_by_name(tmp_path: Path) -> None:
    """`latest` is what was promoted last, whatever was stored after it."""
    assert registry.latest(tmp_path, "affinity") is None
    old = registry.save(tmp_path, manifest(b"old"), b"old")
    new = registry.save(tmp_path, manifest(b"new", created_us=6), b"new")
    for folder in (old, new, old):
        registry.promote(tmp_path, "affinity", folder.name)
        assert registry.latest(tmp_path, "affinity") == folder
    assert registry.names(tmp_path) == ("affinity",)
    assert [item.version for item in registry.versions(tmp_path, "affinity")] == [old.name, new.name]


def test_registry_keeps_the_first_of_equal_models(tmp_path: Path) -> None:
    """Storing the same bytes again changes nothing."""
    first = registry.save(tmp_path, manifest(b"model"), b"model")
    again = registry.save(tmp_path, manifest(b"model", created_us=99), b"model")
    assert first == again
    assert registry.read_manifest(first).created_us == 5


def test_registry_refuses_a_damaged_model(tmp_path: Path) -> None:
    """A changed byte is found by the hash, and named."""
    folder = registry.save(tmp_path, manifest(b"model"), b"model")
    (folder / registry.MODEL_FILE).write_bytes(b"modem")
    with pytest.raises(RegistryError, match="its hash differs"):
        registry.load(folder)


def test_registry_refuses_a_manifest_of_other_data(tmp_path: Path) -> None:
    """A manifest cannot be stored beside a file that it does not describe."""
    with pytest.raises(RegistryError, match="the manifest's hash is not the model file's"):
        registry.save(tmp_path, manifest(b"model"), b"other")


def test_registry_refuses_a_broken_manifest(tmp_path: Path) -> None:
    """A manifest that lacks a field or is no JSON is refused with the field or the place."""
    folder = registry.save(tmp_path, manifest(b"model"), b"model")
    (folder / registry.MANIFEST_FILE).write_text('{"name": "affinity"}')
    with pytest.raises(RegistryError, match="version: Field required"):
        registry.load(folder)


@pytest.mark.parametrize("name", ["../etc", "", "A", "a/b"])
def test_registry_refuses_names_that_leave_its_folder(tmp_path: Path, name: str) -> None:
    """A name is one plain word."""
    with pytest.raises(RegistryError, match="is no model name"):
        registry.latest(tmp_path, name)


def test_registry_refuses_to_promote_what_is_not_there(tmp_path: Path) -> None:
    """The pointer never names a version that is not stored."""
    with pytest.raises(RegistryError, match="is not stored"):
        registry.promote(tmp_path, "affinity", "0" * 12)
