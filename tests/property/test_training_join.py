"""The point-in-time join against a search in plain Python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.schema import Catalog, FeatureRef, Service, ValueType
from tests.support.training_world import view, write_log
from training.dataset import features_at

SECOND = 1_000_000
MOMENTS = st.integers(0, 12).map(lambda step: step * SECOND)
CUSTOMERS = st.sampled_from(["a", "b"])
LOGS = st.lists(
    st.tuples(CUSTOMERS, MOMENTS, st.none() | st.integers(-3, 3), MOMENTS),
    max_size=12,
    unique_by=lambda row: row[::2],
).map(lambda rows: list({(row[0], row[1], row[3]): row for row in rows}.values()))
ASKED = st.lists(st.tuples(CUSTOMERS, MOMENTS), min_size=1, max_size=8)


def newest_readable(
    log: list[tuple[str, int, int | None, int]], customer: str, at: int, ttl_s: int
) -> int | None:
    """Walks the whole log: the newest row at or before `at`, the later created one of two, unless it is too old."""
    readable = [row for row in log if row[0] == customer and row[1] <= at]
    if not readable:
        return None
    _, time, value, _ = max(readable, key=lambda row: (row[1], row[3]))
    return None if ttl_s and time + ttl_s * SECOND < at else value


@settings(max_examples=60)
@given(log=LOGS, asked=ASKED, ttl_s=st.sampled_from([0, 1, 4]))
def test_join_equals_plain_search(
    log: list[tuple[str, int, int | None, int]], asked: list[tuple[str, int]], ttl_s: int
) -> None:
    """For any log, TTL and instants, ties and rows at the very instant included, the join finds what a search finds."""
    with tempfile.TemporaryDirectory() as folder:
        tally = view(Path(folder), "tally", ["customer"], {"n": ValueType.INT64}, ttl_s)
        service = Service(name="one", features=(FeatureRef(view="tally", feature="n"),))
        rows: list[dict[str, Any]] = [
            {"customer": customer, "n": value, "at": at, "created": created}
            for customer, at, value, created in log
        ]
        write_log(tally, rows)
        wanted = pa.table({"customer": [row[0] for row in asked], "label_time_us": [row[1] for row in asked]})
        found = features_at(catalog=Catalog(project="p", views=(tally,)), service=service, rows=wanted)
    expected = [newest_readable(log, customer, at, ttl_s) for customer, at in asked]
    assert found["tally__n"].to_pylist() == expected
