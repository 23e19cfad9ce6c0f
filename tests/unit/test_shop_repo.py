"""The example's definitions: documented, consistent, row-wise, and a policy without findings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from decision.lang.compiler import compile_policy
from decision.lang.findings import render
from decision.lang.interpreter import prepare
from decision.policy import Policy, Show
from decision.schema import DType
from demo.data import live_events
from training.definition import TrainingDefinition, parse_definition
from training.join import service_views

if TYPE_CHECKING:
    from server.repo import Repo

pytestmark = pytest.mark.filterwarnings("ignore")

REPO = Path(__file__).parents[2] / "feature_repo"
BRIEF = 'IF (purchase_history.last_month_total > 500 AND browsing_category = "electronics")'


@pytest.fixture(scope="module")
def repo() -> Repo:
    from server.repo import load_repo

    return load_repo(REPO)


@pytest.fixture(scope="module")
def policy(repo: Repo) -> Policy:
    compiled = compile_policy(repo.policy_sources, repo.catalog, frozenset({"category_affinity"}))
    assert not compiled.findings, render(compiled.findings, repo.policy_sources)
    assert compiled.policy is not None
    return compiled.policy


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    """A day of live events, with impressions and clicks that the data does not have."""
    start = datetime(2017, 12, 18, tzinfo=UTC)
    frame = live_events(start, start + timedelta(days=1))
    shown = frame.sample(200, random_state=1).assign(
        event_type=np.tile(["impression", "click"], 100), offer_id="cheese", product_category=None
    )
    shown["event_id"] = "shown-" + shown["event_id"]
    return pd.concat([frame, shown], ignore_index=True)


def test_every_view_and_feature_is_described(repo: Repo) -> None:
    """Each view says what it is, and each feature too."""
    for view in repo.catalog.views:
        assert view.description, view.name
        assert dict(view.tags).get("team"), view.name
        assert [feature.name for feature in view.features if not feature.description] == []


def test_windows_are_multiples_of_hops(repo: Repo) -> None:
    """Each window is a multiple of its view's hop, and the features are exactly the aggregations."""
    windowed = [view for view in repo.catalog.views if view.aggregations]
    assert len(windowed) == 6
    for view in windowed:
        assert all(item.window_s is None or item.window_s % view.hop_s == 0 for item in view.aggregations)
        assert {item.feature for item in view.aggregations} == set(view.feature_by_name)
        assert view.ttl_s == 0


@pytest.mark.parametrize(
    "name",
    [
        "purchase_history",
        "customer_category",
        "category_popularity",
        "session",
        "offer_outcomes",
        "customer_offer",
    ],
)
def test_transform_works_row_by_row(repo: Repo, events: pd.DataFrame, name: str) -> None:
    """Whole, in pieces and shuffled, a transformation gives the same rows: ids, times, keys, aggregated columns."""
    view, transform = repo.catalog.view_by_name[name], repo.transforms[name]
    whole = transform(events)
    assert len(whole)
    needed = {"event_id", "event_time", *view.key_names, *(item.column for item in view.aggregations)}
    assert needed == set(whole.columns)
    pieces = pd.concat([transform(events.iloc[part]) for part in np.array_split(np.arange(len(events)), 7)])
    pd.testing.assert_frame_equal(pieces, whole)
    shuffled = transform(events.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(shuffled.sort_values("event_id"), whole.sort_values("event_id"))


@pytest.mark.parametrize("name", ["purchase_history", "session", "customer_offer"])
def test_transform_keeps_its_types_on_no_rows(repo: Repo, events: pd.DataFrame, name: str) -> None:
    """A batch without events of the view's types gives an empty frame with the same columns."""
    transform = repo.transforms[name]
    empty = transform(events.iloc[:0])
    assert len(empty) == 0
    assert list(empty.columns) == list(transform(events).columns)


def test_orders_are_counted_per_basket(repo: Repo, events: pd.DataFrame) -> None:
    """`order` is present once for each basket, so that its count is the number of baskets."""
    rows = repo.transforms["purchase_history"](events)
    assert rows["order"].count() == events["basket_id"].nunique()
    assert rows["basket_total"].sum() == pytest.approx(rows["sales_value"].sum(), abs=0.01)


def test_every_segment_has_its_feature(repo: Repo, policy: Policy) -> None:
    """The view of segments stores exactly the segments that the policy defines."""
    stored = repo.catalog.view_by_name["segments"]
    assert stored.tag("waypost.role") == "segments"
    assert {segment.name for segment in policy.segments} == set(stored.feature_by_name)


def test_the_briefs_rule_stands_as_it_was_written(repo: Repo, policy: Policy) -> None:
    """The rule is in the text word for word, and shows its offer on home_hero by a context of text."""
    assert BRIEF in repo.policy_sources["policy/rules.policy"]
    rule = next(item for item in policy.rules if item.name == "premium_for_spenders")
    assert rule.actions == (Show(offer="premium_electronics"),)
    placement = next(item for item in policy.placements if item.name == "home_hero")
    assert placement.context == {"browsing_category": DType.STRING}


@pytest.mark.parametrize(
    ("spent", "browsing", "fires"),
    [
        (500.01, "electronics", True),
        (500.0, "electronics", False),
        (900.0, "garden", False),
        (None, "electronics", None),
    ],
)
def test_the_briefs_rule_fires(
    policy: Policy, spent: float | None, browsing: str, fires: bool | None
) -> None:
    """It holds for who spent more than $500 in 30 days and browses electronics; unknown spend is unknown."""
    rule = next(item for item in policy.rules if item.name == "premium_for_spenders")
    row = {"purchase_history.last_month_total": spent, "context.browsing_category": browsing}
    assert prepare(rule.condition)(row, 0) is fires


def test_offers_declare_their_keys(policy: Policy) -> None:
    """Each offer names its category and itself, so that every key comes from the policy."""
    assert len(policy.offers) == 101
    for offer in policy.offers:
        assert offer.keys == {"product_category": offer.attributes["category"], "offer_id": offer.name}


def test_model_reads_no_derived_browsing(repo: Repo) -> None:
    """The model's service has views with history only, and none of the session, whose browsing is derived."""
    definition = parse_definition(
        repo.model_definitions["models/category_affinity.yaml"], "category_affinity.yaml"
    )
    assert isinstance(definition, TrainingDefinition)
    service = repo.catalog.service_by_name[definition.feature_service]
    views = service_views(repo.catalog, service, definition.label.join_keys)
    assert "session" not in {view.name for view in views}


def test_training_stops_where_the_held_out_weeks_start(repo: Repo) -> None:
    """No label of the training definition looks into the live part."""
    from demo.data import HELD_OUT_START

    definition = parse_definition(
        repo.model_definitions["models/category_affinity.yaml"], "category_affinity.yaml"
    )
    assert isinstance(definition, TrainingDefinition)
    assert definition.splits.test.end == HELD_OUT_START
