"""Events as JSON lines, in batches that fit a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from google.protobuf.json_format import Parse, ParseError

from server.errors import ServerError
from waypost.events.v1 import events_pb2

BATCH = 500


class LineError(ServerError):
    """A line is no event."""


def batches(lines: Iterable[str]) -> Iterator[events_pb2.PublishEventsRequest]:
    """Requests of at most `BATCH` events; empty lines are skipped.

    Raises:
        LineError: A line is not the JSON of an event.
    """
    events = (_event(number, line) for number, line in enumerate(lines, start=1) if line.strip())
    while batch := list(islice(events, BATCH)):
        yield events_pb2.PublishEventsRequest(events=batch)


def _event(number: int, line: str) -> events_pb2.Event:
    try:
        return Parse(line, events_pb2.Event())
    except ParseError as error:
        raise LineError(f"line {number} is no event: {error}") from error
