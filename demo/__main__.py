"""`make demo`: the whole road on real data, from raw purchases to ranked, explained, logged decisions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import grpc
import pandas as pd
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from demo import report, road
from demo.client import Client
from demo.data import HELD_OUT_START
from demo.hits import Baselines
from demo.replay import PLACEMENT, SEED, WATCHED, Moment, Outcome, Replay, count_segment_changes
from demo.road import Road
from online.errors import OnlineStoreError
from online.store import connect
from server.bundles import repo_policy
from server.errors import ServerError
from server.supervisor import Stack
from streaming.errors import StreamingError
from streaming.keys import PartitionKeys
from training.errors import TrainingError
from training.report import calibration_table, metrics_table, splits_table

VERIFIED_ROWS = 2_000
COMPARED_CUSTOMERS = 1_000
PLAIN_WIDTH = 140
console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
app = typer.Typer(add_completion=False)


class DemoFailed(Exception):
    """The demo found something that is not as it must be."""


EXPECTED = (
    DemoFailed,
    StreamingError,
    TrainingError,
    ServerError,
    OnlineStoreError,
    TimeoutError,
    grpc.RpcError,
)
"""What ends the demo with its words instead of a traceback."""


@app.command()
def main(
    redis_url: Annotated[str | None, typer.Option(help="Your own empty Redis or Valkey.")] = None,
    decisions: Annotated[int, typer.Option(min=1, help="Visits to decide upon.")] = 2_000,
    fresh: Annotated[bool, typer.Option("--fresh", help="Reuse nothing of an earlier run.")] = False,
) -> None:
    """Define, backfill, train, serve, replay the held-out weeks and decide as they go."""
    started = time.monotonic()
    console.rule("[bold]1 Define: load the example repo")
    way = road.lay(redis_url)
    views = way.repo.catalog.views
    aggregations = sum(len(view.aggregations) for view in views)
    console.print(
        f"{len(views)} feature views, {aggregations} windowed features, {len(way.repo.policy_sources)} policy files"
    )
    reuse = road.reusable(way) and not fresh
    road.clear(way, keep_backfill=reuse)
    if reuse:
        road.restore(way)
    history = road.history()
    with Stack(way.settings) as stack:
        stack.start_store()
        console.print(f"store: {stack.redis_url}, data in {way.settings.data_dir}")
        prepare_from_kept(way) if reuse else prepare_from_data(way, stack, history)
        console.rule("[bold]4 Serve")
        stack.start_services()
        console.print(
            f"gRPC on {stack.target}, metrics on http://{way.settings.host}:{stack.http_port}/metrics"
        )
        with Client(stack.target) as client:
            outcome = live(way, client, history, decisions)
            show(way, stack, client, outcome)
    console.print(f"done in {time.monotonic() - started:.0f} s")


def prepare_from_kept(way: Road) -> None:
    """Say what an earlier run left."""
    console.rule("[bold]2 and 3 Backfill and model: kept from an earlier run (--fresh makes them anew)")
    console.print(report.kept_model_table(road.kept_model(way)))


def prepare_from_data(way: Road, stack: Stack, history: pd.DataFrame) -> None:
    """Backfill both stores, train the model and compare its training set with Feast."""
    console.rule(f"[bold]2 Backfill {len(history):,} purchase lines before {HELD_OUT_START:%Y-%m-%d}")
    with bars() as bar:
        filled = road.fill(way, stack.redis_url, history, bar)
    console.print(report.backfill_table(filled))
    console.print(f"backfill: {filled.seconds:.1f} s, {filled.event_count / filled.seconds:,.0f} events/s")
    console.rule("[bold]3 Train: buys from this category within 7 days")
    with console.status("training") as status:
        trained = road.train(way, history, lambda stage: status.update(f"training: {stage}"))
    for table in (splits_table(trained), metrics_table(trained), calibration_table(trained)):
        console.print(table)
    console.print(
        "seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in trained.seconds.items())
    )
    with console.status("comparing the training set with Feast's get_historical_features"):
        verified = road.verify(way, stack.redis_url, trained, VERIFIED_ROWS)
    console.print(
        f"point-in-time join against Feast: {verified.row_count:,} rows × {verified.column_count} features, "
        f"{verified.difference_count} differences"
    )
    if not verified.equal:
        raise DemoFailed(f"the training set differs from Feast's: {verified.differences[:3]}")
    road.keep(way, stack)


def live(way: Road, client: Client, history: pd.DataFrame, decisions: int) -> Outcome:
    """Replay the held-out weeks."""
    events = road.held_out()
    derived = int(events["derived"].fillna(False).sum())
    console.rule(
        f"[bold]5 Live: {len(events):,} events of the held-out weeks, {derived:,} of them derived browsing"
    )
    offers = repo_policy(way.repo).offers
    categories = {o.name: str(o.attributes["category"]) for o in offers if "category" in o.tags}
    until = pd.Timestamp(HELD_OUT_START)
    baselines = Baselines.of(history, frozenset(categories.values()), until)
    replay = Replay(client, categories, baselines, decisions)
    begun = time.monotonic()
    with bars() as bar:
        outcome = replay.run(events, lambda done, total: bar("events", done, total))
    client.wait_until_applied(0)
    seconds = time.monotonic() - begun
    console.print(
        f"{outcome.event_count:,} events and {outcome.impression_count:,} impressions published, "
        f"{outcome.decision_count:,} decisions, {len(client.refusals)} events refused, {seconds:.0f} s"
    )
    if client.refusals:
        raise DemoFailed(f"events were refused: {client.refusals[:3]}")
    return outcome


def show(way: Road, stack: Stack, client: Client, outcome: Outcome) -> None:
    """Print what the replay saw."""
    console.rule("[bold]6 What happened")
    if outcome.story is not None and outcome.story.moments:
        console.print(report.story_table(outcome.story))
        console.print(report.segments_line(outcome.story))
        for moment in outcome.story.moments[:2]:
            console.print(report.decision_table(moment))
    console.print(report.decision_table(electronics(client, outcome)))
    project, partitions = way.repo.catalog.project, way.settings.partitions
    with connect(stack.redis_url) as store:
        console.print(report.changes_table(count_segment_changes(store, project, partitions)))
        stats: Any = store.hgetall(PartitionKeys(project, 0).stats)
    console.print(report.latency_table(client.decide_ms, {k.decode(): float(v) for k, v in stats.items()}))
    console.print(report.hits_table(outcome.hits))
    with console.status("reading the same values with Feast's own SDK"):
        compared = road.compare_with_feast(way, stack.redis_url, stack.target, COMPARED_CUSTOMERS)
    console.print(
        f"Feast's SDK on the same store: {compared.row_count:,} customers, {compared.value_count:,} values "
        f"({compared.present_count:,} present), {compared.difference_count} differences"
    )
    if compared.difference_count:
        raise DemoFailed(f"Feast reads other values: {compared.differences}")


def electronics(client: Client, outcome: Outcome) -> Moment:
    """The brief's own rule: who spent over 500 in 30 days and browses electronics."""
    context = {"browsing_category": "electronics"}
    answer = client.decide(PLACEMENT, outcome.top_spender, context=context, limit=3, seed=SEED)
    label = f"customer {outcome.top_spender}, browsing electronics"
    features = client.features(WATCHED, {"customer_id": outcome.top_spender})
    return Moment(label=label, at_us=answer.decided_at.ToMicroseconds(), features=features, decision=answer)


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars by stage, with rate and time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show_progress


if __name__ == "__main__":
    try:
        app()
    except EXPECTED as error:
        console.print(f"[red]the demo stopped:[/] {error}")
        sys.exit(1)
