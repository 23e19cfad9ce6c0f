"""Training on a repo: its definition, its catalog, its offers' join keys, and a file of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from decision.plan import key_type
from decision.policy import Policy
from decision.schema import Value, ValueType
from server.bundles import repo_policy
from server.config import Settings
from server.errors import ServerError
from server.models import parse_definitions
from server.repo import Repo, load_repo
from streaming.errors import SourceFileError
from streaming.history import history_frame
from training.definition import Candidates, TrainingDefinition

if TYPE_CHECKING:
    from training.registry import Manifest


class TrainingRunError(ServerError):
    """The repo or the events do not have what the training needs."""


def train_from_repo(
    settings: Settings, name: str, events_file: Path, progress: Callable[[str], None]
) -> Manifest:
    """Train the model `name` of the repo and put it into use.

    Args:
        settings: Repo and data folder.
        name: A model of `models/*.yaml`.
        events_file: Parquet of events, as a backfill takes it.
        progress: Told which stage begins.

    Raises:
        TrainingRunError: The model is not defined or the file is not there.
        TrainingError: The set cannot be built, or the model is not good enough.
    """
    from training.pipeline import train_model
    from training.segmentation import train_segmentation

    repo = load_repo(settings.repo)
    definitions = parse_definitions(repo.model_definitions)
    if name not in definitions:
        raise TrainingRunError(f"no model {name!r} in models/*.yaml; there are {sorted(definitions)}")
    if not events_file.is_file():
        raise TrainingRunError(f"{events_file} is not there: give the file of events")
    definition = definitions[name]
    if not isinstance(definition, TrainingDefinition):
        return train_segmentation(
            definition=definition,
            catalog=repo.catalog,
            events=_events(repo, events_file),
            models_dir=settings.models_dir,
            now_us=time.time_ns() // 1_000,
            progress=progress,
        )
    trained = train_model(
        definition=definition,
        catalog=repo.catalog,
        events=_events(repo, events_file),
        candidates=candidate_keys(repo_policy(repo), definition.candidates),
        models_dir=settings.models_dir,
        now_us=time.time_ns() // 1_000,
        progress=progress,
    )
    return trained.manifest


def _events(repo: Repo, file: Path) -> pd.DataFrame:
    """The file that a backfill takes; the customer stands under the repo's join key as well."""
    try:
        events = history_frame(pq.read_table(file), repo.events)
    except (SourceFileError, pa.ArrowInvalid) as error:
        raise TrainingRunError(f"{file}: {error}") from error
    customer = repo.events.customer
    typed = key_type(repo.catalog, customer) in {ValueType.INT32, ValueType.INT64}
    return events.assign(
        **{customer: events["customer_id"].astype("int64") if typed else events["customer_id"]}
    )


def candidate_keys(policy: Policy, candidates: Candidates) -> list[Mapping[str, Value]]:
    """The join keys that candidate offers declare, each combination once, in file order."""
    rows = [
        tuple(offer.keys.get(key) for key in candidates.join_keys)
        for offer in policy.offers
        if candidates.tag in offer.tags
    ]
    return [
        dict(zip(candidates.join_keys, row, strict=True)) for row in dict.fromkeys(rows) if None not in row
    ]
