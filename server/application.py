"""What a server is made of; `server.wiring` builds it, `server.grpc_server` serves it."""

from __future__ import annotations

from dataclasses import dataclass

from online.read import OnlineReader
from server.bundles import BundleKeeper
from server.clock import Clock
from server.config import Settings
from server.decision_log import DecisionLog
from server.metrics import Metrics
from server.services.admin import AdminService, Announce, Partitions
from server.services.decision import DecisionService
from server.services.events import EventService
from server.services.features import FeatureService
from server.services.segments import SegmentService
from streaming.changes import ChangeLog
from streaming.events import EventSchema
from streaming.log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The parts behind the services.

    Attributes:
        settings: Bounds and deadlines.
        events: The repo's event types.
        bundles: What decides.
        reader: The online store.
        log: Where events go.
        clock: Logical time.
        changes: The log of segment changes.
        partitions: How far the log is applied.
        announce: Tells materializers the version of a policy that took over.
    """

    settings: Settings
    events: EventSchema
    bundles: BundleKeeper
    reader: OnlineReader
    log: EventLog
    changes: ChangeLog
    clock: Clock
    partitions: Partitions
    announce: Announce
    decision_log: DecisionLog
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The servicers of one server."""

    decision: DecisionService
    features: FeatureService
    events: EventService
    admin: AdminService
    segments: SegmentService


def build_services(app: Application) -> Services:
    """Servicers over the parts of an application."""
    limits, metrics, bundles = app.settings.limits, app.metrics, app.bundles
    decision = DecisionService(bundles, app.reader, app.clock, app.decision_log, limits, metrics)
    return Services(
        decision=decision,
        features=FeatureService(bundles, app.reader, app.clock, limits),
        events=EventService(
            app.events, lambda: bundles.current.customer_type, app.log, app.clock, limits, metrics
        ),
        admin=AdminService(
            bundles, app.clock, app.log, app.partitions, app.announce, decision, app.decision_log
        ),
        segments=SegmentService(bundles, app.changes),
    )
