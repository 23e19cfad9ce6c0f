"""Bundles: compiled from a repo, kept for replays, swapped atomically while serving."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from decision.bundle import Bundle, Model
from decision.errors import BundleError
from decision.lang.compiler import compile_policy
from decision.lang.findings import Finding, Severity, render
from decision.lang.names import labelled
from decision.lang.syntax import references
from decision.plan import key_type
from decision.policy import Policy
from decision.schema import Catalog, ValueType
from online.errors import OnlineStoreError
from online.read import ReadPlan
from server.catalog_json import catalog_from_json, catalog_to_json
from server.decision_codec import Phrases
from server.errors import PolicyRejectedError, ServerError
from server.metrics import Metrics
from server.models import check_labels, latest_models, load_model, parse_definitions
from server.repo import Repo, load_texts
from training.definition import TrainingDefinition

CATALOG_FILE = "catalog.json"
META_FILE = "bundle.json"
POLICY_PATTERN = "policy/*.policy"
MODELS_PATTERN = "models/*.yaml"
_log = structlog.get_logger("server")


class BundleMissingError(ServerError):
    """A record names a bundle that is not kept here, or not as it was written."""


class BundleNotKeptError(ServerError):
    """A bundle cannot be written where bundles are kept; without it, what it decides could not be replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A compiled policy and what there is to say about it; `policy` is None where a finding is an error."""

    policy: Policy | None
    findings: tuple[Finding, ...]
    sources: Mapping[str, str]

    def report(self) -> str:
        """The findings with file, line, column and caret."""
        return render(self.findings, self.sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A bundle with what serving adds to it, prepared once.

    Attributes:
        phrases: What answers say again and again, as messages.
        customer_reads: Read plan of the customer's features, by placement.
        candidate_reads: Read plan of the candidates' features, by placement.
        customer_type: Type of the customer join key.
    """

    bundle: Bundle
    phrases: Phrases
    customer_reads: Mapping[str, ReadPlan]
    candidate_reads: Mapping[str, ReadPlan]
    customer_type: ValueType

    @classmethod
    def prepare(cls, bundle: Bundle) -> Serving:
        """Compile the read plans and phrases of a bundle."""
        catalog, plans = bundle.catalog, bundle.plans
        return cls(
            bundle=bundle,
            phrases=Phrases(bundle),
            customer_reads={
                name: ReadPlan.compile(catalog, plan.customer_refs) for name, plan in plans.items()
            },
            candidate_reads={
                name: ReadPlan.compile(catalog, plan.candidate_refs) for name, plan in plans.items()
            },
            customer_type=key_type(catalog, bundle.customer_key),
        )


def check_policy(
    catalog: Catalog, sources: Mapping[str, str], definitions: Mapping[str, str], customer_key: str
) -> Checked:
    """Compile policy texts against a catalog and the models that the repo defines.

    Raises:
        RepoError: A model definition cannot be read.
    """
    models = parse_definitions(definitions).items()
    scoring = frozenset(name for name, model in models if isinstance(model, TrainingDefinition))
    labels = {name: model.labels for name, model in models if not isinstance(model, TrainingDefinition)}
    compiled = compile_policy(sources, catalog, scoring, labels=labels, customer_key=customer_key)
    return Checked(policy=compiled.policy, findings=tuple(compiled.findings), sources=sources)


def repo_policy(repo: Repo) -> Policy:
    """The repo's policy.

    Raises:
        PolicyRejectedError: It has findings that are errors.
    """
    return _accepted(
        check_policy(repo.catalog, repo.policy_sources, repo.model_definitions, repo.events.customer)
    )


def _accepted(checked: Checked) -> Policy:
    if checked.policy is None or any(item.severity is Severity.ERROR for item in checked.findings):
        raise PolicyRejectedError(checked.report())
    return checked.policy


class BundleKeeper:
    """Holds what decides now; a new bundle takes over by one assignment, a bad one changes nothing.

    Args:
        repo: The loaded repo; its Feast definitions stay, its policy and models are read anew by `reload`.
        models_dir: The model registry.
        bundles_dir: Where every bundle that served is kept.
        metrics: Counts reloads.

    Raises:
        PolicyRejectedError: The repo's policy is refused.
        RepoError: Policy or model definitions cannot be read.
        BundleNotKeptError: The bundle cannot be written to `bundles_dir`.
    """

    def __init__(self, repo: Repo, models_dir: Path, bundles_dir: Path, metrics: Metrics) -> None:
        self._repo = repo
        self._models_dir = models_dir
        self._bundles_dir = bundles_dir
        self._metrics = metrics
        self._reloading = threading.Lock()
        self.current = self._build()

    def reload(self) -> Serving:
        """Compile policy and models from disk and swap them in; blocks for as long as that takes.

        Raises:
            PolicyRejectedError: As the constructor; the bundle before goes on serving.
            RepoError: As the constructor.
            BundleNotKeptError: As the constructor.
        """
        with self._reloading:
            try:
                serving = self._build()
                self._refuse_emptied(serving)
            except ServerError:
                self._metrics.reloads.labels("refused").inc()
                raise
            self.current = serving
            self._metrics.reloads.labels("swapped").inc()
            return serving

    def adopt(self, catalog: Catalog) -> Serving | None:
        """Decide by changed Feast definitions from now on; None where nothing that decides has changed.

        Raises:
            PolicyRejectedError: The policy does not fit them; definitions and bundle before go on serving.
            RepoError: As the constructor.
        """
        with self._reloading:
            before = self._repo
            if catalog == before.catalog:
                return None
            self._repo = replace(before, catalog=catalog)
            try:
                serving = self._build()
                self._refuse_emptied(serving)
            except ServerError:
                self._repo = before
                raise
            self.current = serving
            return serving

    def _refuse_emptied(self, serving: Serving) -> None:
        """A policy without placements is a file caught while it was written, not a wish."""
        if self.current.bundle.plans and not serving.bundle.plans:
            raise PolicyRejectedError("the policy has no placements: nothing could be decided any more")

    def _build(self) -> Serving:
        root, catalog, customer_key = self._repo.path, self._repo.catalog, self._repo.events.customer
        sources = load_texts(root, POLICY_PATTERN)
        definitions = load_texts(root, MODELS_PATTERN)
        policy = _accepted(check_policy(catalog, sources, definitions, customer_key))
        models = latest_models(self._models_dir, used_models(policy))
        check_labels(models, parse_definitions(definitions))
        serving = _prepared(catalog, policy, models, customer_key)
        keep_bundle(self._bundles_dir, serving.bundle, sources, definitions)
        return serving


