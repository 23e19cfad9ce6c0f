"""`waypost backfill` where what it makes of a file finds no room on the disk."""

from __future__ import annotations

import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from server.scaffold import write_repo

COUNT = 20_000


def backfill(folder: Path, url: str, most_bytes: int) -> subprocess.CompletedProcess[str]:
    """Run the command, which may write no file beyond so many bytes."""
    command = [
        "backfill",
        folder / "past.parquet",
        "--repo",
        folder / "library",
        "--data-dir",
        folder / "data",
    ]
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *map(str, command), "--redis-url", url],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY)),
    )


def test_backfill_that_finds_no_room_says_so_and_is_begun_again(url: str, tmp_path: Path) -> None:
    """Not that the file of events is too large; with room it comes to its end."""
    write_repo(tmp_path / "library")
    start = datetime.now(UTC) - timedelta(days=1)
    table = pa.table(
        {
            "event_id": [str(number) for number in range(COUNT)],
            "event_type": ["borrowed"] * COUNT,
            "customer_id": [str(number % 997) for number in range(COUNT)],
            "event_time": pa.array([start + timedelta(seconds=number) for number in range(COUNT)]),
            "isbn": ["x"] * COUNT,
        }
    )
    pq.write_table(table, tmp_path / "past.parquet")
    ran = backfill(tmp_path, url, 100_000)
    assert ran.returncode == 1, ran.stdout
    assert "no room for what is made of" in ran.stderr
    assert str(tmp_path / "data") in ran.stderr
    ran = backfill(tmp_path, url, resource.RLIM_INFINITY)
    assert ran.returncode == 0, ran.stderr
    assert f"{COUNT:,} events" in ran.stdout.replace(str(COUNT), f"{COUNT:,}")
