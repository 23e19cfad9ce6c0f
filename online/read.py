"""Batched reads: every entity of every request in one pipeline, every value with a status."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis
import redis.asyncio

from decision.schema import FeatureRef, Status, Value
from online.errors import ReadTooLargeError, ValueDecodeError
from online.lanes import Lanes
from online.plan import ReadColumn, ReadGroup, ReadPlan
from online.values import decode_timestamp

__all__ = ["Columns", "OnlineReader", "ReadPlan"]

MAX_ENTITIES = 10_000
MAX_WAIT_S = 5.0

_PRESENT, _NULL, _NOT_FOUND, _STALE = Status.PRESENT, Status.NULL, Status.NOT_FOUND, Status.STALE

Row = Mapping[str, Value]
Reply = Sequence[bytes | None]


@dataclass(slots=True, kw_only=True)
class Columns:
    """The answer to one request, column by column: `values[i][j]` is feature i of row j.

    Attributes:
        refs: The features, in the order asked for.
        values: The value; None unless the status is PRESENT or STALE.
        statuses: NOT_FOUND where nothing readable is stored (or the row lacks a join key), NULL where a null is,
            STALE where the value is older than its view's TTL or of unknown age, TIMEOUT where the store gave no
            answer in time.
        event_us: Event time of the view's last write, microseconds; 0 where unknown.
        error: Why everything is TIMEOUT, or None.
        malformed: How many cells and timestamps held bytes that are not what the schema says.
    """

    refs: tuple[FeatureRef, ...]
    values: list[list[Value]] = field(default_factory=list)
    statuses: list[list[Status]] = field(default_factory=list)
    event_us: list[list[int]] = field(default_factory=list)
    error: str | None = None
    malformed: int = 0


class OnlineReader:
    """Reads features by compiled plans.

    Attributes:
        round_trips: Pipelines sent so far.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._lanes = Lanes(client)
        self.round_trips = 0

    async def fetch(
        self, requests: Sequence[tuple[ReadPlan, Sequence[Row]]], now_us: int, timeout_s: float | None = None
    ) -> list[Columns]:
        """Read all requests in one round trip; an entity asked for twice is read once.

        Args:
            requests: Plans and their rows; a row holds join key values by name, other columns are ignored.
            now_us: The time that ages are measured against.
            timeout_s: Time for all of it, at most (and by default) `MAX_WAIT_S`. When it is over, or the store
                fails, every cell is TIMEOUT; nothing is raised.

        Raises:
            KeyEncodingError: A row's join key does not fit its type.
            ReadTooLargeError: More than `MAX_ENTITIES` entities are asked for.
        """
        batch = _Batch()
        places = [[batch.place(group, rows) for group in plan.groups] for plan, rows in requests]
        try:
            replies = await self._exchange(list(batch.place_by_command), timeout_s)
        except (TimeoutError, redis.RedisError, OSError) as error:
            reason = f"the store gave no answer: {str(error) or 'out of time'}"
            return [_unanswered(plan, len(rows), reason) for plan, rows in requests]
        return [
            _columns(plan, len(rows), replies, group_places, now_us)
            for (plan, rows), group_places in zip(requests, places, strict=True)
        ]

    async def aclose(self) -> None:
        """Close the reader's connections."""
        await self._lanes.aclose()

    async def _exchange(self, commands: list[bytes], timeout_s: float | None) -> list[Reply | None]:
        if not commands:
            return []
        self.round_trips += 1
        async with asyncio.timeout(MAX_WAIT_S if timeout_s is None else min(timeout_s, MAX_WAIT_S)):
            return [_checked(reply) for reply in await self._lanes.exchange(commands)]


class _Batch:
    """The distinct commands of a fetch and their places in the pipeline."""

    def __init__(self) -> None:
        self.place_by_command: dict[bytes, int] = {}

    def place(self, group: ReadGroup, rows: Sequence[Row]) -> list[int]:
        """Return the place of each row's entity, -1 for a row that lacks a join key."""
        places = [self._place(group.command(row)) for row in rows]
        if len(self.place_by_command) > MAX_ENTITIES:
            raise ReadTooLargeError(f"more than {MAX_ENTITIES} entities in one fetch; ask for fewer rows")
        return places

    def _place(self, command: bytes | None) -> int:
        if command is None:
            return -1
        return self.place_by_command.setdefault(command, len(self.place_by_command))


