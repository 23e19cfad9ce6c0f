"""A decision's record as text for people."""

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
