"""Forest margins against XGBoost's `inplace_predict` with one thread, both measured in turn in one run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import xgboost
from numpy.typing import NDArray

from decision.forest import Forest, load_forest

TREE_COUNT: Final = 200
DEPTH: Final = 6
FEATURE_COUNT: Final = 40
TRAINING_ROWS: Final = 5_000
ROW_COUNTS: Final = (1, 10, 100, 500)
REQUIRED_RATIOS: Final = {1: 30.0, 10: 6.0, 100: 3.0, 500: 2.5}
BUDGET_S: Final = 2.0
"""Wall time spent on each row count."""
BLOCK: Final = 25
"""Calls of one in a row, as a server makes them."""
FEWEST: Final = 50
MOST: Final = 5_000

_ALLOCATORS: Final = ("jemalloc", "mimalloc", "tcmalloc")


def run() -> dict[str, Any]:
    """Train the workload's model, time both and compare their bits.

    Returns:
        `rows`, one entry per batch size with `n`, `xgboost_us_p50`, `waypost_us_p50`, `ratio` (of medians),
        `bit_identical`, the p99 of both and the ratio that must be reached; `workload`; `load_ms`; `environment`.
    """
    rows = _rows()
    model = _train(rows)
    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(model))
    started = time.perf_counter()
    forest = load_forest(model)
    load_ms = (time.perf_counter() - started) * 1e3
    return {
        "rows": [_compare(booster, forest, np.ascontiguousarray(rows[:count])) for count in ROW_COUNTS],
        "workload": {"trees": TREE_COUNT, "depth": DEPTH, "features": FEATURE_COUNT, "bytes": len(model)},
        "load_ms": round(load_ms, 1),
        "environment": _environment(),
    }


def _rows() -> NDArray[np.float32]:
    """Normal features, one value in twenty missing."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(TRAINING_ROWS, FEATURE_COUNT)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def _train(rows: NDArray[np.float32]) -> bytes:
    """A binary classifier whose trees grow to their full depth."""
    rng = np.random.default_rng(2)
    known = np.nan_to_num(rows)
    score = known[:, 0] * known[:, 1] + np.sin(3 * known[:, 2]) + 0.2 * known[:, 3:20].sum(axis=1)
    labels = score + rng.normal(size=len(rows)) > 0
    params = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 1}
    return bytes(xgboost.train(params, xgboost.DMatrix(rows, labels), TREE_COUNT).save_raw("ubj"))


def _compare(booster: xgboost.Booster, forest: Forest, rows: NDArray[np.float32]) -> dict[str, Any]:
    def theirs() -> NDArray[np.float32]:
        margins: NDArray[np.float32] = booster.inplace_predict(rows, predict_type="margin")
        return margins

    def ours() -> NDArray[np.float32]:
        return forest.margins(rows)

    their_us, our_us = _time_in_turn(theirs, ours)
    their_p50, our_p50 = float(np.median(their_us)), float(np.median(our_us))
    return {
        "n": len(rows),
        "xgboost_us_p50": round(their_p50, 2),
        "waypost_us_p50": round(our_p50, 2),
        "ratio": round(their_p50 / our_p50, 2),
        "bit_identical": bool(np.array_equal(theirs().view(np.uint32), ours()[:, 0].view(np.uint32))),
        "xgboost_us_p99": round(float(np.percentile(their_us, 99)), 2),
        "waypost_us_p99": round(float(np.percentile(our_us, 99)), 2),
        "must_reach": REQUIRED_RATIOS[len(rows)],
    }


def _time_in_turn(
    first: Callable[[], object], second: Callable[[], object]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in µs of both calls, alternating in short blocks, so that a busy moment of the machine meets both."""
    for call in (first, second):
        for _ in range(10):
            call()
    times: tuple[list[int], list[int]] = ([], [])
    stop = time.perf_counter() + BUDGET_S
    while len(times[0]) < FEWEST or (time.perf_counter() < stop and len(times[0]) < MOST):
        for call, into in zip((first, second), times, strict=True):
            into.extend(_elapsed_ns(call) for _ in range(BLOCK))
    return np.array(times[0]) / 1e3, np.array(times[1]) / 1e3


def _elapsed_ns(call: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - started


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "xgboost": xgboost.__version__,
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "allocator": _allocator(),
    }


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
    return next((name for name in _ALLOCATORS if name in mapped), " ".join(platform.libc_ver()) or "libc")
