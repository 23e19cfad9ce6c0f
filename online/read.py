"""Batched reads: every entity of every request in one pipeline, every value with a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from online.asking import MAX_ENTITIES, Asker, Batch
from online.columns import Columns, PlanReplies
from online.near import NearCache
from online.plan import ReadPlan
from online.rows import KeyColumns, Rows
from online.topology import Topology

__all__ = ["MAX_ENTITIES", "Columns", "KeyColumns", "OnlineReader", "PlanReplies", "ReadPlan"]

MAX_WAIT_S: Final = 5.0


class OnlineReader:
    """Reads features by compiled plans. It belongs to the event loop that first reads with it.

    Args:
        topology: Which server has which key, and how to reach it.
        near: Keeps the replies of entities whose views are tagged `waypost.cache = near`; None keeps none.
        told: Told of every read why something of it has no answer, None where nothing is amiss.
    """

    def __init__(
        self,
        topology: Topology,
        near: NearCache | None = None,
        told: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._asker = Asker(topology, near)
        self._told = told

    @property
    def round_trips(self) -> int:
        """Pipelines sent so far, to all servers together."""
        return self._asker.round_trips

    async def fetch(
        self, requests: Sequence[tuple[ReadPlan, Rows]], now_us: int, timeout_s: float | None = None
    ) -> list[Columns]:
        """Read all requests in one round trip; an entity asked for twice is read once.

        Args:
            requests: Plans and their rows, or `KeyColumns` of them; a row holds join key values by name, other
                columns are ignored.
            now_us: The time that ages are measured against.
            timeout_s: Time for all of it, at most (and by default) `MAX_WAIT_S`. Cells that the store gave no answer
                for by then, or could not, are TIMEOUT; nothing is raised.

        Raises:
            KeyEncodingError: A row's join key does not fit its type.
            ReadTooLargeError: More than `MAX_ENTITIES` entities are asked for, or the answers have a gibibyte.
        """
        return [answer.columns() for answer in await self.replies(requests, now_us, timeout_s)]

    async def replies(
        self, requests: Sequence[tuple[ReadPlan, Rows]], now_us: int, timeout_s: float | None = None
    ) -> list[PlanReplies]:
        """As `fetch`, with the replies not read yet."""
        wait_s = MAX_WAIT_S if timeout_s is None else min(timeout_s, MAX_WAIT_S)
        ends_at = asyncio.get_running_loop().time() + wait_s
        batch = Batch()
        wanted = [[self._asker.want(batch, group, rows) for group in plan.groups] for plan, rows in requests]
        found = await self._asker.ask(batch, ends_at)
        self._told(found.error)
        return [
            PlanReplies(plan, len(rows), [item.of(found) for item in items], now_us, found.error)
            for (plan, rows), items in zip(requests, wanted, strict=True)
        ]

    async def aclose(self) -> None:
        """Close the reader's connections."""
        await self._asker.aclose()
