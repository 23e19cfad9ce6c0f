"""A server for the length of a load test: an embedded one on free ports, with a data folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


class ServerError(Exception):
    """The server did not come up."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_serving(target: str, timeout_s: float = 1.0) -> bool:
    """Ask the health service of `target`."""
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def wait_until_serving(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    """Return when `target` serves.

    Raises:
        ServerError: If the process ended or the time ran out; the message ends with the last lines of its log.
    """
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while not is_serving(target):
        if process.poll() is not None or time.monotonic() > give_up_s:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise ServerError(f"no server at {target} after {READY_TIMEOUT_S:.0f} s; its log ends:\n{tail}")


@contextmanager
def own_server(repo: Path) -> Iterator[str]:
    """Run `waypost up` on `repo` and yield its `host:port`; the process and its data are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="waypost-load-") as folder:
        log = Path(folder) / "server.log"
        port = free_port()
        environment = os.environ | {
            "WAYPOST_DATA_DIR": str(Path(folder) / "data"),
            "WAYPOST_GRPC_PORT": str(port),
            "WAYPOST_HTTP_PORT": "0",
        }
        command = [str(Path(sys.executable).parent / "waypost"), "up", "--repo", str(repo)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_serving(process, f"127.0.0.1:{port}", log)
            yield f"127.0.0.1:{port}"
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server as Ctrl-C would, and by force if it does not."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
