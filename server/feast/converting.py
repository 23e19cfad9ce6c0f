"""From Feast's objects to `Definitions`. Reads attributes only, so it needs no import of Feast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from decision.schema import Catalog, Feature, ValueType, View
from server.feast.definitions import Definitions, Function, OnDemandView, Projection, ServedView
from server.feast.naming import PLAIN, Naming, split_ref, version_key
from server.feast_objects import Converter

MODES = ("python", "pandas")
SERVED_STATES = frozenset({"STATE_UNSPECIFIED", "AVAILABLE_ONLINE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How the registry's settings say that views are served.

    Attributes:
        naming: Under which names the store keeps them.
        while_materializing: `registry.serve_features_while_materializing`.
    """

    naming: Naming = PLAIN
    while_materializing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Feast's objects of one project, as a repo defines them or a registry holds them.

    Attributes:
        versions: Older and current versions of views, by `name@vN`.
    """

    entities: Iterable[Any]
    feature_views: Iterable[Any]
    stream_feature_views: Iterable[Any]
    on_demand_feature_views: Iterable[Any]
    feature_services: Iterable[Any]
    versions: Mapping[str, Any] = field(default_factory=dict)


def snapshot_of(contents: Any, versions: Mapping[str, Any]) -> Snapshot:
    """The objects that a repo's files define, Feast's `RepoContents`, beside the versions of its registry."""
    return Snapshot(
        entities=contents.entities,
        feature_views=contents.feature_views,
        stream_feature_views=contents.stream_feature_views,
        on_demand_feature_views=contents.on_demand_feature_views,
        feature_services=contents.feature_services,
        versions=versions,
    )


def read_registry(store: Any) -> Snapshot:
    """The objects that a refreshed `FeatureStore` finds in its registry, without older versions."""
    registry, project = store.registry, store.project
    return Snapshot(
        entities=registry.list_entities(project, allow_cache=True),
        feature_views=registry.list_feature_views(project, allow_cache=True),
        stream_feature_views=registry.list_stream_feature_views(project, allow_cache=True),
        on_demand_feature_views=registry.list_on_demand_feature_views(project, allow_cache=True),
        feature_services=registry.list_feature_services(project, allow_cache=True),
    )


def definitions_of(project: str, snapshot: Snapshot, converter: Converter, serving: Serving) -> Definitions:
    """Everything that can be asked for; look at the converter's problems before using it."""
    return _Reading(project, snapshot, converter, serving).definitions()


