"""Figures of a partition."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.stats import Latest

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
