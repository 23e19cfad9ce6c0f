"""The road from raw data to a serving stack: backfill, train, verify. Each stage reuses what an earlier run left."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pandas as pd

from demo.data import HELD_OUT_START, LIVE_END, history_frame, live_events, write_demographics
from demo.feast_check import Comparison, compare, entity_rows
from online.store import connect, feast_connection_string
from online.write import RowWriter
from server.bundles import repo_policy
from server.config import ClockKind, Settings
from server.models import parse_definitions
from server.repo import Repo, load_repo
from server.stream_plans import entity_writer, stream_plan
from server.supervisor import Stack
from server.training_run import candidate_keys
from server.view_builds import settle_first_definitions
from streaming.archive import archive_folder
from streaming.backfill import BackfillReport, backfill
from streaming.batch_views import batch_views, load_batch_view
from streaming.history import Past
from training import registry
from training.definition import TrainingDefinition
from training.pipeline import TrainedModel, train_model
from training.verify import Verification, verify_against_feast

REPO: Final = Path("feature_repo")
OFFLINE: Final = REPO / "data" / "offline"
DATA_DIR: Final = Path("data/demo")
MODEL: Final = "category_affinity"
CODE_FOLDERS: Final = ("decision", "online", "streaming", "training", "server", "feature_repo")
BACKFILLED: Final = "backfilled"
STAMP: Final = "stamp"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Road:
    """Where the demo's things are.

    Attributes:
        repo: The loaded example repo.
        settings: One partition, virtual clock, free ports.
        offline: Folder of the repo's offline parts.
        stamp: Hash of everything that the backfill and the training depend on.
    """

    repo: Repo
    settings: Settings
    offline: Path
    stamp: str


def lay(
    redis_url: str | None, *, repo: Path = REPO, data_dir: Path = DATA_DIR, offline: Path = OFFLINE
) -> Road:
    """Load the example repo and settle where everything goes."""
    settings = Settings(
        repo=repo.resolve(),
        data_dir=data_dir.resolve(),
        redis_url=redis_url,
        clock=ClockKind.VIRTUAL,
        partitions=1,
        grpc_port=0,
        http_port=0,
    )
    return Road(repo=load_repo(repo), settings=settings, offline=offline.resolve(), stamp=_stamp())


def micros(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return int(moment.timestamp()) * 1_000_000


def reusable(road: Road) -> bool:
    """Whether an earlier run left a backfill and a model made from the same code, repo and data."""
    stamp = road.settings.data_dir / BACKFILLED / STAMP
    same = stamp.is_file() and stamp.read_text() == road.stamp
    return (
        same
        and road.settings.redis_url is None
        and registry.latest(road.settings.models_dir, MODEL) is not None
    )


def clear(road: Road, *, keep_backfill: bool) -> None:
    """Remove what an earlier run left: its live part, or everything."""
    for folder in ("valkey", "decisions", "logs"):
        shutil.rmtree(road.settings.data_dir / folder, ignore_errors=True)
    if not keep_backfill:
        shutil.rmtree(road.offline, ignore_errors=True)
        shutil.rmtree(road.settings.data_dir / BACKFILLED, ignore_errors=True)
    for part in road.offline.glob("*/live-*.parquet"):
        part.unlink()


def restore(road: Road) -> None:
    """Put the store's file as it was after the backfill."""
    kept = road.settings.data_dir / BACKFILLED / "valkey"
    shutil.copytree(kept, road.settings.data_dir / "valkey")


def keep(road: Road, stack: Stack) -> None:
    """Keep the store's file as it is now, for the next run; the embedded store restarts around the copy."""
    if stack.store is None:
        return
    stack.store.stop()
    kept = road.settings.data_dir / BACKFILLED
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(stack.store.data_dir, kept / "valkey")
    (kept / STAMP).write_text(road.stamp)
    stack.start_store()