class _Reading:
    """One pass over a snapshot."""

    def __init__(self, project: str, snapshot: Snapshot, converter: Converter, serving: Serving) -> None:
        self._project = project
        self._snapshot = snapshot
        self._converter = converter
        self._serving = serving
        self._naming = serving.naming
        self._entities = {entity.name: entity for entity in snapshot.entities}
        self._views: dict[str, ServedView] = {}
        self._on_demand: dict[str, OnDemandView] = {}

    def definitions(self) -> Definitions:
        snapshot = self._snapshot
        for view in (*snapshot.feature_views, *snapshot.stream_feature_views):
            self._views[view.name] = self._served(view, self._converter.view(view, self._entities))
        for view in snapshot.on_demand_feature_views:
            self._take_on_demand(view.name, view)
        for key, view in snapshot.versions.items():
            self._take_version(key, view)
        services = {service.name: self._service(service) for service in snapshot.feature_services}
        return Definitions(
            catalog=Catalog(project=self._project, views=tuple(item.view for item in self._views.values())),
            views=self._views,
            on_demand=self._on_demand,
            services=services,
            versioned=self._naming.versioned,
        )

    def _take_version(self, key: str, view: Any) -> None:
        if hasattr(view, "source_request_sources"):
            self._take_on_demand(key, view)
            return
        converted = self._converter.version(key, view, self._entities)
        if converted is not None:
            self._views[key] = self._served(view, converted)

    def _take_on_demand(self, key: str, view: Any) -> None:
        if view.write_to_online_store:
            self._views[key] = replace(self._served(view, self._written(key, view)), computed_on_write=True)
            return
        self._on_demand[key] = self._computed(view)

    def _written(self, key: str, view: Any) -> View:
        """An on-demand view whose results are stored."""
        return View(
            name=key,
            join_keys=self._converter.join_keys(view, self._entities),
            features=self._converter.features(view.name, view.features),
            stored_as=self._naming.stored_as(view) or ("" if key == view.name else view.name),
        )

    def _served(self, view: Any, converted: View) -> ServedView:
        return ServedView(
            name=view.name,
            view=converted,
            version=self._naming.version(view),
            entities=tuple(
                (entity, self._entities[entity].join_key)
                for entity in view.entities
                if entity in self._entities
            ),
            refusal=self._refusal(view),
            push_source=_push_source(view),
        )

    def _refusal(self, view: Any) -> str | None:
        if not self._naming.keeps(view):
            return (
                f"of {view.name!r}, which Waypost computes, there is the current version alone: ask for it "
                "without a version"
            )
        if not getattr(view, "enabled", True):
            return f"feature view {view.name!r} is disabled: enable it in the registry"
        state = getattr(getattr(view, "state", None), "name", "STATE_UNSPECIFIED")
        served = state in SERVED_STATES or (state == "MATERIALIZING" and self._serving.while_materializing)
        if served:
            return None
        hint = "; registry.serve_features_while_materializing lets it" if state == "MATERIALIZING" else ""
        return f"feature view {view.name!r} is {state} and does not serve{hint}"

    def _computed(self, view: Any) -> OnDemandView:
        mode = str(getattr(view.mode, "value", view.mode))
        function = _function(view)
        refusal = self._refusal(view)
        if mode not in MODES or function is None or getattr(view, "aggregations", None):
            refusal = (
                f"on-demand view {view.name!r} has no function of mode 'python' or 'pandas' (it is {mode!r})"
            )
        return OnDemandView(
            name=view.name,
            features=self._converter.features(view.name, view.features),
            mode=mode,
            singleton=bool(view.singleton),
            function=function,
            sources=tuple(_projection(item) for item in view.source_feature_view_projections.values()),
            request=self._request(view),
            version=self._naming.version(view),
            refusal=refusal,
        )

    def _request(self, view: Any) -> tuple[Feature, ...]:
        fields = [item for source in view.source_request_sources.values() for item in source.schema]
        return tuple(
            Feature(name=item.name, value_type=ValueType[item.dtype.to_value_type().name]) for item in fields
        )

    def _service(self, service: Any) -> tuple[Projection, ...]:
        projections = [_projection(item) for item in service.feature_view_projections]
        for text in getattr(service, "_pending_feature_refs", None) or ():
            name, number, feature = split_ref(text)
            view = version_key(name, number)
            if self._views.get(view) or self._on_demand.get(view):
                names = (feature,) if feature else self._all_names(view)
                projections.append(Projection(view=view, alias=view, features=names))
        return tuple(projections)

    def _all_names(self, view: str) -> tuple[str, ...]:
        served = self._views.get(view)
        features = served.view.features if served is not None else self._on_demand[view].features
        return tuple(feature.name for feature in features)


def _projection(item: Any) -> Projection:
    return Projection(
        view=version_key(item.name, getattr(item, "version_tag", None)),
        alias=item.name_to_use(),
        features=tuple(feature.name for feature in item.features),
        columns=tuple(sorted(item.join_key_map.items())),
    )


def _push_source(view: Any) -> str | None:
    source = getattr(view, "stream_source", None)
    return str(source.name) if source is not None and type(source).__name__ == "PushSource" else None


def _function(view: Any) -> Function | None:
    function: Function | None = getattr(view.feature_transformation, "udf", None)
    return function
