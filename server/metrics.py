"""Prometheus metrics of a server; every name is explained in docs/operations.md."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from online.near import NearCache
from server.histogram import CallHistogram

LATENCY_BUCKETS_S = (
    50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.5e-3, 3e-3, 5e-3, 8e-3, 12e-3, 20e-3, 35e-3, 60e-3, 100e-3,
)  # fmt: skip
AGE_BUCKETS_S = (1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)


class Metrics:
    """All metrics of one process. Labels come from closed sets: services, methods, codes, placements, views."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.rpc_seconds = CallHistogram(
            "waypost_rpc_seconds",
            "Time from a request's arrival in Python to its answer.",
            ("service", "method", "code"),
            LATENCY_BUCKETS_S,
            self.registry,
        )
        self.decision_stage_seconds = CallHistogram(
            "waypost_decision_stage_seconds",
            "Time that one stage of a decision took.",
            ("stage",),
            LATENCY_BUCKETS_S,
            self.registry,
        )
        self.decisions = self._counter("waypost_decisions", "Decisions made.", "placement")
        self.degraded = self._counter(
            "waypost_decisions_degraded", "Decisions that went without something.", "kind"
        )
        self.feature_age_seconds = CallHistogram(
            "waypost_feature_age_seconds",
            "Age of a view's newest value when a decision read it, by the decision's clock.",
            ("view",),
            AGE_BUCKETS_S,
            self.registry,
        )
        self.events_accepted = self._counter("waypost_events_accepted", "Events appended to the log.")
        self.events_refused = self._counter("waypost_events_refused", "Events kept out of the log.", "reason")
        self.dead_letters_lost = self._counter(
            "waypost_dead_letters_lost", "Refused events that could not be kept: the store was away."
        )
        self.records_lost = self._counter(
            "waypost_decision_records_lost",
            "Decision records dropped because the queue was full or a write failed.",
        )
        self.records_written = self._counter(
            "waypost_decision_records_written", "Decision records written to Parquet."
        )
        self.records_queued = Gauge(
            "waypost_decision_records_queued",
            "Decision records that wait to be written.",
            registry=self.registry,
        )
        self.reloads = self._counter("waypost_bundle_reloads", "Attempts to swap in a new bundle.", "result")
        self.refreshes = self._counter(
            "waypost_definition_refreshes", "Attempts to take changed Feast definitions over.", "result"
        )
        self.internal_errors = self._counter(
            "waypost_internal_errors", "Calls that ended in an incident.", "service", "method"
        )

    def refused_events(self) -> dict[str, int]:
        """Events kept out of the log, by reason."""
        samples = [sample for family in self.events_refused.collect() for sample in family.samples]
        return {
            sample.labels["reason"]: int(sample.value) for sample in samples if sample.name.endswith("_total")
        }

    def watch_near(self, near: NearCache) -> None:
        """Show how often the near cache answers."""
        self.registry.register(_NearReads(near))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class _NearReads(Collector):
    """Counts are the cache's own: reading must not pay for them."""

    def __init__(self, near: NearCache) -> None:
        self._near = near

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "waypost_near_cache_reads", "Reads of entities that may be kept in memory.", labels=("result",)
        )
        family.add_metric(("hit",), self._near.hits)
        family.add_metric(("miss",), self._near.misses)
        return (family,)