def used_models(policy: Policy) -> tuple[str, ...]:
    """Names of the models that placements score with, and of those whose labels conditions read."""
    conditions = (*(rule.condition for rule in policy.rules), *(offer.when for offer in policy.offers))
    read = {labelled(name) for condition in conditions if condition for name in references(condition)}
    scoring = {placement.model for placement in policy.placements}
    return tuple(sorted(filter(None, read | scoring)))


def _prepared(catalog: Catalog, policy: Policy, models: Mapping[str, Model], customer_key: str) -> Serving:
    try:
        return Serving.prepare(Bundle.build(catalog, policy, models, customer_key))
    except (BundleError, OnlineStoreError) as error:
        raise PolicyRejectedError(str(error)) from error


def keep_bundle(
    bundles_dir: Path, bundle: Bundle, sources: Mapping[str, str], definitions: Mapping[str, str]
) -> None:
    """Keep what a bundle was made of, under its version; a kept one is never changed, a damaged one is set aside.

    Raises:
        BundleNotKeptError: The folder cannot be written.
    """
    folder = bundles_dir / bundle.version
    if _is_kept(folder, bundle):
        return
    part = bundles_dir / f".{bundle.version}.{secrets.token_hex(4)}"
    meta = json.dumps({"customer_key": bundle.customer_key})
    texts = {**sources, **definitions, CATALOG_FILE: catalog_to_json(bundle.catalog), META_FILE: meta}
    try:
        for name, text in texts.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if folder.exists() and not _is_kept(folder, bundle):
            aside = bundles_dir / f"{part.name}.damaged"
            folder.rename(aside)
            _log.warning("bundle.was_damaged", bundle=bundle.version, kept_anew=str(folder), aside=str(aside))
        part.replace(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if _is_kept(folder, bundle):
            # Another process kept the same bundle first.
            return
        raise BundleNotKeptError(
            f"{folder} cannot be written ({error.strerror}), and what a bundle decides must be replayable: "
            "make room, or let the server write there"
        ) from error


def _is_kept(folder: Path, bundle: Bundle) -> bool:
    """Whether a folder is there and holds what a bundle was made of; a crash of the machine may leave empty files."""
    try:
        catalog, policy, customer_key = _read_kept(folder)
    except DAMAGES:
        return False
    found = catalog.content_hash, policy.source_hash, customer_key
    return found == (bundle.catalog.content_hash, bundle.policy.source_hash, bundle.customer_key)


def kept_bundle(bundles_dir: Path, models_dir: Path, version: str, model_versions: Iterable[str]) -> Bundle:
    """The bundle of that version as it decided, with the models that its record names (`name@version`).

    Raises:
        BundleMissingError: The bundle is not kept here, or damaged.
        ModelError: So is a model.
    """
    folder = bundles_dir / version
    if not folder.is_dir():
        raise BundleMissingError(
            f"bundle {version} is not kept in {bundles_dir}: give the server's --data-dir"
        )
    try:
        catalog, policy, customer_key = _read_kept(folder)
    except DAMAGES as error:
        what = str(error).partition("\n")[0]
        raise BundleMissingError(
            f"bundle {version} in {bundles_dir} is damaged, or of another release ({what}): put back its folder"
        ) from error
    models = {}
    for model_version in model_versions:
        name, _, version_of_model = model_version.partition("@")
        models[name] = load_model(models_dir, name, version_of_model)
    return Bundle.build(catalog, policy, models, customer_key)


DAMAGES: Final = (ServerError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading files may raise that are not as they were written."""


def _read_kept(folder: Path) -> tuple[Catalog, Policy, str]:
    customer_key = str(json.loads((folder / META_FILE).read_text(encoding="utf-8"))["customer_key"])
    catalog = catalog_from_json((folder / CATALOG_FILE).read_text(encoding="utf-8"))
    sources, definitions = load_texts(folder, POLICY_PATTERN), load_texts(folder, MODELS_PATTERN)
    return catalog, _accepted(check_policy(catalog, sources, definitions, customer_key)), customer_key
