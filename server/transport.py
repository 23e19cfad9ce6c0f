"""How gRPC's core is to move bytes in this process. It reads that once, when `grpc` is first imported."""

from __future__ import annotations

import os
from typing import Final

EXPERIMENTS: Final = "GRPC_EXPERIMENTS"
POLLER_READS: Final = "-event_engine_listener"
"""Sockets of a server are read by the thread that waits for calls, not by others that hand over to it (ADR 22)."""


def prefer_fewer_threads() -> None:
    """Have gRPC change threads less often, unless the environment says something of its own."""
    os.environ.setdefault(EXPERIMENTS, POLLER_READS)
