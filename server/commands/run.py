"""Commands that run parts of Waypost: up, serve, materializer, backfill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.options import (
    Clock,
    DataDir,
    GrpcPort,
    Host,
    HttpPort,
    Partitions,
    RedisUrl,
    Repo,
    StoreUrl,
)
from server.commands.output import reports_errors, say
from server.wording import counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from server.config import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, serve, materializer, backfill):
        app.command(command.__name__)(command)


@reports_errors
def up(  # noqa: PLR0917 - the options of a command
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    host: Host = None,
    grpc_port: GrpcPort = None,
    http_port: HttpPort = None,
    partitions: Partitions = None,
    clock: Clock = None,
    history: Annotated[
        Path | None,
        typer.Option("--backfill", help="Parquet of past events, for the first start on a data folder."),
    ] = None,
) -> None:
    """Run store, materializer and server on this machine until Ctrl-C.

    Example: `waypost up --repo my_repo --backfill history.parquet`
    """
    from server.config import load_settings, redacted
    from server.history import load_batch_views
    from server.stores import store_url
    from server.supervisor import Stack, run_up

    def prepare(stack: Stack) -> None:
        if history is not None:
            _backfill(stack.settings, stack.redis_url, history)
        for view, count in load_batch_views(stack.settings, stack.redis_url).items():
            say(f"{view}: {counted(count, 'entity', 'entities')} online")

    def announce(stack: Stack) -> None:
        say(f"gRPC    {stack.target}")
        say(f"HTTP    http://{stack.settings.host}:{stack.http_port}/metrics and /health")
        say(f"store   {redacted(stack.redis_url)}")
        say(f"repo    {stack.settings.repo}, data in {stack.settings.data_dir}")
        say("serving; Ctrl-C ends everything")

    settings = load_settings(
        repo=repo,
        data_dir=data_dir,
        redis_url=redis_url,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        partitions=partitions,
        clock=clock,
    )
    if settings.redis_url is not None:
        settings = settings.model_copy(update={"redis_url": store_url(settings)})
    run_up(settings, prepare, announce)


@reports_errors
def serve(
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: StoreUrl = None,
    host: Host = None,
    grpc_port: GrpcPort = None,
    http_port: HttpPort = None,
    partitions: Partitions = None,
    clock: Clock = None,
) -> None:
    """Run the gRPC server alone, on a store that is there already.

    Example: `waypost serve --repo my_repo --redis-url redis://localhost:6379`
    """
    from server.transport import prefer_fewer_threads

    prefer_fewer_threads()  # before anything imports grpc

    from server.config import load_settings
    from server.stores import store_url
    from server.wiring import run_server

    settings = load_settings(
        repo=repo,
        data_dir=data_dir,
        redis_url=redis_url,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        partitions=partitions,
        clock=clock,
    )
    run_server(settings, store_url(settings), lambda at: say(f"serving gRPC on {at.grpc}, HTTP on {at.http}"))


@reports_errors
def materializer(
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: StoreUrl = None,
    partitions: Partitions = None,
    clock: Clock = None,
) -> None:
    """Run the materializer alone: it keeps features fresh from the log.

    Example: `waypost materializer --repo my_repo --redis-url redis://localhost:6379`
    """
    from server.config import load_settings
    from server.materialize import run_materializer
    from server.stores import store_url

    settings = load_settings(
        repo=repo, data_dir=data_dir, redis_url=redis_url, partitions=partitions, clock=clock
    )
    run_materializer(settings, store_url(settings), lambda: say("materializing"))


@reports_errors
def backfill(
    events: Annotated[Path, typer.Argument(help="Parquet of events, in any order.")],
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: StoreUrl = None,
    partitions: Partitions = None,
) -> None:
    """Compute features from the past, offline and online, with the code that the stream uses.

    Example: `waypost backfill history.parquet --repo my_repo`
    """
    from server.config import load_settings
    from server.stores import store_url

    settings = load_settings(repo=repo, data_dir=data_dir, redis_url=redis_url, partitions=partitions)
    _backfill(settings, store_url(settings), events)


def _backfill(settings: Settings, redis_url: str, events: Path) -> None:
    from rich.progress import Progress

    from server.history import backfill_file

    with Progress() as bar:
        report = backfill_file(settings, redis_url, events, _progress(bar))
    rows = sum(report.offline_rows.values())
    made = f"{counted(report.event_count, 'event')}, {counted(rows, 'offline row')}"
    say(f"{made} in {report.seconds:.1f} s")
    for kind, count in report.online_entities.items():
        say(f"  {counted(count, 'entity', 'entities')} of kind {kind} online")


def _progress(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return report
