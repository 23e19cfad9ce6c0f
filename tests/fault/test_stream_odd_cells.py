"""Functions give cells of any kind: what one event becomes is refused or kept whatever stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis

from online.keys import EntityKeys
from online.write import EntityWriter
from streaming.aside import MAX_DETAIL_CHARS
from streaming.events import EventRecord
from streaming.keys import PartitionKeys
from tests.support.stream_world import CUSTOMER, PROJECT, START_US, TRANSFORMS, World, drain, publish
from tests.support.valkey import emptied

KEYS = PartitionKeys(PROJECT, 0)


class _Unruly:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, _: object) -> bool:
        raise RuntimeError("not to be compared")

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


class _Speechless(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("not to be told")


class _Unlooked:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, _: object) -> bool:
        raise _Speechless

    def __array__(self, *_: object, **__: object) -> Any:
        raise _Speechless


class _Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


def _nested() -> list[Any]:
    inner: list[Any] = []
    for _ in range(5_000):
        inner = [inner]
    return inner


ODD: dict[str, Callable[[], object]] = {
    "array": lambda: np.array([1.0, 2.0]),
    "empty array": lambda: np.array([]),
    "series": lambda: pd.Series([1.0, 2.0]),
    "frame": lambda: pd.DataFrame({"a": [1]}),
    "index": lambda: pd.Index([1, 2]),
    "signalling NaN": lambda: Decimal("sNaN"),
    "date": lambda: date(2026, 1, 1),
    "far timestamp": lambda: pd.Timestamp(np.datetime64(10**13, "s")),
    "unruly": _Unruly,
    "nested": _nested,
    "huge": lambda: 10**400,
    "more digits than are shown": lambda: 10**5_000,
    "not to be looked at": _Unlooked,
    "complex": lambda: 1 + 2j,
}


def _beside(column: str, cell: Callable[[], object], function: Any) -> Any:
    def odd(events: pd.DataFrame) -> pd.DataFrame:
        rows = pd.DataFrame(function(events))
        cells = [cell() if kind == "odd" else None for kind in rows["category"]]
        values = np.empty(len(rows), dtype=object)
        for row, (value, own) in enumerate(zip(rows[column], cells, strict=True)):
            values[row] = value if own is None else own
        return rows.assign(**{column: pd.Series(values, index=rows.index, dtype=object)})

    return odd


def _publish(url: str, kinds: list[str]) -> None:
    arrivals = [
        (
            START_US + number,
            EventRecord(
                f"e{number}",
                kind,
                "ada",
                START_US + number,
                {"category": "odd" if number == 1 else "tea", "amount": 1.0},
            ),
        )
        for number, kind in enumerate(kinds)
    ]
    publish(url, arrivals)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("view", "column"), [("spending", "amount"), ("spending", "customer_id"), ("looked", "category")]
)
def test_an_odd_cell_is_put_aside_and_those_beside_it_count(
    client: redis.Redis, url: str, monkeypatch: pytest.MonkeyPatch, view: str, column: str, odd: str
) -> None:
    monkeypatch.setitem(TRANSFORMS, view, _beside(column, ODD[odd], TRANSFORMS[view]))
    kind = "buy" if view == "spending" else "look"
    _publish(url, [kind] * 3)
    world = World.create()
    materializer = world.materializer(client, batch_records=10)
    drain(materializer)
    letters: Any = client.xrange(KEYS.dead_letters)
    assert [fields[b"reason"] for _, fields in letters] == [b"NOT_APPLICABLE"]
    assert len(letters[0][1][b"detail"].decode()) <= MAX_DETAIL_CHARS
    assert materializer.stats.events == 2


@pytest.mark.parametrize("error", [_Unspeakable(), ValueError("x" * 5_000_000)], ids=["unspeakable", "long"])
def test_what_a_function_raises_is_told_in_few_words(
    client: redis.Redis, url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    buys = TRANSFORMS["spending"]

    def raising(events: pd.DataFrame) -> pd.DataFrame:
        if (events["category"] == "odd").any():
            raise error
        return buys(events)

    monkeypatch.setitem(TRANSFORMS, "spending", raising)
    _publish(url, ["buy"] * 3)
    drain(World.create().materializer(client, batch_records=10))
    ((_, fields),) = client.xrange(KEYS.dead_letters)  # type: ignore[misc]
    assert type(error).__name__.encode() in fields[b"detail"]
    assert len(fields[b"detail"].decode()) <= MAX_DETAIL_CHARS


@pytest.mark.parametrize("batch_records", [1, 10])
def test_a_row_that_cannot_be_kept_is_refused_though_a_later_one_takes_its_place(
    url: str, monkeypatch: pytest.MonkeyPatch, batch_records: int
) -> None:
    """Of a view without windows only the newest row is written; whether an event counts must not hang on its batch."""
    monkeypatch.setitem(TRANSFORMS, "looked", _beside("category", lambda: 5, TRANSFORMS["looked"]))
    client, world = emptied(url), World.create()
    _publish(url, ["look"] * 3)
    materializer = world.materializer(client, batch_records=batch_records)
    drain(materializer)
    assert materializer.stats.events == 2
    assert client.xlen(KEYS.dead_letters) == 1


def test_a_whole_number_is_itself_beside_a_float(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """2⁵³ + 1 has no float: as one of a column of floats it would be 2⁵³."""
    buys = TRANSFORMS["spending"]

    def timed(events: pd.DataFrame) -> pd.DataFrame:
        rows = pd.DataFrame(buys(events))
        times = [2**53 + 1 if category == "odd" else 5.0 for category in rows["category"]]
        return rows.assign(bought_at=pd.Series(times, index=rows.index, dtype=object))

    monkeypatch.setitem(TRANSFORMS, "spending", timed)
    found = []
    for batch_records in (1, 10):
        client, world = emptied(url), World.create()
        _publish(url, ["buy"] * 3)
        drain(world.materializer(client, batch_records=batch_records))
        (key,) = EntityKeys(PROJECT, (CUSTOMER,)).encode_many({CUSTOMER.name: (["ada"], range(1))})
        (state,) = EntityWriter(client).load([key])
        found.append({name: data for name, data in state.items() if name.startswith(b"w:")})
    assert found[0]
    assert found[0] == found[1]
