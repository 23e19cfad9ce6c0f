"""A decision's record, and what explains it, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from server.commands.calls import text_of
from server.commands.render import response_text
from waypost.decision.v1 import decision_pb2
from waypost.features.v1 import features_pb2


def record_text(record: decision_pb2.DecisionRecord) -> str:
    """What was asked, which values were read, and what came of it."""
    return "\n".join(
        [
            *_request(record),
            "",
            "values of the customer:",
            *_block(record.customer, ("",)),
            "",
            "values of the candidates:",
            *_block(record.candidates, tuple(record.candidates.rows)),
            "",
            response_text(record.response),
        ]
    )


def _request(record: decision_pb2.DecisionRecord) -> Iterator[str]:
    request = record.request
    yield f"placement {request.placement}, customer {request.customer_id}, limit {request.limit or 'as placed'}"
    for name in sorted(request.context):
        yield f"  context {name} = {text_of(request.context[name])}"
    if request.candidates:
        yield f"  candidates {', '.join(request.candidates)}"
    yield f"engine {record.engine_version}, model {record.model_version or '–'}, seed {record.seed}"


def _block(block: decision_pb2.VectorBlock, rows: tuple[str, ...]) -> Iterator[str]:
    if not block.columns:
        yield "  nothing is read"
    for column in block.columns:
        for index, row in enumerate(rows):
            yield "  " + _cell(column, index, row)


def _cell(column: decision_pb2.VectorColumn, index: int, row: str) -> str:
    name = f"{column.name} of {row}" if row else column.name
    status = features_pb2.FieldStatus.Name(column.statuses[index]).removeprefix("FIELD_STATUS_").lower()
    stamp_us = column.event_timestamps_us[index]
    since = f", since {datetime.fromtimestamp(stamp_us / 1e6, UTC).isoformat()}" if stamp_us else ""
    return f"{name} = {text_of(column.values[index])} ({status}{since})"


def explanation_text(answer: decision_pb2.ExplainResponse) -> str:
    """The conditions of a decision, and why offers are not in it."""
    lines = [line for verdict in answer.conditions for line in _condition(verdict)]
    lines = ["conditions:", *lines] if lines else []
    if answer.conditions_left_out:
        lines.append(f"  and {answer.conditions_left_out} more")
    for why in answer.why_not:
        lines += ["", *_why_not(why)]
    return "\n".join(lines)


def _condition(verdict: decision_pb2.ConditionVerdict) -> Iterator[str]:
    subject = f"rule {verdict.rule}" if verdict.rule else "its own condition"
    where = f" for {verdict.offer}" if verdict.offer else ""
    idle = "" if verdict.active else ", not active then"
    did = f", so {', '.join(verdict.actions)}" if verdict.actions else ""
    yield f"  {subject}{where}: {_truth(verdict.truth)}{idle}{did}"
    for part in verdict.comparisons:
        values = ", ".join(f"{name} is {text_of(part.values[name])}" for name in sorted(part.values))
        yield f"    {_truth(part.truth):<5} {part.text}" + (f"   ({values})" if values else "")


def _truth(truth: decision_pb2.Truth.ValueType) -> str:
    return decision_pb2.Truth.Name(truth).removeprefix("TRUTH_")


def _why_not(why: decision_pb2.WhyNot) -> Iterator[str]:
    if why.shown:
        yield f"{why.offer} is shown"
        return
    yield f"why not {why.offer}:"
    for item in why.obstacles:
        kind = decision_pb2.ObstacleKind.Name(item.kind).removeprefix("OBSTACLE_KIND_").lower()
        yield f"  {kind.replace('_', ' ')} {item.name}: {item.detail}"
    if why.HasField("nearest"):
        yield from _nearest(why.nearest)


def _nearest(nearest: decision_pb2.NearestChange) -> Iterator[str]:
    if nearest.changes:
        place = f"shown at place {nearest.place}" if nearest.HasField("place") else "eligible, but outranked"
        yield f"  it would be {place} with:"
    for change in nearest.changes:
        such_as = "another text, such as " if change.such_as else ""
        yield f"    {change.name}: {such_as}{text_of(change.after)} instead of {text_of(change.before)}"
    if nearest.note:
        yield f"  {nearest.note}"
