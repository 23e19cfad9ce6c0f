"""`waypost check` tries stream views before they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from decision.policy import Policy
from decision.schema import Aggregation, Feature, ValueType
from server.errors import Problem
from server.feast.definitions import Definitions
from server.repo import Repo
from server.stream_check import stream_problems
from tests.support.stream_world import SCHEMA, catalog


def _buys(events: pd.DataFrame) -> pd.DataFrame:
    return events.loc[events["event_type"] == "buy"].assign(bought_at=lambda rows: rows["event_time"])


def _repo(tmp_path: Path, **changes: Any) -> Repo:
    transforms = dict.fromkeys(("spending", "demand", "taste"), _buys) | {"looked": lambda events: events}
    views = catalog(tmp_path)
    repo = Repo(
        path=tmp_path,
        catalog=views,
        definitions=Definitions(catalog=views, views={}, on_demand={}, services={}),
        transforms=transforms,
        events=SCHEMA,
        policy_sources={},
        model_definitions={},
        online_store=None,
    )
    return replace(repo, **changes)


def _spending(tmp_path: Path, aggregation: Aggregation, value_type: ValueType) -> Repo:
    """The repo with one more windowed feature of `spending`."""
    definitions = catalog(tmp_path)
    spending = definitions.view_by_name["spending"]
    changed = replace(
        spending,
        features=(*spending.features, Feature(name="more", value_type=value_type)),
        aggregations=(*spending.aggregations, aggregation),
    )
    views = tuple(changed if view.name == "spending" else view for view in definitions.views)
    return _repo(tmp_path, catalog=replace(definitions, views=views))


def _said(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def test_views_that_work_have_no_problem(tmp_path: Path) -> None:
    """The world of the stream tests passes."""
    assert stream_problems(_repo(tmp_path), Policy()) == []


@pytest.mark.parametrize(
    ("function", "column", "value_type", "said"),
    [
        ("maxx", "amount", ValueType.DOUBLE, "maxx"),
        ("sum", "amuont", ValueType.DOUBLE, "amuont"),
        ("count", "amount", ValueType.STRING, "more"),
        ("sum", "category", ValueType.DOUBLE, "category"),
    ],
)
def test_aggregation_that_cannot_work_is_named(
    tmp_path: Path, function: str, column: str, value_type: ValueType, said: str
) -> None:
    """A wrong function, column or type is found without a real event."""
    aggregation = Aggregation(feature="more", column=column, function=function, window_s=600)
    problems = stream_problems(_spending(tmp_path, aggregation, value_type), Policy())
    assert said in _said(problems)
    assert "spending" in _said(problems)


def _raises(events: pd.DataFrame) -> pd.DataFrame:
    return events[["gone"]]


def _first_of_the_usual(events: pd.DataFrame) -> pd.DataFrame:
    rows = _buys(events)
    if (rows["amount"] > 1_000).any():
        raise ValueError("beyond what this is for")
    return rows.head(20)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (_raises, "the transformation failed: KeyError("),
        (lambda _events: None, "returned a NoneType"),
        (lambda events: events.reset_index(drop=True).set_index(events.index + 1000), "keep the index"),
        (lambda events: _buys(events).drop(columns="category"), "no column 'category'"),
    ],
)
def test_transformation_that_cannot_work_is_named(tmp_path: Path, transform: Any, said: str) -> None:
    """A transformation is run on made-up events of every type, alone and together."""
    problems = stream_problems(_repo(tmp_path, transforms={"spending": _buys, "demand": transform}), Policy())
    assert said in _said(problems)


@pytest.mark.parametrize(
    "transform",
    [
        lambda events: _buys(events).assign(amount=lambda rows: rows["amount"].cumsum()),
        lambda events: _buys(events).drop_duplicates("category"),
        lambda events: _buys(events).assign(amount=lambda rows: rows["amount"] - rows["amount"].mean()),
        lambda events: _buys(events).assign(category=lambda rows: rows["category"].shift(fill_value="0")),
        lambda events: _buys(events).iloc[:1],
        lambda events: _buys(events)[lambda rows: rows["amount"] >= rows["amount"].median()],
        lambda events: _buys(events).head(20),
        lambda events: _buys(events).tail(100),
        _first_of_the_usual,
        lambda events: _buys(events).assign(
            amount=lambda r: r["amount"].clip(upper=r["amount"].quantile(0.995))
        ),
        lambda events: _buys(events)[lambda rows: rows["amount"] > 1_000].reset_index(drop=True),
    ],
    ids=[
        "cumsum",
        "drop_duplicates",
        "mean",
        "shift",
        "first",
        "median",
        "head",
        "tail",
        "usual",
        "quantile",
        "renumbered",
    ],
)
def test_transformation_that_looks_at_other_rows_is_refused(tmp_path: Path, transform: Any) -> None:
    """What an event becomes may not depend on the events beside it, others in stream and backfill."""
    transforms = {"spending": _buys, "demand": transform, "taste": _buys, "looked": lambda events: events}
    said = _said(stream_problems(_repo(tmp_path, transforms=transforms), Policy()))
    assert "view demand: its function makes other rows of an event" in said
    assert "spending" not in said


def test_transformation_that_refuses_large_values_passes(tmp_path: Path) -> None:
    """What is declared is wider than what it is for: such an event is put aside when it comes."""

    def bounded(events: pd.DataFrame) -> pd.DataFrame:
        if (events["amount"] > 1_000).any():
            raise ValueError("too much")
        return _buys(events)

    transforms = dict.fromkeys(("spending", "demand", "taste"), bounded) | {"looked": lambda events: events}
    assert stream_problems(_repo(tmp_path, transforms=transforms), Policy()) == []


def test_transformation_that_makes_several_rows_of_an_event_passes(tmp_path: Path) -> None:
    """No row, one or several, of dtypes that differ with the batch: whatever is made of each event by itself."""

    def several(events: pd.DataFrame) -> pd.DataFrame:
        rows = _buys(events)
        doubled = pd.concat([rows, rows[rows["amount"] > 1]]).sort_index(kind="stable")
        return doubled.assign(amount=doubled["amount"].where(doubled["customer_id"] == "1"))

    transforms = dict.fromkeys(("spending", "demand", "taste"), several) | {"looked": lambda events: events}
    assert stream_problems(_repo(tmp_path, transforms=transforms), Policy()) == []
