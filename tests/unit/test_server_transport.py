from __future__ import annotations

import os
import subprocess
import sys

import pytest

from server.transport import EXPERIMENTS, POLLER_READS, prefer_fewer_threads

_SERVE = """
import asyncio, sys
import server.cli
assert "grpc" not in sys.modules, "what the command says comes too late"
from server.transport import prefer_fewer_threads
prefer_fewer_threads()
import grpc.aio

async def serve():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)

asyncio.run(serve())
"""


def test_grpc_is_told_before_it_is_imported_and_understands() -> None:
    """The command line imports no gRPC, and the gRPC that is installed knows the name: else it would complain of it."""
    environment = {name: value for name, value in os.environ.items() if name != EXPERIMENTS}
    ran = subprocess.run(
        [sys.executable, "-c", _SERVE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chooses gRPC's experiments keeps them; otherwise ours is set."""
    monkeypatch.setenv(EXPERIMENTS, "")
    prefer_fewer_threads()
    assert os.environ[EXPERIMENTS] == ""
    monkeypatch.delenv(EXPERIMENTS)
    prefer_fewer_threads()
    assert os.environ[EXPERIMENTS] == POLLER_READS
