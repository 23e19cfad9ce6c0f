"""Our histogram says what the client library's says."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from server.histogram import CallHistogram

BOUNDS = (50e-6, 1e-3, 0.5, 3.0, 600.0)


def shown(registry: CollectorRegistry) -> list[str]:
    """The page's lines, but for the times at which series began, which we do not say."""
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


def test_the_page_is_that_of_the_client_library() -> None:
    """Same buckets, counts, sums and labels; values that are bounds are in their bucket."""
    draw = random.Random(3)
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    library = Histogram("calls_seconds", "How long.", ("service", "code"), buckets=BOUNDS, registry=theirs)
    histogram = CallHistogram("calls_seconds", "How long.", ("service", "code"), BOUNDS, ours)
    for _ in range(500):
        labels = (draw.choice(['a "quoted" one', "b"]), draw.choice(["OK", "INTERNAL"]))
        value = draw.choice((*BOUNDS, 0.0, 1e9, draw.expovariate(1.0)))
        library.labels(*labels).observe(value)
        histogram.labels(*labels).observe(value)
    assert shown(ours) == shown(theirs)


def test_wrong_labels_are_refused() -> None:
    """A series has a value for each label."""
    histogram = CallHistogram("calls_seconds", "How long.", ("service",), BOUNDS, CollectorRegistry())
    with pytest.raises(ValueError, match="not 2 of them"):
        histogram.labels("a", "b")
