"""A histogram for what every call observes: much cheaper than the client library's, which locks each number."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import INF, floatToGoString


class Series:
    """The observations with one set of labels."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a bucket holds values up to its bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def sums(self) -> tuple[list[int], float]:
        """How many values are up to each bound and at all, and the sum of all."""
        return list(accumulate(self._counts)), self._total


class CallHistogram(Collector):
    """A metric of type histogram. All of its series are observed by one thread; any may collect.

    Args:
        name: Of the metric.
        text: What it means.
        labels: Names of its labels.
        bounds: Upper bounds of its buckets, ascending.
        registry: Where it is shown.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._ends: list[str] = [floatToGoString(bound) for bound in (*bounds, INF)]  # type: ignore[no-untyped-call]
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series with these labels' values, in the order of their names."""
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not {len(values)} of them")
            found = self._series[values] = Series(self._bounds)
        return found

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in list(self._series.items()):
            counts, total = series.sums()
            family.add_metric(values, list(zip(self._ends, map(float, counts), strict=True)), total)
        return (family,)
