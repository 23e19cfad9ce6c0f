"""A server that answers as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from online.read import OnlineReader
from online.store import open_topology

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[OnlineReader]:
    """A reader of a server that answers as `talk` does."""
    talks: list[asyncio.Task[None]] = []

    async def answer(incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.append(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await talk(incoming, outgoing)
        outgoing.close()
        with contextlib.suppress(OSError):
            await outgoing.wait_closed()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader = OnlineReader(open_topology(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"))
    try:
        yield reader
    finally:
        await reader.aclose()
        listener.close()
        if talks:
            await asyncio.wait(talks, timeout=5)
