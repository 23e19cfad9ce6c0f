"""Commands for the dead-letter log: what was refused or could not be applied, and another try."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from server.commands.options import DEFAULT_TARGET, AsJson, Target
from server.commands.output import fail, reports_errors, say, say_json, table
from server.wording import counted

app = typer.Typer(help="Look at events that are in no feature, and publish them again.", no_args_is_help=True)
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]


@app.command("ls")
@reports_errors
def list_letters(
    reason: Annotated[str, typer.Option("--reason", help="Only of this reason, such as LATE.")] = "",
    after: Annotated[str, typer.Option("--after", help="The id that the page begins behind.")] = "",
    limit: Limit = 20,
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first within each source.

    Example: `waypost dlq ls --reason OUT_OF_RANGE`
    """
    from server.commands.as_json import message_json
    from server.commands.calls import TIMEOUT_S, channel_to
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    request = admin_pb2.ListDeadLettersRequest(reason=reason, after=after, limit=limit)
    with channel_to(target) as channel:
        page = admin_pb2_grpc.AdminServiceStub(channel).ListDeadLetters(request, timeout=TIMEOUT_S)
    if as_json:
        say_json(message_json(page))
        return
    rows = [
        (letter.id, letter.reason, letter.field or "–", letter.event.event_id or "–", letter.detail)
        for letter in page.letters
    ]
    title = f"{counted(page.total, 'dead letter')} at {target}"
    if reason and not rows:
        say(f"{title}, none {'behind that ' if after else ''}of reason {reason!r}")
        return
    table(title, ("id", "reason", "field", "event", "detail"), rows, folded="detail")
    if page.next:
        say(f"more behind: --after {page.next}")


@app.command("show")
@reports_errors
def show_letters(
    ids: Annotated[list[str], typer.Argument(help="Ids that `dlq ls` gives.")],
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Show dead letters whole, with the bytes that are kept.

    Example: `waypost dlq show refused:1767225600000-0`
    """
    from server.commands.as_json import message_json
    from server.commands.calls import TIMEOUT_S, channel_to
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    request = admin_pb2.ListDeadLettersRequest(ids=ids)
    with channel_to(target) as channel:
        found = admin_pb2_grpc.AdminServiceStub(channel).ListDeadLetters(request, timeout=TIMEOUT_S)
    if as_json:
        say_json([message_json(letter) for letter in found.letters])
    else:
        for letter in found.letters:
            say(f"{letter.id}  {letter.reason}  {letter.field}\n  {letter.detail}")
            say(f"  arrived {letter.arrived.ToJsonString()}")
            if letter.event.event_id:
                say(f"  event {json.dumps(message_json(letter.event), ensure_ascii=False)}")
            say(f"  original {letter.original!r}")
    missing = set(ids) - {letter.id for letter in found.letters}
    if missing:
        raise fail(f"not there: {', '.join(sorted(missing))}")


@app.command("redrive")
@reports_errors
def redrive_letters(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids that `dlq ls` gives.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="All of this reason, up to --limit.")] = "",
    limit: Limit = 1_000,
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Publish dead letters again; those that are accepted leave the log. Gates for anomalies let them pass.

    Example: `waypost dlq redrive --reason OUTLIER --limit 100`
    """
    from server.commands.as_json import message_json
    from server.commands.calls import TIMEOUT_S, channel_to
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    if bool(ids) == bool(reason):
        raise typer.BadParameter("give ids, or --reason")
    with channel_to(target) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        wanted = list(ids or ())
        if reason:
            wanted = _ids_of(stub, reason, limit)
        answer = admin_pb2.RedriveDeadLettersResponse()
        if wanted:
            answer = stub.RedriveDeadLetters(
                admin_pb2.RedriveDeadLettersRequest(ids=wanted), timeout=TIMEOUT_S
            )
    if as_json:
        say_json(message_json(answer))
    elif reason and not wanted:
        say(f"no dead letter is of reason {reason!r}")
    else:
        say(f"{counted(answer.accepted_count, 'event')} accepted")
        for letter_id, result in zip(wanted, answer.results, strict=True):
            if not result.accepted:
                say(f"  {letter_id}: {result.error.message}")
    if answer.accepted_count < len(wanted):
        raise fail(f"{counted(len(wanted) - answer.accepted_count, 'event')} refused again")


def _ids_of(stub: Any, reason: str, limit: int) -> list[str]:
    """The first letters of a reason, over as many pages as they take."""
    from server.commands.calls import TIMEOUT_S
    from waypost.admin.v1 import admin_pb2

    ids: list[str] = []
    after = ""
    while True:
        request = admin_pb2.ListDeadLettersRequest(reason=reason, after=after, limit=limit - len(ids))
        page = stub.ListDeadLetters(request, timeout=TIMEOUT_S)
        ids += [letter.id for letter in page.letters]
        after = page.next
        if len(ids) == limit or not after:
            return ids
