"""Forest margins against XGBoost's `inplace_predict` with one thread and Treelite, all measured in turn in one run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost
from numpy.typing import NDArray

from decision.forest import Forest, load_forest
from loadtest.bench.measure import cell, environment, in_turn, installed
from server.measurement import Bound, Report, Results, Table, Tell

TREE_COUNT: Final = 200
DEPTH: Final = 6
FEATURE_COUNT: Final = 40
TRAINING_ROWS: Final = 5_000
ROW_COUNTS: Final = (1, 10, 100, 500)
REQUIRED_RATIOS: Final = {1: 30.0, 10: 6.0, 100: 3.0, 500: 2.5}
BUDGET_S: Final = 3.0
"""Wall time spent on each row count."""
UNITS: Final = 8
"""Files that Treelite's C is cut into: one takes minutes to compile."""

Rows = NDArray[np.float32]
Scorer = Callable[[Rows], NDArray[np.float32]]


def run(tell: Tell) -> Results:
    """Train the workload's model, time all and compare their bits.

    Returns:
        `rows`, one entry per batch size with `n`, medians and p99 in µs of each, `ratio` (of medians, XGBoost's to
        ours), `bit_identical` (ours to XGBoost's), the ratio that must be reached, and for Treelite, compiled to C,
        its times and largest difference to XGBoost's margin; null where it or a C compiler is absent. `workload`;
        `load_ms`; `environment`.
    """
    tell(f"training {TREE_COUNT} trees of depth {DEPTH}")
    rows = _rows()
    model = _train(rows)
    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(model))
    started = time.perf_counter()
    forest = load_forest(model)
    load_ms = (time.perf_counter() - started) * 1e3
    with _treelite(booster, tell) as treelite:
        measured = []
        for count in ROW_COUNTS:
            tell(f"scoring {count} rows")
            measured.append(_compare(booster, forest, treelite, np.ascontiguousarray(rows[:count])))
    return {
        "rows": measured,
        "workload": {"trees": TREE_COUNT, "depth": DEPTH, "features": FEATURE_COUNT, "bytes": len(model)},
        "load_ms": round(load_ms, 1),
        "environment": environment("xgboost-cpu", "treelite", "tl2cgen", "numpy", "numba"),
    }


def report(results: Results) -> Report:
    """A row per batch size."""
    shown = tuple(
        (
            str(row["n"]),
            cell(row["waypost_us_p50"]),
            cell(row["waypost_us_p99"]),
            cell(row["xgboost_us_p50"]),
            cell(row["xgboost_us_p99"]),
            cell(row["treelite_us_p50"]),
            cell(row["ratio"], " ×"),
            "yes" if row["bit_identical"] else "NO",
        )
        for row in results["rows"]
    )
    columns = ("rows", "Waypost", "p99", "XGBoost", "p99", "Treelite", "÷ Waypost", "same bits")
    work = results["workload"]
    title = f"{work['trees']} trees of depth {work['depth']}, {work['features']} features: µs"
    notes: tuple[str, ...] = ()
    if results["rows"][0]["treelite_us_p50"] is None:
        notes = ("Treelite was not measured: it needs the extra `bench` and a C compiler.",)
    return Report(
        tables=(Table(title, columns, shown),),
        bounds=tuple(
            Bound(f"{row['n']} rows, XGBoost ÷ Waypost", row["ratio"], row["must_reach"], " ×", at_most=False)
            for row in results["rows"]
        ),
        notes=notes,
    )


def _rows() -> Rows:
    """Normal features, one value in twenty missing."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(TRAINING_ROWS, FEATURE_COUNT)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def _train(rows: Rows) -> bytes:
    """A binary classifier whose trees grow to their full depth."""
    rng = np.random.default_rng(2)
    known = np.nan_to_num(rows)
    score = known[:, 0] * known[:, 1] + np.sin(3 * known[:, 2]) + 0.2 * known[:, 3:20].sum(axis=1)
    labels = score + rng.normal(size=len(rows)) > 0
    params = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 1}
    return bytes(xgboost.train(params, xgboost.DMatrix(rows, labels), TREE_COUNT).save_raw("ubj"))


@contextlib.contextmanager
def _treelite(booster: xgboost.Booster, tell: Tell) -> Iterator[Scorer | None]:
    """The model as a shared library that Treelite wrote in C; its matrix is made within the call, as a server must."""
    if not (installed("treelite") and installed("tl2cgen")) or shutil.which("gcc") is None:
        yield None
        return
    import tl2cgen
    import treelite

    tell("compiling the model with Treelite")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "model.so")
        with _silenced():
            tl2cgen.export_lib(
                treelite.frontend.from_xgboost(booster),
                toolchain="gcc",
                libpath=library,
                params={"parallel_comp": UNITS},
            )
        predictor = tl2cgen.Predictor(library, nthread=1)

        def score(rows: Rows) -> NDArray[np.float32]:
            margins: NDArray[np.float32] = predictor.predict(tl2cgen.DMatrix(rows), pred_margin=True)
            return margins.reshape(-1)

        yield score


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Nothing on standard error: the compilers' progress is in the way of ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _compare(booster: xgboost.Booster, forest: Forest, treelite: Scorer | None, rows: Rows) -> dict[str, Any]:
    def theirs() -> NDArray[np.float32]:
        margins: NDArray[np.float32] = booster.inplace_predict(rows, predict_type="margin")
        return margins

    calls: dict[str, Callable[[], object]] = {"xgboost": theirs, "waypost": lambda: forest.margins(rows)}
    if treelite is not None:
        calls["treelite"] = lambda: treelite(rows)
    times = in_turn(calls, budget_s=BUDGET_S)
    other = times.get("treelite")
    return {
        "n": len(rows),
        "xgboost_us_p50": times["xgboost"].p50,
        "waypost_us_p50": times["waypost"].p50,
        "ratio": round(times["xgboost"].p50 / times["waypost"].p50, 2),
        "bit_identical": bool(
            np.array_equal(theirs().view(np.uint32), forest.margins(rows)[:, 0].view(np.uint32))
        ),
        "xgboost_us_p99": times["xgboost"].p99,
        "waypost_us_p99": times["waypost"].p99,
        "treelite_us_p50": None if other is None else other.p50,
        "treelite_us_p99": None if other is None else other.p99,
        "treelite_max_difference": None
        if treelite is None
        else float(np.abs(treelite(rows) - theirs()).max()),
        "must_reach": REQUIRED_RATIOS[len(rows)],
    }
