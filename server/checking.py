"""Judges a repo as a whole: features, events, models and policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decision.bundle import Bundle
from decision.errors import BundleError
from decision.lang.findings import Finding, Severity
from decision.plan import key_type
from decision.policy import Policy
from decision.schema import Catalog
from online.errors import OnlineStoreError
from server.bundles import Serving, check_policy
from server.errors import Problem, RepoError
from server.forecast import Forecast, forecast
from server.models import parse_definitions
from server.repo import EVENTS_FILE, STORE_FILE, Repo, load_repo
from server.stream_check import stream_problems, stream_views, stream_warnings
from server.wording import counted
from streaming.errors import StreamingError
from streaming.plan import StreamPlan
from training.definition import Definition, TrainingDefinition

CANNOT = "the repo cannot be served"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        problems: Errors of features, events and models.
        warnings: What of the repo does not work as it may seem to; the rest is served.
        findings: Errors and warnings of the policy.
        rendered: The findings as text, with carets.
        summary: One line about the whole.
        forecast: What entities will take in the store; empty where the repo cannot be served.
    """

    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    findings: tuple[Finding, ...] = ()
    rendered: str = ""
    summary: str
    forecast: tuple[Forecast, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the repo can be served, and nothing in it is an error."""
        return not self.problems and all(item.severity is not Severity.ERROR for item in self.findings)


def check_repo(path: Path, partitions: int = 1) -> Report:
    """Check the repo at `path`; never raises for a bad repo.

    Args:
        path: Its folder.
        partitions: Of the log, for the forecast.
    """
    try:
        repo = load_repo(path)
        unread, models = _models(repo)
        definitions = {} if unread else repo.model_definitions
        checked = check_policy(repo.catalog, repo.policy_sources, definitions, repo.events.customer)
    except RepoError as error:
        errors = counted(len(error.problems), "error")
        return Report(problems=error.problems, summary=f"{errors}: {CANNOT}")
    policy, warnings = checked.policy, []
    problems = [*_event_problems(repo), *unread, *_service_problems(repo, models)]
    refusals = [] if policy is None else _refusals(repo, policy)
    if policy is not None and not problems:
        problems += [*refusals, *stream_problems(repo, policy)]
        warnings += stream_warnings(repo, policy)
    if repo.naming.notice:
        warnings.append(Problem(message=repo.naming.notice, file=STORE_FILE))
    warnings += _store_warnings(repo)
    serves = policy is not None and not unread and not refusals
    return Report(
        problems=tuple(problems),
        warnings=tuple(warnings),
        findings=checked.findings,
        rendered=checked.report(),
        summary=_summary(repo, problems, warnings, checked.findings, serves=serves),
        forecast=() if problems or policy is None else _forecast(repo, policy, partitions),
    )


def _refusals(repo: Repo, policy: Policy) -> list[Problem]:
    """Why a server would not take the repo with a policy that compiles."""
    try:
        Serving.prepare(Bundle.build(repo.catalog, policy, {}, repo.events.customer))
    except (BundleError, OnlineStoreError) as error:
        return [Problem(message=str(error))]
    return []


def _store_warnings(repo: Repo) -> list[Problem]:
    """What is wrong with the address of the repo's own store; one that is given by a setting takes its place."""
    try:
        _ = repo.online_store and repo.online_store.url
    except RepoError as error:
        return list(error.problems)
    return []


def _forecast(repo: Repo, policy: Policy, partitions: int) -> tuple[Forecast, ...]:
    try:
        plan = StreamPlan.compile(repo.catalog, repo.transforms, policy, repo.events.customer)
        return forecast(plan, repo.events, partitions)
    except (StreamingError, OnlineStoreError):  # a function that made-up events of other times do not suit
        return ()


def _event_problems(repo: Repo) -> list[Problem]:
    """The customer of events must be a join key that views use, of a type that text can name."""
    customer = repo.events.customer
    keys = {key.name for view in repo.catalog.views for key in view.join_keys}
    if customer not in keys:
        message = f"customer is {customer!r}, which is no join key of any view; there are {sorted(keys)}"
        return [Problem(message=message, file=EVENTS_FILE)]
    try:
        key_type(repo.catalog, customer)
    except BundleError as error:
        return [Problem(message=str(error), file=EVENTS_FILE)]
    return []


def _models(repo: Repo) -> tuple[list[Problem], list[Definition]]:
    """What cannot be read of the model definitions, or else all of them."""
    try:
        return [], list(parse_definitions(repo.model_definitions).values())
    except RepoError as error:
        return list(error.problems), []


def _service_problems(repo: Repo, models: list[Definition]) -> list[Problem]:
    return [problem for model in models for problem in _service_problems_of(repo, model)]


def _service_problems_of(repo: Repo, definition: Definition) -> list[Problem]:
    """The feature service of a model must be there; that of a segmentation model about the customer alone."""
    model = f"model {definition.name!r}"
    service = repo.catalog.service_by_name.get(definition.feature_service)
    if service is None:
        message = f"{model} wants feature service {definition.feature_service!r}, which is not defined"
        return [Problem(message=message)]
    if isinstance(definition, TrainingDefinition):
        return []
    customer = repo.events.customer
    if definition.entity != customer:
        return [Problem(message=f"{model} is about {definition.entity!r}; segments are about {customer!r}")]
    views = dict.fromkeys(ref.view for ref in service.features)
    return [
        Problem(message=f"{model} reads the view {view!r}, which is not keyed by {customer!r} alone")
        for view in views
        if not set(repo.catalog.view_by_name[view].key_names) <= {customer}
    ]


def _summary(
    repo: Repo, problems: list[Problem], warned: list[Problem], findings: tuple[Finding, ...], *, serves: bool
) -> str:
    errors = len(problems) + sum(item.severity is Severity.ERROR for item in findings)
    warnings = len(warned) + sum(item.severity is Severity.WARNING for item in findings)
    said = counted(warnings, "warning")
    if errors:
        left = "`waypost serve` takes the repo, but not all of it works" if serves else CANNOT
        return f"{counted(errors, 'error')}, {said}: {left}"
    text = f"ok: {_counts(repo.catalog)}, {counted(len(repo.events.types), 'event type')}, {said}"
    if not stream_views(repo.catalog):
        text += "; no stream view takes events: `waypost serve` serves the repo, and needs no materializer"
    return text


def _counts(catalog: Catalog) -> str:
    features = sum(len(view.features) for view in catalog.views)
    parts = ((len(catalog.views), "view"), (features, "feature"), (len(catalog.services), "feature service"))
    return ", ".join(counted(count, noun) for count, noun in parts)
