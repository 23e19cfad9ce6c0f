"""Prometheus metrics of a materializer process, read from its partitions' figures when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from streaming.materializer import Materializer
from streaming.stats import COUNTS, FRESHNESS_BUCKETS_S, Freshness

_TEXTS = {
    "events": "Events applied.",
    "late": "Events put aside as later than lateness_s.",
    "ahead": "Events put aside as ahead of the clock.",
    "duplicates": "Events that their customer had brought before.",
    "dead": "Events put aside for another reason, and entities that could not be brought forward.",
    "writes": "Entity writes tried.",
    "refused_writes": "Entity writes refused because somebody else had written; they are tried again.",
    "state_bytes_written": "Bytes of entity state written.",
    "offline_rows": "Rows written to the offline log.",
    "failed_flushes": "Times that offline rows or events could not be written to files.",
    "segment_changes": "Entries into segments and exits.",
}


class StreamCollector(Collector):
    """Reads the partitions that this process owns at the moment.

    Args:
        running: Gives the materializers by partition.
    """

    def __init__(self, running: Callable[[], Mapping[int, Materializer]]) -> None:
        self._running = running

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """All metrics, with the partition as label."""
        running = dict(self._running())
        for name in COUNTS:
            family = CounterMetricFamily(f"waypost_stream_{name}", _TEXTS[name], labels=("partition",))
            for partition, materializer in running.items():
                family.add_metric((str(partition),), getattr(materializer.stats, name))
            yield family
        flips = CounterMetricFamily(
            "waypost_stream_flips", "Entries and exits by segment.", labels=("partition", "segment")
        )
        watermark = GaugeMetricFamily(
            "waypost_stream_watermark_seconds",
            "Logical time up to which features are current, since 1970.",
            labels=("partition",),
        )
        archived = GaugeMetricFamily(
            "waypost_stream_archived_seconds",
            "Wall time at which events were last archived, since 1970.",
            labels=("partition",),
        )
        waiting = GaugeMetricFamily(
            "waypost_stream_waiting_rows",
            "Rows in memory that could not be written to files; 0 where the last attempt went well.",
            labels=("partition",),
        )
        for partition, materializer in running.items():
            waiting.add_metric((str(partition),), materializer.stats.rows_waiting)
            for segment, count in materializer.stats.flips.copy().items():
                flips.add_metric((str(partition), segment), count)
            watermark.add_metric((str(partition),), materializer.now_us / 1e6)
            if materializer.stats.archived_at_us:
                archived.add_metric((str(partition),), materializer.stats.archived_at_us / 1e6)
        yield flips
        yield watermark
        yield archived
        yield waiting
        arrival = "From an event's arrival until its features are readable, in wall time."
        event_time = "From an event's own time until its features are readable, in logical time."
        for name, text in (("arrival", arrival), ("event_time", event_time)):
            histogram = HistogramMetricFamily(
                f"waypost_stream_freshness_{name}_seconds", text, labels=("partition",)
            )
            for partition, materializer in running.items():
                freshness: Freshness = getattr(materializer.stats, name)
                histogram.add_metric((str(partition),), _buckets(freshness), freshness.sum_s)
            yield histogram


def _buckets(freshness: Freshness) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in FRESHNESS_BUCKETS_S), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, freshness.counts.cumsum(), strict=True)]
