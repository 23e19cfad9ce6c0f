"""Trained models from the registry, ready to score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from decision.bundle import LabelHandle, Model, ModelHandle
from decision.centroids import load_centroids
from decision.errors import ModelFileError
from decision.forest import ForestError, load_forest
from server.errors import Problem, RepoError, ServerError
from training import registry
from training.definition import ClassesDefinition, Definition, KMeansDefinition, parse_definition
from training.errors import DefinitionError, RegistryError
from training.registry import StoredModel


class ModelError(ServerError):
    """A stored model cannot be used."""


def parse_definitions(texts: Mapping[str, str]) -> dict[str, Definition]:
    """The repo's training definitions by model name.

    Raises:
        RepoError: Some cannot be used, or two define one model; all problems are listed.
    """
    found: dict[str, Definition] = {}
    problems: list[Problem] = []
    for file, text in texts.items():
        try:
            definition = parse_definition(text, file)
        except DefinitionError as error:
            problems += [
                Problem(message=line.removeprefix(f"{file}: "), file=file) for line in str(error).split("\n")
            ]
            continue
        if definition.name in found:
            problems.append(
                Problem(message=f"model {definition.name!r} is defined in another file too", file=file)
            )
        found[definition.name] = definition
    if problems:
        raise RepoError(problems)
    return found


def latest_models(models_dir: Path, names: Iterable[str]) -> dict[str, Model]:
    """The versions in use of the named models; one that was never trained is left out.

    Raises:
        ModelError: A stored model is damaged or cannot be scored exactly.
    """
    found = {}
    for name in names:
        try:
            folder = registry.latest(models_dir, name)
        except RegistryError as error:
            raise ModelError(str(error)) from error
        if folder is not None:
            found[name] = _load(folder, name)
    return found


def check_labels(models: Mapping[str, Model], definitions: Mapping[str, Definition]) -> None:
    """Refuse a model that tells other labels than its definition names: rules were checked against those.

    Raises:
        ModelError: Naming what each of the two tells, and what to do.
    """
    for name, model in models.items():
        definition = definitions.get(name)
        if not isinstance(model, LabelHandle) or not isinstance(
            definition, KMeansDefinition | ClassesDefinition
        ):
            continue
        if model.labels != definition.labels:
            raise ModelError(
                f"model {model} tells {_listed(model.labels)}, but its definition names "
                f"{_listed(definition.labels)}: run `waypost train {name}`, or put the definition back"
            )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))


def load_model(models_dir: Path, name: str, version: str) -> Model:
    """A stored version of a model.

    Raises:
        ModelError: It is not stored, damaged, or cannot be scored exactly.
    """
    return _load(models_dir / name / version, name)


def _load(folder: Path, name: str) -> Model:
    try:
        stored = registry.load(folder)
        return _handle(name, stored)
    except (RegistryError, ForestError, ModelFileError) as error:
        raise ModelError(f"model {name!r}: {error}") from error


def _handle(name: str, stored: StoredModel) -> Model:
    manifest = stored.manifest
    if manifest.labels:
        kmeans = manifest.kind == "kmeans"
        return LabelHandle(
            name=name,
            version=manifest.version,
            features=manifest.feature_refs,
            labels=manifest.labels,
            model=load_centroids(stored.data) if kmeans else load_forest(stored.data),
        )
    forest = load_forest(stored.data)
    return ModelHandle(name=name, version=manifest.version, features=manifest.feature_refs, forest=forest)
