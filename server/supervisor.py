"""Waypost on one machine: the store, the materializer and the server as children of one process.

Everything is what a scaled-out installation runs, only small: the children are the same commands, talking over the
same ports. A child that dies is started again; whatever ends the parent ends the children.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.children import spawn, stop
from server.config import Settings
from server.embedded import EmbeddedStoreError, EmbeddedValkey
from server.errors import ServerError
from server.listening import refusal_to_listen

log = structlog.get_logger()

READY_TIMEOUT_S = 120.0
RESTART_PAUSE_S = 0.5
STORE_RETRY_S = 2.0
MAX_QUICK_DEATHS = 5
QUICK_DEATH_S = 60.0
_POLL_S = 0.1


class StackError(ServerError):
    """A part of the stack did not start or keeps dying; the message names its log."""


class Child:
    """One supervised process: `waypost NAME`, restarted when it dies."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], output: Path) -> None:
        self.name = name
        self.output = output
        self.restarts = 0
        self._arguments = arguments
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._quick_deaths = 0

    def start(self) -> None:
        """Start the process."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self._started_at = time.monotonic()
        self._process = spawn(self._arguments, output=self.output, env=self._env)

    def stop(self) -> None:
        """End the process in order."""
        process, self._process = self._process, None
        if process is not None:
            stop(process)

    def kill(self) -> None:
        """End the process as a crash does. `revive` starts it again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def revive(self) -> None:
        """Start the process again if it has died.

        Raises:
            StackError: If it ended by itself, quickly, several times in a row.
        """
        if self._process is None or self.alive:
            return
        lived_s = time.monotonic() - self._started_at
        # One that was killed from outside is simply started again; one that ends by itself at once has a reason to.
        gave_up = self._process.returncode > 0 and lived_s < QUICK_DEATH_S
        self._quick_deaths = self._quick_deaths + 1 if gave_up else 0
        log.warning(
            "child.died",
            name=self.name,
            code=self._process.returncode,
            lived_s=round(lived_s, 1),
            log=str(self.output),
            said=self.last_words().splitlines()[-1],
        )
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            raise StackError(f"{self.name} died {self._quick_deaths} times in a row:\n{self.last_words()}")
        self.restarts += 1
        self.start()

    def last_words(self) -> str:
        """The end of the process's log."""
        tail = self.output.read_text(errors="replace")[-3000:] if self.output.exists() else "(no log)"
        return f"{self.output}:\n{tail}"


class Stack:
    """Store, materializer and server of one data folder, from start to stop.

    Attributes:
        redis_url: The store.
        target: Where gRPC listens, as host:port.
        http_port: Where /metrics and /health listen.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare a stack; nothing is started.

        Args:
            settings: Ports of 0 are replaced by free ones.
        """
        self.settings = settings
        self.redis_url = settings.redis_url or ""
        self.grpc_port = settings.grpc_port or free_port(settings.host)
        self.http_port = settings.http_port or free_port(settings.host)
        self.target = f"{settings.host}:{self.grpc_port}"
        self.store = None if settings.redis_url else EmbeddedValkey(settings.data_dir / "valkey")
        self.children: dict[str, Child] = {}
        self._store_is_down = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_store(self) -> str:
        """Start the embedded store, unless the user brings one; returns its URL."""
        if self.store is not None and not self.store.running:
            self.store.start()
            self.redis_url = self.store.url
        return self.redis_url

    def start_services(self, stopping: threading.Event | None = None) -> bool:
        """Start materializer and server and wait until the server serves; False if `stopping` was set first.

        Raises:
            StackError: If one dies or is not ready in time.
        """
        for port in (self.grpc_port, self.http_port):
            refused = refusal_to_listen(self.settings.host, port)
            if refused is not None:
                raise StackError(refused)
        for name in ("materializer", "serve"):
            self.children[name] = self._child(name)
            self.children[name].start()
        return self._wait_until_serving(stopping or threading.Event())

    def supervise(self, stopping: threading.Event) -> None:
        """Keep the children alive until `stopping` is set.

        The embedded store is waited for: decisions go on without it, and it starts once a full disk has room again.

        Raises:
            StackError: If a child cannot be kept alive.
        """
        while not stopping.wait(RESTART_PAUSE_S):
            for child in self.children.values():
                child.revive()
            if self.store is not None and not self.store.running:
                self._revive_store(self.store, stopping)

    def stop(self) -> None:
        """End everything, the server first and the store last."""
        for name in ("serve", "materializer"):
            child = self.children.pop(name, None)
            if child is not None:
                child.stop()
        if self.store is not None:
            self.store.stop()

    def _revive_store(self, store: EmbeddedValkey, stopping: threading.Event) -> None:
        if not self._store_is_down:
            log.warning("store.died", log=str(store.log))
        self._store_is_down = True
        try:
            store.start()
            self._store_is_down = False
        except (EmbeddedStoreError, OSError) as error:
            log.error("store.not_started", error=str(error), again_in_s=STORE_RETRY_S)  # noqa: TRY400 - the error says all
            stopping.wait(STORE_RETRY_S)

    def _child(self, name: str) -> Child:
        settings = self.settings
        env = dict(os.environ) | {
            "WAYPOST_REPO": str(settings.repo.resolve()),
            "WAYPOST_DATA_DIR": str(settings.data_dir.resolve()),
            "WAYPOST_REDIS_URL": self.redis_url,
            "WAYPOST_HOST": settings.host,
            "WAYPOST_GRPC_PORT": str(self.grpc_port),
            "WAYPOST_HTTP_PORT": str(self.http_port),
            "WAYPOST_PARTITIONS": str(settings.partitions),
            "WAYPOST_CLOCK": settings.clock.value,
            "WAYPOST_LOG_MAX_RECORDS": str(settings.log_max_records),
        }
        return Child(
            name, [sys.executable, "-m", "server.cli", name], env, settings.data_dir / "logs" / f"{name}.log"
        )

    def _wait_until_serving(self, stopping: threading.Event) -> bool:
        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < give_up_at:
            if stopping.is_set():
                return False
            for child in self.children.values():
                if not child.alive:
                    raise StackError(f"{child.name} did not start: {child.last_words()}")
            if serving(self.target):
                return True
            time.sleep(_POLL_S)
        raise StackError(f"not serving after {READY_TIMEOUT_S:.0f} s: {self.children['serve'].last_words()}")


def run_up(settings: Settings, prepare: Callable[[Stack], None], announce: Callable[[Stack], None]) -> None:
    """Run a stack until SIGINT or SIGTERM.

    Args:
        settings: What to run.
        prepare: Called once the store is up, before materializer and server start.
        announce: Called once the server serves.
    """
    stopping = threading.Event()
    with Stack(settings) as stack:
        stack.start_store()
        prepare(stack)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        if stack.start_services(stopping):
            announce(stack)
            stack.supervise(stopping)


def serving(target: str) -> bool:
    """Whether the server at `target` says SERVING."""
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def free_port(host: str) -> int:
    """A port that is free at the moment.

    Raises:
        StackError: The host is no address of this machine.
    """
    refused = refusal_to_listen(host, 0)
    if refused is not None:
        raise StackError(refused)
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
