"""A server that says what it compiled and imported once it served: run with repo, data folder and store as arguments.

Its first line of output is its address; its last, once it has ended, JSON of what the compiler was asked for and which
modules were imported since the first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from numba.core.event import Event, Listener, register

from server.config import Settings
from server.grpc_server import Addresses
from server.wiring import run_server

KINDS = ("numba:compiler_lock", "numba:compile")
"""What is compiled, and what is only loaded from the cache, which another machine may not have: both take the lock."""


class Heard(Listener):  # type: ignore[misc]
    """Collects what the compiler is asked for."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.modules: frozenset[str] = frozenset()

    def on_start(self, event: Event) -> None:
        self.events.append(f"{event.kind} {event.data}")

    def on_end(self, event: Event) -> None:
        """Its start was heard."""


def listening(heard: Heard) -> Callable[[Addresses], None]:
    """What to do once the server serves."""

    def ready(addresses: Addresses) -> None:
        for kind in KINDS:
            register(kind, heard)
        heard.modules = frozenset(sys.modules)
        print(addresses.grpc, flush=True)  # noqa: T201 - what this command is for

    return ready


def main(repo: Path, data_dir: Path, url: str) -> None:
    """Serve until SIGTERM."""
    heard = Heard()
    settings = Settings(repo=repo, data_dir=data_dir, redis_url=url, grpc_port=0, http_port=0)
    run_server(settings, url, listening(heard))
    told = {"compiled": heard.events, "imported": sorted(sys.modules.keys() - heard.modules)}
    print(json.dumps(told), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
