"""What the demo shows, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from rich.table import Table

from demo.hits import TOP_K, Hits
from demo.replay import WATCHED, Moment, Story
from streaming.backfill import BackfillReport
from training.registry import Manifest
from waypost.decision.v1 import decision_pb2
from waypost.features.v1 import features_pb2

_REASON_KINDS = {
    number: name.removeprefix("REASON_KIND_").lower() for name, number in decision_pb2.ReasonKind.items()
}


def backfill_table(report: BackfillReport) -> Table:
    """Rows written offline, by view, and entities online, by kind."""
    table = Table(title="Backfill", title_justify="left")
    table.add_column("store")
    table.add_column("what")
    table.add_column("rows", justify="right")
    for view, count in report.offline_rows.items():
        table.add_row("offline", view, f"{count:,}")
    for kind, count in report.online_entities.items():
        table.add_row("online", kind, f"{count:,}")
    return table


def kept_model_table(manifest: Manifest) -> Table:
    """Metrics of a model that an earlier run trained, from its manifest."""
    table = Table(title=f"{manifest} on the test weeks (kept from an earlier run)", title_justify="left")
    for heading in ("predictor", "AUC", "log-loss", "calibration error"):
        table.add_column(heading, justify="left" if heading == "predictor" else "right")
    for predictor, metrics in manifest.metrics.items():
        cells = [f"{metrics[name]:.4f}" for name in ("auc", "log_loss", "calibration_error")]
        table.add_row(manifest.name if predictor == "model" else predictor.replace("_", " "), *cells)
    return table


def story_table(story: Story) -> Table:
    """Features of the watched customer at each moment."""
    table = Table(title=f"Customer {story.visit.customer_id}: one visit", title_justify="left")
    table.add_column("feature")
    for moment in story.moments:
        table.add_column(f"{moment.label}\n{_instant(moment.at_us)}", justify="right")
    for place, name in enumerate(WATCHED):
        cells = [_cell(moment.features, place) for moment in story.moments]
        before = [None, *cells[:-1]]
        table.add_row(
            name, *(f"[bold]{c}[/]" if b not in (None, c) else c for b, c in zip(before, cells, strict=True))
        )
    return table


def segments_line(story: Story) -> str:
    """Segments the customer entered and left between the moments."""
    words = []
    for earlier, later in zip(story.moments, story.moments[1:], strict=False):
        was, now = _members(earlier), _members(later)
        words += [f"[green]entered {name}[/] by {_instant(later.at_us)}" for name in sorted(now - was)]
        words += [f"[red]left {name}[/] by {_instant(later.at_us)}" for name in sorted(was - now)]
    return "segments: " + (", ".join(words) or "no change")


def decision_table(moment: Moment) -> Table:
    """A decision: offers with score, propensity and reasons."""
    answer = moment.decision
    title = f"home_hero, {moment.label} ({_instant(moment.at_us)}): decision {answer.decision_id}"
    table = Table(title=title, title_justify="left")
    table.add_column("offer")
    for heading in ("prediction", "score", "propensity"):
        table.add_column(heading, justify="right")
    table.add_column("why")
    for offer in answer.offers:
        prediction = f"{offer.prediction:.4f}" if offer.HasField("prediction") else "–"
        table.add_row(offer.offer, prediction, f"{offer.score:.4f}", f"{offer.propensity:.3f}", _why(offer))
    return table


def changes_table(changes: Mapping[tuple[str, bool], int]) -> Table:
    """Entries into segments and exits from them, over all customers."""
    table = Table(title="Segments in the two weeks", title_justify="left")
    for heading in ("segment", "entered", "left"):
        table.add_column(heading, justify="left" if heading == "segment" else "right")
    for segment in sorted({name for name, _ in changes}):
        table.add_row(
            segment, f"{changes.get((segment, True), 0):,}", f"{changes.get((segment, False), 0):,}"
        )
    return table


def latency_table(decide_ms: Sequence[float], stats: Mapping[str, float]) -> Table:
    """Decision latency as the client saw it, and freshness as the materializer measured it."""
    table = Table(title="Wall time", title_justify="left")
    for heading in ("what", "p50", "p99", "samples"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    p50, p99 = np.percentile(np.asarray(decide_ms), [50, 99])
    table.add_row("decision (gRPC, client side)", f"{p50:.1f} ms", f"{p99:.1f} ms", f"{len(decide_ms):,}")
    table.add_row(
        "event arrival to readable feature",
        f"{stats['freshness_ms_p50']:.1f} ms",
        f"{stats['freshness_ms_p99']:.1f} ms",
        f"{int(stats['freshness_samples']):,}",
    )
    return table


def hits_table(hits: Mapping[str, Hits]) -> Table:
    """How often what was ranked first was bought."""
    table = Table(
        title="Ranked before the visit, bought in it (visits that buy any category on offer)",
        title_justify="left",
    )
    table.add_column("ranked by")
    for heading in ("first was bought", f"any of top {TOP_K}", f"of top {TOP_K} bought", "visits"):
        table.add_column(heading, justify="right")
    for name, counts in hits.items():
        rates = counts.rates()
        table.add_row(
            {"decision": "[bold]Waypost's decision[/]", "popularity": "popularity", "recency": "own recency"}[
                name
            ],
            f"{rates['first']:.1%}",
            f"{rates['any_of_top']:.1%}",
            f"{rates['precision']:.1%}",
            f"{counts.visits:,}",
        )
    return table


def _why(offer: decision_pb2.RankedOffer) -> str:
    return "\n".join(
        f"{_REASON_KINDS[reason.kind]} [bold]{reason.name}[/]: {reason.detail}" for reason in offer.reasons
    )


def _cell(features: features_pb2.GetOnlineFeaturesResponse, place: int) -> str:
    column = features.columns[place]
    if column.statuses[0] not in (features_pb2.FIELD_STATUS_PRESENT, features_pb2.FIELD_STATUS_STALE):
        return features_pb2.FieldStatus.Name(column.statuses[0]).removeprefix("FIELD_STATUS_").lower()
    value = column.values[0]
    kind = value.WhichOneof("kind")
    content = getattr(value, str(kind))
    return f"{content:.2f}" if kind == "double_value" else str(content)


def _members(moment: Moment) -> set[str]:
    return {
        column.name.partition(":")[2]
        for column in moment.features.columns
        if column.name.startswith("segments:") and column.values[0].bool_value
    }


def _instant(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%m-%d %H:%M}"
