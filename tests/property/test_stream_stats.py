"""Figures of a partition."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.stats import FRESHNESS_BUCKETS_S, Freshness, Latest

MOST = 7


@given(st.lists(st.lists(st.integers(0, 2**40), max_size=2 * MOST)))
def test_latest_numbers_are_those_that_came_last(parts: list[list[int]]) -> None:
    """In pieces of any size, larger ones than are kept among them."""
    latest, slow = Latest(MOST), deque[int](maxlen=MOST)
    for part in parts:
        latest.extend(np.array(part, dtype=np.int64))
        slow.extend(part)
        assert len(latest) == len(slow)
        if slow:
            assert latest.percentiles([0, 50, 99, 100]) == np.percentile(slow, [0, 50, 99, 100]).tolist()


@given(
    st.lists(
        st.lists(
            st.integers(-(2**40), 2**40) | st.sampled_from([round(s * 1e6) for s in FRESHNESS_BUCKETS_S])
        )
    )
)
def test_times_are_counted_in_the_first_bucket_that_holds_them(parts: list[list[int]]) -> None:
    """Those below zero as zero, those on a bound below it, and in pieces as in one."""
    freshness = Freshness()
    for part in parts:
        freshness.note(np.array(part, dtype=np.int64))
    seconds = [max(time_us, 0) / 1e6 for part in parts for time_us in part]
    bounds = [-1.0, *FRESHNESS_BUCKETS_S, float("inf")]
    expected = [sum(low < s <= high for s in seconds) for low, high in pairwise(bounds)]
    assert freshness.counts.tolist() == expected
    assert freshness.sum_s == pytest.approx(sum(seconds))
