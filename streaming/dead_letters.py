"""The dead-letter log: events that were refused when they were published, and events that could not be applied."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from streaming.events import MAX_CUSTOMER_ID_BYTES, MAX_EVENT_ID_BYTES, EventRecord
from streaming.keys import PartitionKeys, refused_key
from streaming.owner import MAX_DEAD_LETTERS
from waypost.events.v1 import events_pb2

REFUSED = "refused"
"""Where letters come from that never reached the log; the others come from a partition."""
MAX_LETTER_BYTES = 4_096
"""Larger refused events are kept in part: so many letters of any size would fill the store."""
MAX_TEXT_CHARS = 300
_JSON, _PROTO, _PART = b"json", b"proto", b"part"
"""What is kept of a refused event: JSON or the beginning of it, a whole event, or an event without its properties."""


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that is kept out of the log, as the client sent it.

    Attributes:
        event: A serialized `waypost.events.v1.Event`, or JSON that is none.
        is_json: Which of the two.
    """

    reason: str
    field: str
    detail: str
    arrived_us: int
    event: bytes
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter as it lies in the log.

    Attributes:
        id: `SOURCE:STREAM_ID`; of an event that was not applied, the position under which it was acknowledged.
        original: The bytes that are kept of it.
        sent: The serialized `waypost.events.v1.Event` as the client sent it, or None.
        record: The event as the partition's log has it, or None.
        is_whole: Whether that is all of it, so that it can be published again.
    """

    id: str
    reason: str
    field: str
    detail: str
    arrived_us: int
    original: bytes
    sent: bytes | None
    record: EventRecord | None
    is_whole: bool


class DeadLetters:
    """All letters of a project.

    Args:
        client: Connection to the store.
        project: The Feast project.
        partition_count: Of the log.
    """

    def __init__(self, client: redis.asyncio.Redis, project: str, partition_count: int) -> None:
        self._client = client
        self._keys = {REFUSED: refused_key(project)} | {
            str(partition): PartitionKeys(project, partition).dead_letters
            for partition in range(partition_count)
        }

    async def put(self, events: Sequence[RefusedEvent]) -> None:
        """Keep refused events, about the newest `MAX_DEAD_LETTERS`."""
        pipeline = self._client.pipeline(transaction=False)
        for event in events:
            kept, form = _kept(event)
            cut = f"; too large to be kept whole, {len(event.event)} bytes" if kept != event.event else ""
            fields: dict[Any, Any] = {
                "reason": event.reason,
                "field": event.field[:MAX_TEXT_CHARS],
                "detail": event.detail[:MAX_TEXT_CHARS] + cut,
                "arrived_us": event.arrived_us,
                "event": kept,
                "form": form,
            }
            pipeline.xadd(self._keys[REFUSED], fields, maxlen=MAX_DEAD_LETTERS, approximate=True)
        await pipeline.execute()

    async def counts(self) -> dict[str, int]:
        """Letters by source."""
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys.values():
            pipeline.xlen(key)
        return dict(zip(self._keys, await pipeline.execute(), strict=True))

    async def page(self, after: str, count: int) -> list[Letter]:
        """At most `count` letters behind the one with id `after`; from the first where that is empty.

        Raises:
            ValueError: `after` is no id of a letter.
        """
        sources = list(self._keys)
        source, _, stream_id = after.partition(":")
        if after and (source not in self._keys or not _is_stream_id(stream_id)):
            raise ValueError(f"{after!r} is no id of a dead letter, such as refused:1700000000000-0")
        letters: list[Letter] = []
        for name in sources[sources.index(source) if after else 0 :]:
            start = f"({stream_id}" if after and name == source else "-"
            entries: Any = await self._client.xrange(self._keys[name], min=start, count=count - len(letters))
            letters += [_letter(name, found.decode(), fields) for found, fields in entries]
            if len(letters) >= count:
                break
        return letters

    async def get(self, letter_id: str) -> Letter | None:
        """One letter; None where there is none of that id."""
        source, _, stream_id = letter_id.partition(":")
        if source not in self._keys or not _is_stream_id(stream_id):
            return None
        entries: Any = await self._client.xrange(self._keys[source], min=stream_id, max=stream_id)
        return _letter(source, entries[0][0].decode(), entries[0][1]) if entries else None

    async def remove(self, letter_ids: Sequence[str]) -> None:
        """Take letters out that were dealt with."""
        pipeline = self._client.pipeline(transaction=False)
        for letter_id in letter_ids:
            source, _, stream_id = letter_id.partition(":")
            pipeline.xdel(self._keys[source], stream_id)
        await pipeline.execute()


def names_customer(fields: Mapping[bytes, bytes], customer_id: str) -> bool:
    """Whether a refused event, as it is stored, is of a customer; of unreadable JSON, whether it has the id in it."""
    data = fields[b"event"]
    if fields.get(b"form") != _JSON:
        return events_pb2.Event.FromString(data).customer_id == customer_id
    try:
        item = json.loads(data)
    except (ValueError, RecursionError):
        spelt = [json.dumps(customer_id, ensure_ascii=ascii_) for ascii_ in (True, False)]
        number = rf'"customer_?[iI]d"\s*:\s*{re.escape(customer_id)}\b'
        return any(text.encode() in data for text in spelt) or re.search(number.encode(), data) is not None
    names = ("customer_id", "customerId")
    return isinstance(item, dict) and any(str(item[name]) == customer_id for name in names if name in item)


def _kept(event: RefusedEvent) -> tuple[bytes, bytes]:
    """What is kept of a refused event, and in which form."""
    if event.is_json:
        return event.event[:MAX_LETTER_BYTES], _JSON
    if len(event.event) <= MAX_LETTER_BYTES:
        return event.event, _PROTO
    whole = events_pb2.Event.FromString(event.event)
    part = events_pb2.Event(
        event_id=whole.event_id[:MAX_EVENT_ID_BYTES],
        event_type=whole.event_type[:MAX_TEXT_CHARS],
        customer_id=whole.customer_id[:MAX_CUSTOMER_ID_BYTES],
        event_time=whole.event_time if whole.HasField("event_time") else None,
    )
    return part.SerializeToString(), _PART


def _letter(source: str, stream_id: str, fields: dict[bytes, bytes]) -> Letter:
    data, form = fields[b"event"], fields.get(b"form")
    return Letter(
        id=f"{source}:{stream_id}",
        reason=fields[b"reason"].decode(),
        field=fields[b"field"].decode(),
        detail=fields[b"detail"].decode(),
        arrived_us=int(fields[b"arrived_us"]),
        original=data,
        sent=data if form in {_PROTO, _PART} else None,
        record=None if source == REFUSED else EventRecord.from_bytes(data),
        is_whole=form != _PART,
    )


def _is_stream_id(text: str) -> bool:
    number, dash, rest = text.partition("-")
    return bool(dash) and all(
        part.isascii() and part.isdecimal() and len(part) < 20 for part in (number, rest)
    )
