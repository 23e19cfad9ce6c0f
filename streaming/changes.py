"""The log of segment changes, for those who follow it: from a position, in bounded pieces, at the reader's pace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from decision.schema import Value
from streaming.errors import PositionInvalid, PositionTrimmed
from streaming.keys import PartitionKeys

OLDEST = "0"
_START = "0-0"


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """One entry or exit.

    Attributes:
        id: The same for ever.
        keys: Join keys of the entity by name.
        at_us: Logical time.
    """

    id: str
    segment: str
    keys: Mapping[str, Value]
    entered: bool
    at_us: int


@dataclass(frozen=True, slots=True)
class Position:
    """A place in every partition of the log, as stream ids."""

    places: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.places)


class ChangeLog:
    """Reads the changes of all partitions.

    Args:
        client: Connection to the store.
        project: The Feast project.
        partition_count: Of the log.
    """

    def __init__(self, client: redis.asyncio.Redis, project: str, partition_count: int) -> None:
        self._client = client
        self._keys = [PartitionKeys(project, partition).changes for partition in range(partition_count)]

    def position(self, text: str) -> Position:
        """Read a position that `str` of one wrote; `OLDEST` is before everything.

        Raises:
            PositionInvalid: If it is not of this log.
        """
        places = tuple(_START for _ in self._keys) if text == OLDEST else tuple(text.split(","))
        if len(places) != len(self._keys) or not all(_is_place(place) for place in places):
            raise PositionInvalid(
                f"{text[:100]!r} is no position of this log of {len(self._keys)} partitions; "
                f"send one that WatchSegments gave, {OLDEST!r} for the oldest, or none for what comes"
            )
        return Position(places)

    async def newest(self) -> Position:
        """Behind everything that is logged now."""
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.xrevrange(key, count=1)
        return Position(
            tuple(entries[0][0].decode() if entries else _START for entries in await pipeline.execute())
        )

    async def check(self, position: Position) -> None:
        """See that nothing behind a position is gone.

        Raises:
            PositionTrimmed: If changes behind it may have been trimmed.
        """
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.exists(key)
        held = await pipeline.execute()
        for key, place, exists in zip(self._keys, position.places, held, strict=True):
            if not exists or place == _START:
                continue
            info: Any = await self._client.xinfo_stream(key)
            first = info["first-entry"]
            if info["entries-added"] > info["length"] and (first is None or _order(place) < _order(first[0])):
                raise PositionTrimmed(
                    f"changes behind {position} are no longer kept; read memberships anew and resume from "
                    f"{await self.newest()}"
                )

    async def read(self, position: Position, count: int) -> tuple[list[LoggedChange], Position]:
        """At most about `count` changes behind a position, and the position behind them."""
        each = max(count // len(self._keys), 1)
        pipeline = self._client.pipeline(transaction=False)
        for key, place in zip(self._keys, position.places, strict=True):
            pipeline.xrange(key, min=f"({place}", count=each)
        pieces: list[Any] = await pipeline.execute()
        changes = [
            _change(partition, name.decode(), fields)
            for partition, entries in enumerate(pieces)
            for name, fields in entries
        ]
        places = tuple(
            entries[-1][0].decode() if entries else place
            for entries, place in zip(pieces, position.places, strict=True)
        )
        return changes, Position(places)


def _change(partition: int, name: str, fields: Mapping[bytes, bytes]) -> LoggedChange:
    return LoggedChange(
        id=f"{partition}:{name}",
        segment=fields[b"segment"].decode(),
        keys=json.loads(fields[b"entity"]),
        entered=fields[b"entered"] == b"1",
        at_us=int(fields[b"at_us"]),
    )


def _is_place(place: str) -> bool:
    number, dash, rest = place.partition("-")
    return bool(dash) and all(
        part.isascii() and part.isdecimal() and len(part) < 20 for part in (number, rest)
    )


def _order(stream_id: str | bytes) -> list[int]:
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id
    return [int(part) for part in text.split("-")]
