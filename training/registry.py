"""The model registry: immutable folders `NAME/VERSION`, each a model file and its manifest.

A version is the first 12 hex digits of the SHA-256 of the model file, and of its labels where it tells segments.
`NAME/current` names the version in use; moving it is how a model is rolled forward or back. Nothing here needs XGBoost
or Feast.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from decision.schema import FeatureRef
from training.errors import RegistryError

MODEL_FILE: Final = "model.ubj"
CENTROIDS_FILE: Final = "model.json"
MANIFEST_FILE: Final = "manifest.json"
CURRENT_FILE: Final = "current"
VERSION_LENGTH: Final = 12
_SAID_BYTES: Final = 100
MAX_MODEL_BYTES: Final = 256 << 20
_VERSION: Final = re.compile(r"[0-9a-f]{12}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


class SplitSummary(BaseModel):
    """Rows of one split and the decision times they span, in microseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row_count: int
    positive_count: int = 0
    first_us: int
    last_us: int


class Manifest(BaseModel):
    """Where a model comes from and what it needs.

    Attributes:
        kind: What the model is: a forest that predicts, one of several classes, or centroids.
        labels: Names of the centroids or classes, in the model's order.
        content_hash: SHA-256 of the model file, in hex.
        features: `view.feature` of each column, in the model's order.
        label: Event type that is predicted; empty for a model that tells segments.
        horizon_s: How far ahead the model looks; 0 where it does not.
        splits: What it was trained and judged on, by split.
        metrics: On the test split: predictor → metric → value; the model itself is `model`.
        calibration: Of the model on the test split: (rows, mean prediction, observed rate), lowest predictions first.
        catalog_hash: Content hash of the catalog it was trained against.
        definition_hash: Content hash of its training definition.
        parameters: As given to XGBoost, with seed and threads.
        libraries: Versions that matter for growing it again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["forest", "classes", "kmeans"] = "forest"
    labels: tuple[str, ...] = ()
    name: str
    version: str
    content_hash: str
    description: str = ""
    feature_service: str
    features: tuple[str, ...]
    label: str = ""
    horizon_s: int = 0
    round_count: int = 0
    splits: dict[str, SplitSummary]
    metrics: dict[str, dict[str, float]]
    calibration: tuple[tuple[int, float, float], ...] = ()
    catalog_hash: str
    definition_hash: str
    parameters: dict[str, str | int | float]
    libraries: dict[str, str]
    created_us: int

    @property
    def file(self) -> str:
        """Name of the model file."""
        return CENTROIDS_FILE if self.kind == "kmeans" else MODEL_FILE

    @property
    def feature_refs(self) -> tuple[FeatureRef, ...]:
        """The features behind the model's columns, in order."""
        pairs = (name.partition(".") for name in self.features)
        return tuple(FeatureRef(view=view, feature=feature) for view, _, feature in pairs)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class StoredModel(BaseModel):
    """A model read back: its manifest and the bytes of its file, whose hash has been checked."""

    model_config = ConfigDict(frozen=True)

    manifest: Manifest
    data: bytes


def version_of(data: bytes, labels: Sequence[str] = ()) -> str:
    """The version of a model file, and of the labels that it tells: centroids do not name their own."""
    digest = hashlib.sha256(data)
    if labels:
        digest.update(json.dumps(list(labels)).encode())
    return digest.hexdigest()[:VERSION_LENGTH]


def save(models_dir: Path, manifest: Manifest, data: bytes) -> Path:
    """Store a model; all of it appears at once or nothing does. Returns its folder.

    Storing the same model again keeps the first folder.

    Raises:
        RegistryError: If the manifest does not belong to the data, or its name is no name.
    """
    _check_name(manifest.name)
    version = version_of(data, manifest.labels)
    if manifest.content_hash != hashlib.sha256(data).hexdigest() or manifest.version != version:
        raise RegistryError(f"{manifest}: the manifest's hash is not the model file's")
    folder = models_dir / manifest.name / manifest.version
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{manifest.version}.", dir=folder.parent))
    try:
        _write(unfinished / manifest.file, data)
        _write(unfinished / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.exists():
            raise
    return folder


def promote(models_dir: Path, name: str, version: str) -> None:
    """Make a stored version the one in use.

    Raises:
        RegistryError: If it is not stored.
    """
    folder = _folder(models_dir, name, version)
    if not (folder / MANIFEST_FILE).is_file():
        raise RegistryError(f"{name}@{version} is not stored in {models_dir}")
    unfinished = folder.parent / f".{CURRENT_FILE}.{os.getpid()}"
    _write(unfinished, f"{version}\n".encode())
    unfinished.replace(folder.parent / CURRENT_FILE)


def latest(models_dir: Path, name: str) -> Path | None:
    """Folder of the version in use, or None where the model has none.

    Raises:
        RegistryError: If the pointer cannot be read or names no stored version.
    """
    _check_name(name)
    pointer = models_dir / name / CURRENT_FILE
    if not pointer.exists():
        return None
    version = _read(pointer)[:_SAID_BYTES].decode("ascii", "backslashreplace").strip()
    if not _VERSION.fullmatch(version):
        raise RegistryError(f"{pointer} names {version!r}, which is no version: twelve hex digits expected")
    folder = _folder(models_dir, name, version)
    if not folder.is_dir():
        raise RegistryError(f"{pointer} names {version}, which is not stored: promote another version")
    return folder


def names(models_dir: Path) -> tuple[str, ...]:
    """Names of the models that have a version in use, sorted."""
    return tuple(sorted(path.parent.name for path in models_dir.glob(f"*/{CURRENT_FILE}")))


def versions(models_dir: Path, name: str) -> tuple[Manifest, ...]:
    """Manifests of all stored versions of a model, oldest first."""
    _check_name(name)
    folders = [path for path in (models_dir / name).glob("*") if _VERSION.fullmatch(path.name)]
    return tuple(
        sorted((read_manifest(path) for path in folders), key=lambda item: (item.created_us, item.version))
    )


def load(folder: Path) -> StoredModel:
    """Read a model and check it against its manifest.

    Raises:
        RegistryError: If a file is missing, too large, malformed, or not what was stored.
    """
    manifest = read_manifest(folder)
    path = folder / manifest.file
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != manifest.content_hash:
        raise RegistryError(f"{path} is not the file that was stored as {manifest}: its hash differs")
    return StoredModel(manifest=manifest, data=data)


def read_manifest(folder: Path) -> Manifest:
    """Read a model's manifest.

    Raises:
        RegistryError: If it is missing or malformed.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(_read(path))
    except ValidationError as error:
        problems = _problems(error)
        raise RegistryError(f"{path}: {problems}") from error


def _problems(error: ValidationError) -> str:
    items = json.loads(error.json(include_url=False, include_input=False))
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items[:5])


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise RegistryError(f"{path} is larger than {MAX_MODEL_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _folder(models_dir: Path, name: str, version: str) -> Path:
    _check_name(name)
    if not _VERSION.fullmatch(version):
        raise RegistryError(f"{version!r} is no version: twelve hex digits expected")
    return models_dir / name / version


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{name!r} is no model name: lower-case letters, digits and underscores expected")
