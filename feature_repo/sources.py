"""Where values come from: one push source per view, backed by the offline log of its values.

Paths are absolute because Feast's DuckDB store resolves relative ones against the working directory, not against
the repo.
"""

from __future__ import annotations

import os
from pathlib import Path

from feast import FileSource, PushSource

DATA_DIR = Path(os.environ.get("SHOP_DATA_DIR") or Path(__file__).parent / "data").resolve()
"""Parquet of this shop; `data/` inside the repo unless the environment says otherwise."""


def value_log(view: str) -> FileSource:
    """The log of a view's values: one row whenever a value became readable, none ever rewritten."""
    return FileSource(
        name=f"{view}_log",
        path=str(DATA_DIR / "offline" / view / "*.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        description=f"Values of {view} over time.",
        owner="data@shop.example",
    )


def event_stream(view: str) -> PushSource:
    """The stream that feeds a view, with its value log behind it."""
    return PushSource(
        name=f"{view}_stream",
        batch_source=value_log(view),
        description=f"Events that change {view}.",
        owner="data@shop.example",
    )
