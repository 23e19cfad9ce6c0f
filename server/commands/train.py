"""`waypost train`: a model from the offline store's history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.commands.options import DataDir, Repo
from server.commands.output import console, fail, reports_errors, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


@reports_errors
def train(
    name: Annotated[str, typer.Argument(help="The model, as models/*.yaml defines it.")],
    events: Annotated[
        Path, typer.Option("--events", help="Parquet of events: event_type, event_time, join keys.")
    ],
    repo: Repo = None,
    data_dir: DataDir = None,
) -> None:
    """Train a model, judge it on later weeks and put it into use.

    Example: `waypost train buys_category --events data/purchases.parquet`
    """
    from server.config import load_settings
    from server.training_run import TrainingRunError, train_from_repo
    from training.errors import TrainingError

    settings = load_settings(repo=repo, data_dir=data_dir)
    try:
        with console.status("loading the repo") as status:
            manifest = train_from_repo(
                settings, name, events, lambda stage: status.update(f"{name}: {stage}")
            )
    except (TrainingError, TrainingRunError) as error:
        raise fail(str(error)) from error
    say(f"{manifest} is in use; `waypost reload` has a running server take it")
    for predictor, metrics in manifest.metrics.items():
        say(f"  {predictor}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items()))
