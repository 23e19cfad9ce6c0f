"""What a server is made of; `server.wiring` builds it, `server.grpc_server` serves it."""

from __future__ import annotations

from dataclasses import dataclass

from online.read import OnlineReader
from server.bundles import BundleKeeper
from server.clock import Clock
from server.config import Settings
from server.decision_log import DecisionLog
from server.explainer import Explainer
from server.feast.answering import OnlineFeatures
from server.feast.grpc_handlers import FeastHandlers
from server.feast.http_routes import FeastRoutes
from server.feast.on_demand import Transformer
from server.feast.refresh import DefinitionsKeeper, Refresher
from server.feast.writing import FeatureWriter
from server.metrics import Metrics
from server.services.admin import AdminService, Announce, Building, Partitions
from server.services.dead_letters import DeadLetterDesk
from server.services.decision import DecisionService
from server.services.events import EventService
from server.services.features import FeatureService
from server.services.segments import SegmentService
from streaming.changes import ChangeLog
from streaming.dead_letters import DeadLetters
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
        letters: The dead-letter log.
        partitions: How far the log is applied.
        building: How far views are that are built from the archive.
        announce: Tells materializers the version of a policy that took over.
        explainer: Puts decisions into words.
        feast: What serves Feast's own API.
    """

    settings: Settings
    events: EventSchema
    bundles: BundleKeeper
    reader: OnlineReader
    log: EventLog
    changes: ChangeLog
    letters: DeadLetters
    clock: Clock
    partitions: Partitions
    building: Building
    announce: Announce
    decision_log: DecisionLog
    metrics: Metrics
    explainer: Explainer
    feast: FeastParts


@dataclass(frozen=True, slots=True, kw_only=True)
class FeastParts:
    """The parts behind Feast's own API.

    Attributes:
        definitions: What can be asked for.
        refresher: Keeps the definitions current.
        transformer: Runs on-demand functions.
        writer: Takes pushes.
    """

    definitions: DefinitionsKeeper
    refresher: Refresher
    transformer: Transformer
    writer: FeatureWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The servicers of one server."""

    decision: DecisionService
    features: FeatureService
    events: EventService
    admin: AdminService
    segments: SegmentService
    feast_handlers: FeastHandlers
    feast_routes: FeastRoutes


def build_services(app: Application) -> Services:
    """Servicers over the parts of an application."""
    limits, metrics, bundles = app.settings.limits, app.metrics, app.bundles
    online_features = OnlineFeatures(
        lambda: app.feast.definitions.current,
        app.reader,
        app.clock,
        limits,
        app.feast.transformer,
        app.settings.feast.answers,
    )
    decision = DecisionService(
        bundles, app.reader, app.clock, app.decision_log, limits, metrics, app.explainer
    )
    events = EventService(
        app.events, lambda: bundles.current.customer_type, app.log, app.letters, app.clock, limits, metrics
    )
    return Services(
        decision=decision,
        features=FeatureService(bundles, app.reader, app.clock, limits),
        events=events,
        admin=AdminService(
            bundles,
            app.clock,
            app.log,
            app.partitions,
            app.announce,
            decision,
            app.decision_log,
            DeadLetterDesk(app.letters, events, app.events, limits.max_events),
            building=app.building,
            refused=metrics.refused_events,
        ),
        segments=SegmentService(bundles, app.changes),
        feast_handlers=FeastHandlers(online_features, app.feast.writer),
        feast_routes=FeastRoutes(online_features, app.feast.writer),
    )
