"""Puts load on a server with so many calls in flight and counts its answers: `h2load` where installed, else our own.

Our own is a process with a `grpc.aio` client (`http.client` threads for HTTP), which takes more of a small machine
than h2load does, so figures of the two are not compared.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc.aio

from loadtest.bench.features_world import Door, request_json, request_message
from loadtest.bench.measure import elapsed_ns

CONNECTIONS: Final = 4
STREAMS: Final = 8
CALLS_IN_A_ROW: Final = 50
_RATE: Final = re.compile(r"finished in .*?, ([\d.]+) req/s")
_COUNTS: Final = re.compile(r"requests: .*? (\d+) done, (\d+) succeeded, (\d+) failed,")
_DATA: Final = re.compile(r"traffic: .* \((\d+)\) data")
GRPC_PREFIX_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load.

    Attributes:
        answers_per_s: Answers a second.
        unanswered: Calls that got no answer, or an HTTP status other than 200.
        bytes_each: Size of an answer's body, on average; None where the driver does not count.
    """

    answers_per_s: float
    unanswered: int = 0
    bytes_each: float | None = None


def name() -> str:
    """Which driver there is."""
    return "h2load" if shutil.which("h2load") else "grpc.aio"


def counts() -> bool:
    """Whether a number of requests can be asked for; else loads are by time alone."""
    return shutil.which("h2load") is not None


def put_load(door: Door, count: int, duration_s: float, requests: int = 0) -> Load:
    """Ask for `count` rows again and again, 32 calls in flight.

    Args:
        door: The server.
        count: Rows of a request.
        duration_s: How long, about; at least 32 calls are made.
        requests: How many in place of how long, where the driver `counts`.

    Raises:
        RuntimeError: The driver failed, or not one call was answered.
    """
    if counts():
        return _h2load(door, count, requests) if requests else _h2load_for(door, count, duration_s)
    command = [sys.executable, "-m", "loadtest.bench.driver", str(door.port), door.path, str(int(door.http))]
    said = subprocess.run(
        [*command, str(count), str(duration_s)], capture_output=True, text=True, check=True, timeout=600
    )
    return Load(float(said.stdout))


def times_us(door: Door, count: int) -> list[float]:
    """How long calls of a gRPC server take, one after the other on a connection that is open: `CALLS_IN_A_ROW` times.

    Raises:
        RuntimeError: The driver failed, or a call was not answered.
    """
    if not counts():
        return _grpc_times_us(door, count)
    with tempfile.NamedTemporaryFile() as log:
        load = _h2load(door, count, 1 + CALLS_IN_A_ROW, "-c", "1", "-m", "1", f"--log-file={log.name}")
        lines = [line.split("\t") for line in Path(log.name).read_text(encoding="utf-8").splitlines()]
    if load.unanswered or len(lines) <= CALLS_IN_A_ROW:
        raise RuntimeError(f"{door.path} left calls unanswered")
    return [float(took_us) for _, _, took_us in lines[1:]]


def _grpc_times_us(door: Door, count: int) -> list[float]:
    message = request_message(count)
    with grpc.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        method: Any = channel.unary_unary(door.path)
        method(message, timeout=60)
        return [elapsed_ns(partial(method, message, timeout=60)) / 1e3 for _ in range(CALLS_IN_A_ROW)]


def _h2load_for(door: Door, count: int, duration_s: float) -> Load:
    """Make ever more calls until they take long enough: h2load's own clock counts bytes of its warm-up too."""
    requests = CONNECTIONS * STREAMS
    while True:
        load = _h2load(door, count, requests)
        took_s = requests / load.answers_per_s
        if took_s >= duration_s / 2:
            return load
        requests = min(10 * requests, round(1.1 * requests * duration_s / took_s))


def _h2load(door: Door, count: int, requests: int, *shape: str) -> Load:
    """Make so many calls; `shape` is how, 32 in flight by default."""
    body = request_json(count) if door.http else request_message(count)
    if not door.http:
        body = b"\x00" + len(body).to_bytes(4, "big") + body
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        if door.http:
            shape = shape or ("--h1", "-c", str(CONNECTIONS * STREAMS))
            headers = ["-H", "content-type: application/json"]
        else:
            shape = shape or ("-c", str(CONNECTIONS), "-m", str(STREAMS))
            headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        url = f"http://127.0.0.1:{door.port}{door.path}"
        said = subprocess.run(
            ["h2load", "-t", "1", "-n", str(requests), *shape, *headers, "-d", file.name, url],  # noqa: S607 - found on PATH, as asked above
            capture_output=True,
            text=True,
            check=True,
            timeout=3_600,
        ).stdout
    load = read_h2load(said, 0 if door.http else GRPC_PREFIX_BYTES)
    if not load.answers_per_s:
        raise RuntimeError(f"no call of {door.path} was answered:\n{said}")
    return load


def read_h2load(said: str, prefix_bytes: int) -> Load:
    """What `h2load` counted; its rate is that of calls that ended, whatever their status.

    Raises:
        RuntimeError: It said something else than expected.
    """
    counts, data, rate = _COUNTS.search(said), _DATA.search(said), _RATE.search(said)
    if not (counts and data and rate):
        raise RuntimeError(f"h2load says something else than expected:\n{said}")
    ended, succeeded, failed = map(int, counts.groups())
    if not succeeded:
        return Load(0.0, failed)
    return Load(float(rate[1]) * succeeded / ended, failed, int(data[1]) / ended - prefix_bytes)


async def _grpc_load(door: Door, count: int, duration_s: float) -> float:
    body, answers, stop = request_message(count), 0, time.perf_counter() + duration_s

    async def call(channel: grpc.aio.Channel) -> None:
        nonlocal answers
        method: Any = channel.unary_unary(door.path)
        while time.perf_counter() < stop:
            await method(body, timeout=60)
            answers += 1

    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") for _ in range(CONNECTIONS)]
    await asyncio.gather(*(call(channel) for channel in channels for _ in range(STREAMS)))
    for channel in channels:
        await channel.close()
    return answers / duration_s


def _http_load(door: Door, count: int, duration_s: float) -> float:
    body, answers, stop = request_json(count), [0] * (CONNECTIONS * STREAMS), time.perf_counter() + duration_s

    def call(place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
        while time.perf_counter() < stop:
            connection.request("POST", door.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            answers[place] += answer.status == 200
        connection.close()

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answers) / duration_s


if __name__ == "__main__":
    target = Door(port=int(sys.argv[1]), path=sys.argv[2], http=sys.argv[3] == "1")
    rows, length_s = int(sys.argv[4]), float(sys.argv[5])
    run = (
        _http_load(target, rows, length_s) if target.http else asyncio.run(_grpc_load(target, rows, length_s))
    )
    print(run)
