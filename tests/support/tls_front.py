"""TLS before a store that speaks none, as a proxy on its machine would end it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HOSTS = ("127.0.0.1", "127.0.0.2")
"""Where it listens; certificates of the tests name the first alone."""


@contextmanager
def run_tls_front(port: int, store_port: int, context: ssl.SSLContext) -> Iterator[None]:
    """Pass on what comes over TLS to the store's port, and back."""
    started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda *_: None)  # handshakes that fail are what is tested
        async with await asyncio.start_server(pass_on, HOSTS, port, ssl=context):
            started.put((loop, ended))
            await ended.wait()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOSTS[0], store_port)
        pumps = [
            asyncio.create_task(pump(*ends)) for ends in ((reader, inner_writer), (inner_reader, writer))
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            for end in (writer, inner_writer):
                end.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="tls-front", daemon=True)
    thread.start()
    loop, ended = started.get(timeout=10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
