"""Replies put together: places in them are told in 32 bits."""

from __future__ import annotations

import numpy as np
import pytest

from decision.schema import Catalog, Feature, FeatureRef, JoinKey, ValueType, View
from online.columns import GroupReplies, read_columns
from online.errors import ReadTooLargeError
from online.keys import feature_field
from online.plan import ReadPlan
from online.replies import MOST_BYTES, Replies, merge
from online.values import encode_value
from tests.support.resp import framed, hmget_reply

VIEWS = tuple(
    View(
        name=name,
        join_keys=(JoinKey(name=name, value_type=ValueType.INT64),),
        features=(Feature(name="f", value_type=ValueType.INT64),),
    )
    for name in ("one", "two")
)
PLAN = ReadPlan.compile(
    Catalog(project="demo", views=VIEWS), [FeatureRef(view=view.name, feature="f") for view in VIEWS]
)


def test_more_than_places_can_be_told_of_is_refused() -> None:
    """Before any of it is copied."""
    half = np.zeros(MOST_BYTES // 2 + 1, np.uint8)
    part = Replies(half, np.empty((0, 2), np.int64), np.empty((0, 5), np.int64))
    with pytest.raises(ReadTooLargeError, match="1 GiB"):
        merge([part, part])


@pytest.mark.parametrize("together", [True, False])
def test_groups_find_their_cells_in_the_replies_that_they_share_or_not(*, together: bool) -> None:
    """What two groups have in common is there once."""
    hashes = []
    for number, group in enumerate(PLAN.groups):
        stored = {feature_field(VIEWS[number].name, "f"): encode_value(ValueType.INT64, number)}
        hashes.append(hmget_reply([stored.get(field) for field in group.fields]))
    replies = [framed(b"".join(hashes))] * 2 if together else [framed(data) for data in hashes]
    rows = [0, 1] if together else [0, 0]
    found = [
        GroupReplies(group, part, np.array([row]))
        for group, part, row in zip(PLAN.groups, replies, rows, strict=True)
    ]
    columns = read_columns(PLAN, 1, found, 0, None)
    data, starts = columns.stored
    assert len(data) == sum(map(len, hashes))
    for place, start in enumerate(starts[:, 0].tolist()):
        cell = data[start : start + columns.lengths[place, 0]].tobytes()
        assert cell == encode_value(ValueType.INT64, place)
        assert columns.values(place) == [place]
