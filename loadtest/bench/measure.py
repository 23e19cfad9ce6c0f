"""What measurements share: timing calls in turn, and naming the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]

BLOCK: Final = 20
"""Calls of one in a row, as a server makes them."""
BLOCK_US: Final = 5_000
"""Time after which a block ends early, so that slow rivals take turns too."""
FEWEST: Final = 5
MOST: Final = 5_000
ALLOCATORS: Final = ("jemalloc", "mimalloc", "tcmalloc")


@dataclass(frozen=True, slots=True)
class Times:
    """How long calls took, in µs each."""

    us: NDArray[np.float64]

    @property
    def p50(self) -> float:
        return round(float(np.median(self.us)), 2)

    @property
    def p99(self) -> float:
        return round(float(np.percentile(self.us, 99)), 2)


def elapsed_ns(call: Call) -> int:
    """How long one call takes."""
    started = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started


def in_turn(
    calls: Mapping[str, Call], *, budget_s: float = 2.0, block_us: float = BLOCK_US
) -> dict[str, Times]:
    """Time calls in turn, a short block of each, so that a busy moment of the machine meets all of them.

    Args:
        calls: What to time, by name; each is called before it is timed.
        budget_s: Wall time after which no further round starts, once all have been timed a few times.
        block_us: Time after which a block ends early. Calls that take some milliseconds and end in another process need
            more than the default, or most are the first after a pause.
    """
    for call in calls.values():
        call()
    return blocks_in_turn({name: partial(block, call, block_us) for name, call in calls.items()}, budget_s)


def blocks_in_turn(blocks: Mapping[str, Callable[[], list[float]]], budget_s: float) -> dict[str, Times]:
    """As `in_turn`, of blocks that time their calls themselves: each returns times in µs."""
    times: dict[str, list[float]] = {name: [] for name in blocks}
    stop = time.perf_counter() + budget_s
    rounds = 0
    while rounds < FEWEST or (time.perf_counter() < stop and min(map(len, times.values())) < MOST):
        rounds += 1
        for name, timed in blocks.items():
            times[name] += timed()
    return {name: Times(np.array(taken)) for name, taken in times.items()}


def block(call: Call, block_us: float) -> list[float]:
    """Times of up to `BLOCK` calls in a row in µs; none begins after `block_us`."""
    taken: list[float] = []
    while len(taken) < BLOCK and sum(taken) < block_us:
        taken.append(elapsed_ns(call) / 1e3)
    return taken


def installed(module: str) -> bool:
    """Whether a rival is there; the extra `bench` installs them."""
    return util.find_spec(module) is not None


def environment(*packages: str) -> dict[str, Any]:
    """The machine and the versions of packages, by their names on the index; absent ones are left out."""
    return {
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name)) is not None},
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "allocator": _allocator(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _allocator() -> str:
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return "unknown"
    return next((name for name in ALLOCATORS if name in mapped), " ".join(platform.libc_ver()) or "libc")


def peak_mb(pid: int) -> float:
    """The most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, 1)


def cell(value: float | None, unit: str = "") -> str:
    """A number as a table shows it; a dash stands for what was not measured."""
    if value is None:
        return "–"
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:,.3g}{unit}"
