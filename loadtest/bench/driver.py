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
from pathlib import Path
from typing import Any, Final

import grpc.aio

from loadtest.bench.features_world import Door, request_json, request_message

CONNECTIONS: Final = 4
STREAMS: Final = 8
_RATE: Final = re.compile(r"finished in .*?, ([\d.]+) req/s")
_COUNTS: Final = re.compile(r"requests: .*? (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_STATUSES: Final = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")


def name() -> str:
    """Which driver there is."""
    return "h2load" if shutil.which("h2load") else "grpc.aio"


def counts() -> bool:
    """Whether a number of requests can be asked for; else loads are by time alone."""
    return shutil.which("h2load") is not None


def requests_per_s(door: Door, count: int, duration_s: int, requests: int = 0) -> float:
    """Answers a second to requests of `count` rows, 32 in flight.

    Args:
        door: The server.
        count: Rows of a request.
        duration_s: How long, after a second of warm-up.
        requests: How many in place of how long, where the driver `counts`.

    Raises:
        RuntimeError: Some were not answered.
    """
    if counts():
        return _h2load(door, count, duration_s, requests)
    command = [sys.executable, "-m", "loadtest.bench.driver", str(door.port), door.path, str(int(door.http))]
    said = subprocess.run(
        [*command, str(count), str(duration_s)], capture_output=True, text=True, check=True, timeout=600
    )
    return float(said.stdout)


def _h2load(door: Door, count: int, duration_s: int, requests: int) -> float:
    body = request_json(count) if door.http else request_message(count)
    if not door.http:
        body = b"\x00" + len(body).to_bytes(4, "big") + body
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        if door.http:
            shape = ["--h1", "-c", str(CONNECTIONS * STREAMS), "-H", "content-type: application/json"]
        else:
            shape = ["-c", str(CONNECTIONS), "-m", str(STREAMS)]
            shape += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        much = ["-n", str(requests)] if requests else ["-D", str(duration_s), "--warm-up-time=1"]
        url = f"http://127.0.0.1:{door.port}{door.path}"
        said = subprocess.run(
            ["h2load", "-t", "1", *much, *shape, "-d", file.name, url],  # noqa: S607 - found on PATH, as asked above
            capture_output=True,
            text=True,
            check=True,
            timeout=3_600,
        ).stdout
    counts, statuses, rate = _COUNTS.search(said), _STATUSES.search(said), _RATE.search(said)
    if not (counts and statuses and rate):
        raise RuntimeError(f"h2load says something else than expected:\n{said}")
    succeeded, *rest = map(int, counts.groups())
    wrong = [int(number) for number in statuses.groups()[1:]]
    if not succeeded or any(rest) or any(wrong):
        raise RuntimeError(f"not all calls of {door.path} were answered:\n{said}")
    return float(rate[1])


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
