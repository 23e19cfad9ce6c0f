"""Commands that ask a running server: decide, features, publish, status, reload, clock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from server.commands.options import DEFAULT_TARGET, AsJson, Target
from server.commands.output import fail, json_text, reports_errors, say, say_json, table
from server.wording import counted


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (decide, features, publish, status, watch, reload):
        app.command(command.__name__)(command)
    app.command("advance")(advance)


@reports_errors
def decide(
    placement: Annotated[str, typer.Argument(help="The touchpoint, such as home_hero.")],
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    context: Annotated[
        list[str] | None, typer.Option("--context", "-c", help="name=value; repeatable.")
    ] = None,
    candidate: Annotated[list[str] | None, typer.Option("--candidate", help="An offer; repeatable.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="0: the placement's own.")] = 0,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of exploration.")] = None,
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Ask what to show a customer.

    Example: `waypost decide home_hero 17 --context browsing_category=electronics`
    """
    from server.commands.calls import TIMEOUT_S, channel_to, key_and_value
    from server.commands.render import response_text
    from waypost.decision.v1 import decision_pb2, decision_pb2_grpc

    request = decision_pb2.DecideRequest(
        placement=placement,
        customer_id=customer,
        context=dict(key_and_value(item, "--context") for item in context or ()),
        candidates=candidate or (),
        limit=limit,
        seed=seed,
    )
    with channel_to(target) as channel:
        response = decision_pb2_grpc.DecisionServiceStub(channel).Decide(request, timeout=TIMEOUT_S)
    _show(response, as_json, response_text)


@reports_errors
def features(
    names: Annotated[list[str], typer.Argument(help="A feature service, or features as view:feature.")],
    key: Annotated[list[str], typer.Option("--key", "-k", help="name=value of a join key; repeatable.")],
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Read features of one entity.

    Example: `waypost features purchase_history:last_month_total --key customer_id=17`
    """
    from server.commands.as_json import features_json
    from server.commands.calls import TIMEOUT_S, channel_to, key_and_value
    from server.commands.render import features_text
    from waypost.features.v1 import features_pb2, features_pb2_grpc

    refs = [name for name in names if ":" in name]
    services = [name for name in names if ":" not in name]
    if len(services) > 1 or (services and refs):
        raise typer.BadParameter("give one feature service, or a list of view:feature")
    request = features_pb2.GetOnlineFeaturesRequest(
        feature_service=services[0] if services else "",
        features=refs,
        entities=[features_pb2.EntityRow(keys=dict(key_and_value(item, "--key") for item in key))],
    )
    with channel_to(target) as channel:
        response = features_pb2_grpc.FeatureServiceStub(channel).GetOnlineFeatures(request, timeout=TIMEOUT_S)
    if as_json:
        say_json(features_json(response))
    else:
        say(features_text(response))


@reports_errors
def publish(
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines of events; standard input without it.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Publish events, one JSON object a line, in the form of `waypost.events.v1.Event`.

    Example: `waypost publish events.jsonl`, with lines such as
    `{"eventId": "e1", "eventType": "visit", "customerId": "17", "eventTime": "2026-01-31T12:00:00Z"}`
    """
    from server.commands.calls import TIMEOUT_S, channel_to
    from server.commands.event_lines import batches
    from server.commands.render import publish_text
    from waypost.events.v1 import events_pb2_grpc

    refused = 0
    lines = file.open("rb") if file is not None else sys.stdin.buffer
    with lines, channel_to(target) as channel:
        stub = events_pb2_grpc.EventServiceStub(channel)
        for request in batches(lines):
            response = stub.PublishEvents(request, timeout=TIMEOUT_S)
            refused += len(response.results) - response.accepted_count
            _show(response, as_json, publish_text)
    if refused:
        raise fail(f"{counted(refused, 'event')} refused")


@reports_errors
def status(target: Target = DEFAULT_TARGET, as_json: AsJson = False) -> None:
    """Say what a server runs on and how far its features are behind.

    Example: `waypost status --target 127.0.0.1:50051`
    """
    from server.commands.as_json import status_json
    from server.commands.calls import TIMEOUT_S, channel_to
    from server.commands.render import status_rows
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    with channel_to(target) as channel:
        response = admin_pb2_grpc.AdminServiceStub(channel).GetStatus(
            admin_pb2.GetStatusRequest(), timeout=TIMEOUT_S
        )
    if as_json:
        say_json(status_json(response))
    else:
        table(f"Server at {target}", ("what", "value"), status_rows(response), folded="value")


@reports_errors
def watch(
    segments: Annotated[list[str] | None, typer.Argument(help="Segments; all without any.")] = None,
    position: Annotated[
        str, typer.Option("--from", help="Position to resume from; 0 is the oldest that is kept.")
    ] = "",
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many changes.")] = None,
    target: Target = DEFAULT_TARGET,
    as_json: AsJson = False,
) -> None:
    """Follow who enters and leaves segments, until Ctrl-C.

    Example: `waypost watch cart_abandoner --from 0`
    """
    from server.commands.as_json import message_json
    from server.commands.calls import channel_to
    from server.commands.render import change_text
    from waypost.segments.v1 import segments_pb2, segments_pb2_grpc

    request = segments_pb2.WatchSegmentsRequest(segments=segments or (), position=position)
    seen = 0
    with channel_to(target) as channel:
        for response in segments_pb2_grpc.SegmentServiceStub(channel).WatchSegments(request):
            for change in response.changes:
                line = {**message_json(change), "position": response.position}
                say(json_text(line) if as_json else change_text(change))
                seen += 1
                if count is not None and seen >= count:
                    return


@reports_errors
def reload(target: Target = DEFAULT_TARGET) -> None:
    """Have the server compile its repo's policy and models anew and swap them in.

    Example: `waypost reload` after an edit of `policy/`
    """
    from server.commands.calls import TIMEOUT_S, channel_to
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    with channel_to(target) as channel:
        response = admin_pb2_grpc.AdminServiceStub(channel).Reload(
            admin_pb2.ReloadRequest(), timeout=TIMEOUT_S
        )
    say(f"bundle {response.bundle_version} decides now")


@reports_errors
def advance(
    instant: Annotated[str, typer.Argument(help="RFC 3339, such as 2026-01-31T12:00:00Z.")],
    target: Target = DEFAULT_TARGET,
) -> None:
    """Move a server's virtual clock forward.

    Example: `waypost advance 2026-01-31T12:00:00Z`
    """
    from server.commands.calls import TIMEOUT_S, channel_to, instant_us
    from server.values import timestamp
    from waypost.admin.v1 import admin_pb2, admin_pb2_grpc

    request = admin_pb2.AdvanceClockRequest(now=timestamp(instant_us(instant, "instant")))
    with channel_to(target) as channel:
        response = admin_pb2_grpc.AdminServiceStub(channel).AdvanceClock(request, timeout=TIMEOUT_S)
    say(f"the server's time is {response.now.ToJsonString()}")


def _show(message: Any, as_json: bool, text: Any) -> None:
    from server.commands.as_json import message_json

    if as_json:
        say_json(message_json(message))
    else:
        say(text(message))
