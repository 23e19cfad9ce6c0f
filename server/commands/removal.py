"""Commands that take things out: erase a customer, retire a view, move aside what a store that was set back lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.options import AsJson, DataDir, Repo, StoreUrl
from server.commands.output import errors, fail, reports_errors, say, say_json, table
from server.wording import counted

if TYPE_CHECKING:
    from server.removal import Erasure, RemovedKind

WAIT_S = 30.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (erase, retire, restored):
        app.command(command.__name__)(command)


@reports_errors
def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is.")] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait-s", min=0, help="For the materializer to apply what was published before."),
    ] = WAIT_S,
    offline: Annotated[bool, typer.Option("--offline", help="No materializer runs: wait for none.")] = False,
    escaped: Annotated[
        bool,
        typer.Option("--escaped", help="The id is written as in a JSON text: `a\\u0000b`."),
    ] = False,
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Remove one customer: features, state, segments, timers, events of the log and of the archive.

    Stop publishing the customer's events first. Offline rows, the decision log and what was counted for others (a
    category's totals) are not reached; docs/operations.md says what to do about them.

    Example: `waypost erase 17 --repo my_repo --redis-url redis://localhost:6379`
    """
    from online.store import check_store, connect
    from server.config import load_settings, redacted
    from server.removal import erase_customer
    from server.repo import load_repo
    from server.stores import store_url
    from streaming.archive import archive_folder

    customer = _unescaped(customer) if escaped else customer
    settings = load_settings(repo=repo, data_dir=data_dir, redis_url=redis_url)
    url = store_url(settings)
    loaded = load_repo(settings.repo)
    with connect(url) as client, _search() as progress:
        check_store(client)
        erasure = erase_customer(
            client,
            loaded.catalog,
            loaded.events.customer,
            customer,
            archive=archive_folder(settings.data_dir, loaded.catalog.project),
            apply=not dry_run,
            wait_s=None if offline else wait_s,
            progress=progress,
        )
    if as_json:
        say_json(
            {"customer": customer, "store": redacted(url), "removed": not dry_run, **_erasure_json(erasure)}
        )
    elif not erasure.nothing:
        verb = "has" if dry_run else "had, and has no more"
        table(f"What {customer} {verb}", ("what", "count"), _erasure_rows(erasure), folded="what")
    if erasure.nothing:
        raise fail(f"there is nothing of customer {customer!r} in {redacted(url)}")


def _unescaped(text: str) -> str:
    """An id that a command line cannot say, as one with a zero byte, from its form in JSON."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not the inside of a JSON text: {error}") from error


@reports_errors
def retire(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what there is.")] = False,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A join key, of a view that the repo no longer defines.")
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option("--feature", help="A feature, of a view that the repo no longer defines."),
    ] = None,
    repo: Repo = None,
    redis_url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Remove one feature view's values, and Waypost's state of it, from every entity of the online store.

    A materializer whose repo still defines the view goes on writing it: take the definition out and restart it first.

    Example: `waypost retire old_view --key customer_id --feature total --feature last_at --yes`
    """
    from online.store import check_store, connect
    from server.config import load_settings, redacted
    from server.removal import retire as retire_view
    from server.removal import view_to_retire
    from server.repo import load_repo
    from server.stores import store_url

    settings = load_settings(repo=repo, redis_url=redis_url)
    url = store_url(settings)
    catalog = load_repo(settings.repo).catalog
    found = view_to_retire(catalog, view, key or (), feature or ())
    with connect(url) as client, _search() as progress:
        check_store(client)
        kinds = retire_view(client, catalog, found, apply=yes, progress=progress)
    if as_json:
        say_json({"view": view, "store": redacted(url), "removed": yes, "entities": _kinds_json(kinds)})
    else:
        for kind in kinds:
            done = "removed from" if yes else "would be removed from"
            values = counted(kind.fields, "field")
            state = counted(kind.state_fields, "field")
            say(f"{values} and {state} of state {done} {counted(kind.entities, 'entity', 'entities')}")
        if kinds and not yes:
            say("nothing is removed yet; say --yes to do it")
    if not kinds:
        raise fail(f"there is nothing of view {view!r} in {redacted(url)}")


@reports_errors
def restored(
    yes: Annotated[bool, typer.Option("--yes", help="The store was set back to a copy: do it.")] = False,
    repo: Repo = None,
    data_dir: DataDir = None,
    redis_url: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Move aside what the archive and the offline rows have of checkpoints that the store does not know.

    For when the store was set back to an older copy and its files were not; no materializer may run. Better set the
    files back to the same moment.

    Example: `waypost restored --yes --repo my_repo --redis-url redis://localhost:6379`
    """
    from online.store import check_store, connect
    from server.config import load_settings
    from server.repo import load_repo
    from server.restored import move_aside
    from server.stores import store_url
    from streaming.archive import archive_folder

    if not yes:
        raise fail("nothing is moved: say --yes where the store was set back to an older copy")
    settings = load_settings(repo=repo, data_dir=data_dir, redis_url=redis_url)
    catalog = load_repo(settings.repo).catalog
    with connect(store_url(settings)) as client:
        check_store(client)
        moved, folder = move_aside(client, catalog, archive_folder(settings.data_dir, catalog.project))
    if as_json:
        say_json({"folder": folder, "partitions": [asdict(part) for part in moved]})
        return
    for part in moved:
        events, files = counted(part.events, "event"), counted(part.row_files, "file")
        say(f"partition {part.partition}: {events} and {files} of offline rows moved aside")
    if any(part.events or part.row_files for part in moved):
        say(f"they lie in folders {folder}, beside the archive's files and each view's")


def _erasure_rows(erasure: Erasure) -> Iterator[tuple[str, str]]:
    for kind in erasure.kinds:
        by = " + ".join(kind.join_keys)
        yield f"entities by {by}", str(kind.entities)
        yield f"  fields of features by {by}", str(kind.fields)
        yield f"  fields of state by {by}", str(kind.state_fields)
    traces = erasure.traces
    yield "segments", str(erasure.segments)
    yield "timers", str(traces.timers)
    yield "events in the log", str(traces.events)
    yield "segment changes", str(traces.changes)
    yield "dead letters", str(traces.dead_letters)
    yield "archived events", str(erasure.archived)


def _erasure_json(erasure: Erasure) -> dict[str, object]:
    return {
        "entities": _kinds_json(erasure.kinds),
        "segments": erasure.segments,
        "timers": erasure.traces.timers,
        "events": erasure.traces.events,
        "segment_changes": erasure.traces.changes,
        "dead_letters": erasure.traces.dead_letters,
        "archived_events": erasure.archived,
    }


def _kinds_json(kinds: Sequence[RemovedKind]) -> list[dict[str, object]]:
    return [
        {
            "join_keys": list(kind.join_keys),
            "entities": kind.entities,
            "fields": kind.fields,
            "state_fields": kind.state_fields,
        }
        for kind in kinds
    ]


@contextmanager
def _search() -> Iterator[Callable[[int, int], None]]:
    """A progress bar beside the output, where there is a terminal."""
    from rich.progress import Progress

    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("keys of the store", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
