"""`waypost explain` and `waypost replay`: what the decision log knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.options import AsJson, DataDir
from server.commands.output import fail, hint, reports_errors, say, say_json

if TYPE_CHECKING:
    from server.config import Settings
    from waypost.decision.v1 import decision_pb2

Id = Annotated[str, typer.Argument(help="The decision's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("explain")(explain)
    app.command("replay")(replay)


@reports_errors
def explain(
    decision_id: Id,
    why_not: Annotated[
        list[str] | None,
        typer.Option("--why-not", help="An offer: say why it is not in the answer; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what a logged decision was made of: request, values, rules and their comparisons, reasons, answer.

    `--why-not` adds what kept an offer out and the smallest change of the placement's changeable inputs that would
    have made it eligible.

    Example: `waypost explain 01935c2e-… --why-not premium_electronics`
    """
    from server.commands.as_json import message_json
    from server.commands.explanation import explanation_text, record_text
    from server.config import load_settings
    from server.errors import ServerError
    from waypost.decision.v1 import decision_pb2

    settings = load_settings(data_dir=data_dir)
    record = _find(settings, decision_id)
    try:
        answer = _explained(settings, record, why_not or [])
    except ServerError as error:
        if why_not:
            raise
        hint(f"its conditions cannot be told: {error}")
        answer = decision_pb2.ExplainResponse()
    if as_json:
        explanation = message_json(answer)
        explanation.pop("decision", None)
        say_json({**message_json(record), **explanation})
    else:
        say(f"{record_text(record)}\n\n{explanation_text(answer)}".rstrip())


def _explained(
    settings: Settings, record: decision_pb2.DecisionRecord, offers: list[str]
) -> decision_pb2.ExplainResponse:
    """The record in words, by the bundle of then."""
    from decision.errors import RequestError
    from server.bundles import kept_bundle
    from server.decision_codec import models_of
    from server.explaining import explain_record

    bundle = kept_bundle(settings.bundles_dir, settings.models_dir, record.bundle_version, models_of(record))
    try:
        return explain_record(record, bundle, offers)
    except RequestError as error:
        raise fail(str(error)) from error


@reports_errors
def replay(decision_id: Id, data_dir: DataDir = None) -> None:
    """Decide again from the record with the bundle and model of then, and compare the bytes.

    Exit code 0: the same bytes; 1: not, or it cannot be replayed.

    Example: `waypost replay 01935c2e-…`
    """
    from server.bundles import kept_bundle
    from server.config import load_settings
    from server.decision_codec import models_of, record_bytes
    from server.replay import replay as decide_again

    settings = load_settings(data_dir=data_dir)
    record = _find(settings, decision_id)
    bundle = kept_bundle(settings.bundles_dir, settings.models_dir, record.bundle_version, models_of(record))
    recorded, replayed = record_bytes(record), record_bytes(decide_again(record, bundle))
    if recorded != replayed:
        raise fail(
            f"{decision_id}: the replay gave {len(replayed)} other bytes than the record's {len(recorded)}"
        )
    say(f"{decision_id}: the same {len(recorded)} bytes")


def _find(settings: Settings, decision_id: str) -> decision_pb2.DecisionRecord:
    from server.decision_files import find

    record = find(settings.decisions_dir, decision_id)
    if record is None:
        raise fail(f"no decision {decision_id} in {settings.decisions_dir}: give the server's --data-dir")
    return record
