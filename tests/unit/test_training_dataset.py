"""The training set: split by time, and blind to what came after each decision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.training_world import (
    CANDIDATES,
    DAY_US,
    START_US,
    catalog,
    definition,
    events,
    times_us,
    write_logs,
)
from training.dataset import Dataset, build_dataset
from training.definition import SPLITS
from training.errors import DatasetError
from training.labels import LABEL, SPLIT, TIME


def build(folder: Path, purchases: pd.DataFrame) -> Dataset:
    world = catalog(folder)
    write_logs(world, purchases)
    return build_dataset(definition=definition(), catalog=world, events=purchases, candidates=CANDIDATES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build(tmp_path_factory.mktemp("world"), events())


def before(dataset: Dataset, time_us: int, *, without: tuple[str, ...] = ("row_number",)) -> pd.DataFrame:
    frame: pd.DataFrame = dataset.table.drop_columns(list(without)).to_pandas()
    return frame.loc[frame[TIME] < time_us].reset_index(drop=True)


def test_dataset_ignores_shifted_future_purchase(dataset: Dataset, tmp_path: Path) -> None:
    """Moving a purchase that lies after a decision changes no feature of any row decided before it, only labels."""
    purchases = events()
    after = np.flatnonzero(purchases["event_time"] >= pd.Timestamp("2024-02-18", tz="UTC"))
    moved = int(after[0])
    old_us = times_us(purchases)[moved]
    purchases.loc[[moved], "event_time"] = purchases["event_time"].loc[[moved]] + pd.Timedelta(days=20)
    shifted = build(tmp_path, purchases)

    blind = ("row_number", LABEL)
    pd.testing.assert_frame_equal(
        before(dataset, old_us, without=blind), before(shifted, old_us, without=blind)
    )
    labels = before(dataset, old_us)[LABEL] != before(shifted, old_us)[LABEL]
    assert labels.any(), "the purchase was nobody's outcome: the test proves nothing"
    rest = dataset.table.filter(pa.compute.greater_equal(dataset.table[TIME], old_us))
    assert rest.num_rows
    assert not rest.drop_columns(["row_number", LABEL]).equals(
        shifted.table.filter(pa.compute.greater_equal(shifted.table[TIME], old_us)).drop_columns(
            ["row_number", LABEL]
        )
    ), "features after the purchase must see it move"


def test_dataset_labels_equal_plain_search(dataset: Dataset) -> None:
    """A label is true exactly where a purchase with the row's keys lies in (t, t + horizon]."""
    purchases = events()
    horizon_us = definition().label.horizon_us
    times = {key: np.array(times_us(group)) for key, group in purchases.groupby(["customer", "kind"])}
    for row in dataset.table.to_pylist()[::7]:
        bought = times.get((row["customer"], row["kind"]), np.empty(0))
        expected = bool(((bought > row[TIME]) & (bought <= row[TIME] + horizon_us)).any())
        assert row[LABEL] is expected


def test_dataset_splits_follow_one_another(dataset: Dataset) -> None:
    """Every decision and its whole horizon lie inside its split's dates: no outcome reaches into a later split."""
    wanted = definition()
    for name in SPLITS:
        split, times_us = wanted.splits.by_name(name), dataset.split(name).times_us
        assert len(times_us)
        assert times_us.min() >= split.start.timestamp() * 1e6
        assert times_us.max() + wanted.label.horizon_us <= split.end.timestamp() * 1e6
    assert set(dataset.table[SPLIT].to_pylist()) == set(SPLITS)


def test_dataset_rows_do_not_depend_on_event_order(dataset: Dataset, tmp_path: Path) -> None:
    """The same events in another order give the same table."""
    shuffled = build(tmp_path, events().sample(frac=1, random_state=3, ignore_index=True))
    assert shuffled.table.equals(dataset.table)


def test_dataset_samples_whole_decisions(dataset: Dataset) -> None:
    """A sampled decision keeps all of its candidates, and about the declared share of decisions is kept."""
    train = dataset.split("train").table.to_pandas()
    assert (train.groupby(["customer", TIME]).size() == len(CANDIDATES)).all()
    possible = 20 * 29  # a decision a day for each customer, until two days before the end
    assert 0.6 < len(train) / len(CANDIDATES) / possible < 0.8


def test_dataset_names_view_without_rows(tmp_path: Path) -> None:
    """A view that was never backfilled is named in the error."""
    with pytest.raises(DatasetError, match="view buyer has no offline rows at"):
        build_dataset(
            definition=definition(), catalog=catalog(tmp_path), events=events(), candidates=CANDIDATES
        )


def test_dataset_refuses_candidate_without_key(tmp_path: Path) -> None:
    """An offer that does not declare the candidate's join key is named."""
    with pytest.raises(DatasetError, match=r"'sort': 'green'.* declares no kind"):
        build_dataset(
            definition=definition(),
            catalog=catalog(tmp_path),
            events=events(),
            candidates=[{"sort": "green"}],
        )


def test_dataset_refuses_empty_split(tmp_path: Path) -> None:
    """Events that end before the test weeks are refused instead of judging on nothing."""
    short = events()
    short = short.loc[short["event_time"] < pd.Timestamp(START_US + 3 * DAY_US, unit="us", tz="UTC")]
    world = catalog(tmp_path)
    write_logs(world, short)
    wanted = definition().model_copy(
        update={"decision_times": definition().decision_times.model_copy(update={"active_within_s": 86_400})}
    )
    with pytest.raises(DatasetError, match="no rows for the split 'train'"):
        build_dataset(definition=wanted, catalog=world, events=short, candidates=CANDIDATES)


def test_rows_that_do_not_say_when_they_were_created_are_joined(tmp_path: Path) -> None:
    """A batch view's file of another system has keys, features and event times, and nothing else need be there."""
    world = catalog(tmp_path)
    write_logs(world, events())
    told = build_dataset(definition=definition(), catalog=world, events=events(), candidates=CANDIDATES)
    (part,) = (tmp_path / "crm").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns("created"), part)
    silent = build_dataset(definition=definition(), catalog=world, events=events(), candidates=CANDIDATES)
    assert silent.table == told.table


@pytest.mark.parametrize("name", ["a", "z"])
def test_some_files_may_say_when_their_rows_were_created(tmp_path: Path, name: str) -> None:
    """Whichever comes first; of rows with one event time, those that say it count. No other column may be missing."""
    world = catalog(tmp_path)
    write_logs(world, events())
    told = build_dataset(definition=definition(), catalog=world, events=events(), candidates=CANDIDATES)
    (part,) = (tmp_path / "crm").glob("*.parquet")
    silent = pq.read_table(part).drop_columns("created")
    other = part.with_name(f"{name}.parquet")
    pq.write_table(silent, other)
    mixed = build_dataset(definition=definition(), catalog=world, events=events(), candidates=CANDIDATES)
    assert mixed.table == told.table

    feature = next(field for view in world.views if view.name == "crm" for field in view.features)
    pq.write_table(silent.drop_columns(feature.name), other)
    with pytest.raises(DatasetError, match=rf"{name}\.parquet does not fit .*no column '{feature.name}'"):
        build_dataset(definition=definition(), catalog=world, events=events(), candidates=CANDIDATES)
