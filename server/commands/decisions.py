"""`waypost explain` and `waypost replay`: what the decision log knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.options import AsJson, DataDir
from server.commands.output import fail, reports_errors, say, say_json

if TYPE_CHECKING:
    from server.config import Settings
    from waypost.decision.v1 import decision_pb2

Id = Annotated[str, typer.Argument(help="The decision's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("explain")(explain)
    app.command("replay")(replay)


@reports_errors
def explain(decision_id: Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what a logged decision was made of: request, values, reasons, answer.

    Example: `waypost explain 01935c2e-…`
    """
    from server.commands.as_json import message_json
    from server.commands.explanation import record_text
    from server.config import load_settings

    record = _find(load_settings(data_dir=data_dir), decision_id)
    if as_json:
        say_json(message_json(record))
    else:
        say(record_text(record))


@reports_errors
def replay(decision_id: Id, data_dir: DataDir = None) -> None:
    """Decide again from the record with the bundle and model of then, and compare the bytes.

    Exit code 0: the same bytes; 1: not, or it cannot be replayed.

    Example: `waypost replay 01935c2e-…`
    """
    from server.bundles import kept_bundle
    from server.config import load_settings
    from server.decision_codec import record_bytes
    from server.replay import replay as decide_again

    settings = load_settings(data_dir=data_dir)
    record = _find(settings, decision_id)
    bundle = kept_bundle(
        settings.bundles_dir, settings.models_dir, record.bundle_version, record.model_version
    )
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