def _checked(reply: object) -> Reply | None:
    """Pass a reply on, None for a key that holds no hash; any other error fails the fetch."""
    if isinstance(reply, redis.ResponseError):
        if str(reply).startswith("WRONGTYPE"):
            return None
        raise reply
    if not isinstance(reply, list):
        raise redis.InvalidResponse(f"{type(reply).__name__} in answer to HMGET; is this a Redis server?")
    return reply


def _unanswered(plan: ReadPlan, row_count: int, reason: str) -> Columns:
    width = len(plan.refs)
    return Columns(
        refs=plan.refs,
        values=[[None] * row_count for _ in range(width)],
        statuses=[[Status.TIMEOUT] * row_count for _ in range(width)],
        event_us=[[0] * row_count for _ in range(width)],
        error=reason,
    )


def _columns(
    plan: ReadPlan, row_count: int, replies: Sequence[Reply | None], places: Sequence[list[int]], now_us: int
) -> Columns:
    width = len(plan.refs)
    columns = Columns(
        refs=plan.refs,
        values=[[] for _ in range(width)],
        statuses=[[] for _ in range(width)],
        event_us=[[] for _ in range(width)],
    )
    for group, group_places in zip(plan.groups, places, strict=True):
        _fill(columns, group, replies, group_places, now_us, row_count)
    return columns


def _fill(
    columns: Columns,
    group: ReadGroup,
    replies: Sequence[Reply | None],
    places: list[int],
    now_us: int,
    row_count: int,
) -> None:
    """Decode each distinct entity of a group once, then lay the cells out by row."""
    distinct = {place: index for index, place in enumerate(dict.fromkeys(places))}
    nothing: Reply = (None,) * len(group.fields)
    found: list[Reply] = []
    for place in distinct:
        reply = replies[place] if place >= 0 else nothing
        columns.malformed += len(group.columns) if reply is None else 0
        found.append(nothing if reply is None else reply)
    by_row = None if len(distinct) == row_count else [distinct[place] for place in places]
    stamps = {slot: _stamps(columns, slot, found) for slot in group.stamp_slots}
    for column in group.columns:
        event_us = stamps[column.stamp_slot]
        values, statuses = _decode(columns, column, found, event_us, now_us)
        position = column.position
        columns.values[position] = values if by_row is None else [values[index] for index in by_row]
        columns.statuses[position] = statuses if by_row is None else [statuses[index] for index in by_row]
        columns.event_us[position] = (
            list(event_us) if by_row is None else [event_us[index] for index in by_row]
        )


def _stamps(columns: Columns, slot: int, replies: Sequence[Reply]) -> list[int]:
    stamps = []
    for reply in replies:
        data = reply[slot]
        try:
            stamps.append(0 if data is None else decode_timestamp(data))
        except ValueDecodeError:
            columns.malformed += 1
            stamps.append(0)
    return stamps


def _decode(
    columns: Columns, column: ReadColumn, replies: Sequence[Reply], event_us: Sequence[int], now_us: int
) -> tuple[list[Value], list[Status]]:
    oldest_us = now_us - column.ttl_us if column.ttl_us else None
    slot, decode = column.slot, column.decode
    values: list[Value] = []
    statuses: list[Status] = []
    for reply, stamp_us in zip(replies, event_us, strict=True):
        data = reply[slot]
        value: Value = None
        status = _NOT_FOUND
        if data is not None:
            try:
                value = decode(data)
                expired = oldest_us is not None and stamp_us < oldest_us
                status = _NULL if value is None else _STALE if expired else _PRESENT
            except ValueDecodeError:
                columns.malformed += 1
        values.append(value)
        statuses.append(status)
    return values, statuses
