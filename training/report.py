"""A training's outcome as rich tables."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table

from training.metrics import Metrics
from training.pipeline import TrainedModel


def metrics_table(trained: TrainedModel) -> Table:
    """AUC, log-loss and calibration error on the test split, the model's first."""
    table = Table(title=f"{trained.manifest} on the test weeks", title_justify="left")
    table.add_column("predictor")
    for heading in ("AUC", "log-loss", "calibration error"):
        table.add_column(heading, justify="right")
    _add_metrics(table, trained.manifest.name, trained.evaluation.model, style="bold")
    for name, metrics in trained.evaluation.baselines.items():
        _add_metrics(table, name.replace("_", " "), metrics, style="")
    return table


def splits_table(trained: TrainedModel) -> Table:
    """Rows, share of positives and decision times of each split."""
    table = Table(title="Point-in-time set, split by time", title_justify="left")
    table.add_column("split")
    for heading in ("rows", "positive", "first decision", "last decision"):
        table.add_column(heading, justify="right")
    for name, split in trained.manifest.splits.items():
        positive = f"{split.positive_count / split.row_count:.2%}"
        table.add_row(name, f"{split.row_count:,}", positive, _day(split.first_us), _day(split.last_us))
    return table


def calibration_table(trained: TrainedModel) -> Table:
    """What was predicted and what happened, by tenth of the test rows."""
    table = Table(title="Calibration on the test weeks", title_justify="left")
    for heading in ("tenth", "rows", "predicted", "observed"):
        table.add_column(heading, justify="right")
    for number, part in enumerate(trained.evaluation.model.calibration, start=1):
        table.add_row(str(number), f"{part.row_count:,}", f"{part.predicted:.4f}", f"{part.observed:.4f}")
    return table


def _add_metrics(table: Table, name: str, metrics: Metrics, style: str) -> None:
    cells = (f"{metrics.auc:.4f}", f"{metrics.log_loss:.4f}", f"{metrics.calibration_error:.4f}")
    table.add_row(name, *cells, style=style)


def _day(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M}"
