"""Events as JSON lines, in batches that fit a request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice

from google.protobuf.json_format import Parse, ParseError

from server.errors import ServerError
from waypost.events.v1 import events_pb2

BATCH = 500


class LineError(ServerError):
    """A line is no event."""


def batches(lines: Iterable[bytes]) -> Iterator[events_pb2.PublishEventsRequest]:
    """Requests of at most `BATCH` events; empty lines are skipped.

    Raises:
        LineError: A line is not the JSON of an event.
    """
    events = (_event(number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while batch := list(islice(events, BATCH)):
        yield events_pb2.PublishEventsRequest(events=batch)


def _event(number: int, line: bytes) -> events_pb2.Event:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LineError(f"line {number} is no event: byte {error.start + 1} of it is not UTF-8") from error
    try:
        return Parse(text, events_pb2.Event())
    except ParseError as error:
        raise LineError(f"line {number} is no event: {_fault(text, error)}") from error


def _fault(text: str, error: ParseError) -> str:
    """What is wrong with a line, counted from where it begins; protobuf itself does not say where."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as bad:
        return f"{bad.msg}, at character {min(bad.pos, len(text.rstrip())) + 1}"
    return str(error) if isinstance(found, dict) else "it is JSON, and no object of an event's fields"