def fill(road: Road, redis_url: str, history: pd.DataFrame, progress: Progress) -> BackfillReport:
    """Bring the history into both stores."""
    plan = stream_plan(road.repo, repo_policy(road.repo))
    until_us = micros(HELD_OUT_START)
    catalog = road.repo.catalog
    write_demographics(road.offline / "demographics")
    with connect(redis_url) as client:
        for view in batch_views(catalog):
            load_batch_view(RowWriter(client, road.repo.key_ttl_s), catalog, view, until_us, progress)
        settle_first_definitions(client, road.repo, road.settings.partitions)
        return backfill(
            client=client,
            writer=entity_writer(road.repo, client),
            plan=plan,
            schema=road.repo.events,
            events=Past.of_frame(history),
            archive=archive_folder(road.settings.data_dir, catalog.project),
            until_us=until_us,
            partition_count=road.settings.partitions,
            progress=progress,
        )


def train(road: Road, history: pd.DataFrame, progress: Callable[[str], None]) -> TrainedModel:
    """Train the shop's model on everything before the held-out weeks."""
    definition = parse_definitions(road.repo.model_definitions)[MODEL]
    if not isinstance(definition, TrainingDefinition):
        raise TypeError(f"{MODEL} does not score candidates")
    return train_model(
        definition=definition,
        catalog=road.repo.catalog,
        events=history,
        candidates=candidate_keys(repo_policy(road.repo), definition.candidates),
        models_dir=road.settings.models_dir,
        now_us=micros(HELD_OUT_START),
        progress=progress,
    )


def kept_model(road: Road) -> registry.Manifest:
    """Manifest of the model that an earlier run left in use."""
    folder = registry.latest(road.settings.models_dir, MODEL)
    assert folder is not None, "a stamped run always has a model"
    return registry.read_manifest(folder)


def verify(road: Road, redis_url: str, trained: TrainedModel, row_count: int) -> Verification:
    """Compare sampled training rows with Feast's own `get_historical_features`."""
    apply(road, redis_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast and Ibis warn about each other
        from feast import FeatureStore

        store = FeatureStore(repo_path=str(road.settings.repo))
        return verify_against_feast(store, trained.manifest.feature_service, trained.dataset, row_count)


def compare_with_feast(road: Road, redis_url: str, target: str, customer_count: int) -> Comparison:
    """Read every feature service for sampled customers through the server and through Feast's SDK."""
    apply(road, redis_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from feast import FeatureStore

        store = FeatureStore(repo_path=str(road.settings.repo))
    events = held_out()
    offers = [offer.name for offer in repo_policy(road.repo).offers]
    categories = sorted(events["product_category"].dropna().unique())
    rows = entity_rows(sorted(events["customer_id"].unique()), categories, offers, customer_count)
    return compare(target, store, road.repo.catalog, rows)


def apply(road: Road, redis_url: str) -> None:
    """Run `feast apply` on the repo, as any Feast user would.

    Raises:
        RuntimeError: With what Feast said, if it refuses.
    """
    os.environ["WAYPOST_REDIS"] = feast_connection_string(redis_url)
    feast = Path(sys.executable).parent / "feast"
    done = subprocess.run(
        [str(feast), "apply"], cwd=road.settings.repo, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"feast apply failed:\n{done.stdout}{done.stderr}")


def history() -> pd.DataFrame:
    """Events before the held-out weeks."""
    return history_frame(HELD_OUT_START)


def held_out() -> pd.DataFrame:
    """Events of the held-out weeks, browsing derived."""
    return live_events(HELD_OUT_START, LIVE_END)


def _stamp() -> str:
    digest = hashlib.sha256()
    for folder in CODE_FOLDERS:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in {".py", ".yaml", ".policy", ".lark"} and "data" not in path.parts:
                digest.update(f"{path}\0".encode() + path.read_bytes())
    for path in (Path("demo/data.py"), Path("requirements.lock")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
