"""Answers of the server as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from server.commands.calls import details_of, text_of
from server.wording import counted, sized
from waypost.admin.v1 import admin_pb2
from waypost.decision.v1 import decision_pb2
from waypost.events.v1 import events_pb2
from waypost.features.v1 import features_pb2
from waypost.segments.v1 import segments_pb2


def response_text(response: decision_pb2.DecideResponse) -> str:
    """A decision with its offers, reasons and what it went without."""
    lines = [
        f"decision {response.decision_id} at {response.decided_at.ToJsonString()}",
        f"bundle {response.bundle_version[:12]}  model {response.model_version or '–'}",
    ]
    for position, offer in enumerate(response.offers, start=1):
        lines += _offer(position, offer)
    lines += _line("tags", response.tags) + _line("segments", response.segments)
    lines += _line("ages", (_age(age) for age in response.feature_ages))
    lines += [f"went without: {_kind(item)} {item.name} {item.detail}".rstrip() for item in response.degraded]
    return "\n".join(lines)


def _offer(position: int, offer: decision_pb2.RankedOffer) -> Iterator[str]:
    prediction = f"  prediction {offer.prediction:.4g}" if offer.HasField("prediction") else ""
    yield f"{position:>3}. {offer.offer}  score {offer.score:.4g}  propensity {offer.propensity:.4g}{prediction}"
    for reason in offer.reasons:
        kind = decision_pb2.ReasonKind.Name(reason.kind).removeprefix("REASON_KIND_").lower()
        yield f"       {kind} {reason.name}: {reason.detail}".rstrip(": ")


def _line(title: str, items: Iterable[str]) -> list[str]:
    texts = list(items)
    return [f"{title}: {', '.join(texts)}"] if texts else []


def _age(age: decision_pb2.ViewAge) -> str:
    return f"{age.view} {age.age.ToTimedelta()}" if age.HasField("age") else f"{age.view} –"


def _kind(item: decision_pb2.Degradation) -> str:
    return decision_pb2.DegradationKind.Name(item.kind).removeprefix("DEGRADATION_KIND_").lower()


def features_text(response: features_pb2.GetOnlineFeaturesResponse) -> str:
    """One line per feature of the first entity."""
    width = max((len(column.name) for column in response.columns), default=0)
    return "\n".join(_feature(column, width) for column in response.columns)


def _feature(column: features_pb2.FeatureColumn, width: int) -> str:
    status = features_pb2.FieldStatus.Name(column.statuses[0]).removeprefix("FIELD_STATUS_")
    stamp = column.event_timestamps[0]
    since = f"  since {stamp.ToJsonString()}" if stamp.ByteSize() else ""
    return f"{column.name:<{width}}  {text_of(column.values[0])}  {status}{since}"


def publish_text(response: events_pb2.PublishEventsResponse) -> str:
    """How many were accepted, and why the others were not."""
    lines = [f"{response.accepted_count} of {counted(len(response.results), 'event')} accepted"]
    for result in response.results:
        if not result.accepted:
            lines += [f"{result.event_id or '(no id)'}: {result.error.message}", *details_of(result.error)]
    return "\n".join(lines)


def status_rows(response: admin_pb2.GetStatusResponse) -> list[tuple[str, str]]:
    """What a server says of itself."""
    rows = [
        ("project", response.project),
        ("bundle", response.bundle_version),
        ("models", ", ".join(response.model_versions) or "–"),
        ("time", response.now.ToJsonString()),
        ("decisions", str(response.decision_count)),
        ("records lost", str(response.decision_records_lost)),
    ]
    refused = [f"{count:,} {reason}" for reason, count in sorted(response.events_refused.items())]
    rows += [("events refused", ", ".join(refused) or "0")]
    if response.HasField("build"):
        build = response.build
        done = f", {build.done:,} of {build.total:,}" if build.total else ""
        rows.append(("building", f"{', '.join(build.views)}: {build.stage}{done}"))
    for part in response.partitions:
        current = part.watermark.ToJsonString() if part.watermark.ByteSize() else "nothing yet"
        owner = f", applied by {part.owner}" if part.owner else ", nobody applies it"
        rows.append(
            (
                f"partition {part.partition}",
                f"{counted(part.lag, 'record')} behind, features as of {current}{owner}",
            )
        )
        rows += [(f"  {name}", text) for name, text in _figures(dict(part.figures))]
    return rows


_PUT_ASIDE = {
    "late": "late",
    "ahead": "ahead of the clock",
    "dead": "not applicable",
    "duplicates": "sent again",
}


def _figures(figures: dict[str, float]) -> list[tuple[str, str]]:
    """What the owner of a partition says of itself."""
    if not figures:
        return []
    rows = [("events", f"{figures.get('events', 0):,.0f}, {figures.get('events_per_s', 0):,.1f} a second")]
    if "freshness_ms_p50" in figures:
        rows.append(
            (
                "fresh after",
                f"p50 {figures['freshness_ms_p50']:.1f} ms, p99 {figures['freshness_ms_p99']:.1f} ms",
            )
        )
    not_counted = [f"{figures[name]:,.0f} {words}" for name, words in _PUT_ASIDE.items() if figures.get(name)]
    flips = [
        f"{name.removeprefix('flips:')} {count:,.0f}"
        for name, count in sorted(figures.items())
        if name.startswith("flips:")
    ]
    rows += [("not counted", ", ".join(not_counted))] if not_counted else []
    rows += [("flips", ", ".join(flips))] if flips else []
    rows.append(("state written", sized(figures.get("state_bytes_written", 0))))
    written = _moment(figures.get("written_at_us", 0))
    rows.append(("offline rows", f"{figures.get('offline_rows', 0):,.0f}, written until {written}"))
    if waiting := figures.get("rows_waiting"):
        rows.append(("NOT WRITTEN", f"{waiting:,.0f} rows wait: the data folder cannot be written"))
    archived_us = figures.get("archived_at_us", 0)
    rows.append(("last archive", _moment(archived_us) if archived_us else "nothing yet"))
    return rows


def _moment(micros: float) -> str:
    return f"{datetime.fromtimestamp(micros / 1e6, UTC):%Y-%m-%d %H:%M:%SZ}"


def change_text(change: segments_pb2.SegmentChange) -> str:
    """One entry into a segment or exit from it."""
    keys = " ".join(f"{name}={text_of(value)}" for name, value in sorted(change.keys.items()))
    return (
        f"{change.time.ToJsonString()}  {'enters' if change.entered else 'leaves'} {change.segment}  {keys}"
    )
