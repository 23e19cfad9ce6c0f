"""From Feast's objects to the catalog's plain data. Reads attributes only, so it needs no import of Feast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlparse

from decision.schema import Aggregation, Catalog, Feature, FeatureRef, JoinKey, Service, ValueType, View
from server.errors import Problem
from server.feast.naming import PLAIN, Naming, split_ref, version_key

if TYPE_CHECKING:
    from pandas import DataFrame

Transform = Callable[["DataFrame"], "DataFrame"]
Named = TypeVar("Named", View, Service)
Locate = Callable[[str], tuple[str | None, int | None]]

DEFAULT_HOP_S = 300
"""Feast's own default of `tiling_hop_size`."""


class Converter:
    """Converts one repo, collecting every problem instead of stopping at the first.

    Args:
        repo: Absolute path of the repo; relative offline paths start there.
        locate: Gives file and line of a definition by its name.
        naming: Under which names the store keeps views.
    """

    def __init__(self, repo: Path, locate: Locate, naming: Naming = PLAIN) -> None:
        self.repo = repo
        self.locate = locate
        self.naming = naming
        self.problems: list[Problem] = []

    def catalog(self, project: str, contents: Any, versions: Mapping[str, Any] | None = None) -> Catalog:
        """The catalog of Feast's `RepoContents`; look at `problems` before using it.

        Args:
            project: Its name.
            contents: The repo's objects.
            versions: Views as they were and are, by `view@vN`, where the store keeps versions apart.
        """
        entities = {entity.name: entity for entity in contents.entities}
        materialized = [*contents.feature_views, *contents.stream_feature_views]
        views = [self.view(view, entities) for view in materialized]
        views += [self.on_demand_view(view) for view in contents.on_demand_feature_views]
        self.report_duplicates("view", [view.name for view in views])
        self.report_key_conflicts(views)
        self.report_shared_names(views)
        kept = self.versions(versions or {}, entities)
        by_name = {view.name: view for view in (*views, *kept)}
        services = [self.service(service, by_name) for service in contents.feature_services]
        self.report_duplicates("feature service", [service.name for service in services])
        return Catalog(
            project=project,
            views=_sorted_by_name(views),
            services=_sorted_by_name(services),
            versions=_sorted_by_name(kept),
        )

    def versions(self, versions: Mapping[str, Any], entities: dict[str, Any]) -> list[View]:
        """The versions that are stored and can be read."""
        views = [
            self.version(key, view, entities)
            for key, view in versions.items()
            if hasattr(view, "batch_source") and self.naming.keeps(view)
        ]
        return [view for view in views if view is not None]

    def version(self, key: str, view: Any, entities: dict[str, Any]) -> View | None:
        """A version of a batch or stream view under the name `key`; None of one that fits no more what there is now."""
        known = len(self.problems)
        converted = self.view(view, entities)
        if len(self.problems) == known:
            return replace(converted, name=key, stored_as=converted.stored_name)
        del self.problems[known:]
        return None

    def transforms(self, contents: Any) -> dict[str, Transform]:
        """The pandas functions that shape events into rows, by view."""
        found = {view.name: view for view in contents.stream_feature_views if view.udf is not None}
        for name, view in found.items():
            if str(getattr(view.mode, "value", view.mode)) != "pandas":
                self.report(
                    name, f"view {name!r} transforms in mode {view.mode!r}: write it for mode='pandas'"
                )
        return {name: view.udf for name, view in found.items()}

    def view(self, view: Any, entities: dict[str, Any]) -> View:
        """A batch or stream feature view."""
        if not view.features:
            self.report(view.name, f"view {view.name!r} has no features: declare them with schema=[Field(…)]")
        aggregations = tuple(_aggregation(item) for item in getattr(view, "aggregations", ()))
        join_keys = self.join_keys(view, entities)
        # A stream view that comes from a registry has its join keys among its features.
        keys = {key.name for key in join_keys}
        features = self.features(view.name, [item for item in view.features if item.name not in keys])
        timestamp_column = getattr(view.batch_source, "timestamp_field", "") or "event_timestamp"
        created_column = getattr(view.batch_source, "created_timestamp_column", "") or "created"
        names = [key.name for key in join_keys] + [feature.name for feature in features]
        converted = View(
            name=view.name,
            join_keys=join_keys,
            features=features,
            ttl_s=_seconds(view.ttl),
            aggregations=aggregations,
            hop_s=int(_seconds(view.tiling_hop_size) or DEFAULT_HOP_S) if aggregations else 0,
            stream=hasattr(view, "aggregations"),
            offline_path=self.offline_path(view.batch_source),
            timestamp_column=timestamp_column,
            created_column=created_column,
            source_columns=self.source_columns(view, (*names, timestamp_column, created_column)),
            tags=_tags(view),
            description=view.description or "",
            stored_as=self.naming.stored_as(view),
        )
        self.check_windows(converted)
        if converted.stream:
            self.check_streamed(converted)
        return converted

    def on_demand_view(self, view: Any) -> View:
        """A view that Feast computes at request time."""
        features = self.features(view.name, view.features)
        description = view.description or ""
        return View(
            name=view.name,
            join_keys=(),
            features=features,
            on_demand=True,
            tags=_tags(view),
            description=description,
        )

    def join_keys(self, view: Any, entities: dict[str, Any]) -> tuple[JoinKey, ...]:
        """The view's join keys in the order of its entities; none for an entityless view."""
        columns = {column.name: column for column in view.entity_columns}
        keys = []
        for name in view.entities:
            if name == "__dummy":
                continue
            if name not in entities:
                self.report(
                    view.name, f"view {view.name!r} uses entity {name!r}, which no module of the repo defines"
                )
                continue
            entity = entities[name]
            value_type = self.join_key_type(view.name, entity, columns.get(entity.join_key))
            keys.append(JoinKey(name=entity.join_key, value_type=value_type))
        return tuple(keys)

    def join_key_type(self, view: str, entity: Any, column: Any) -> ValueType:
        """The type of a join key, from the view's schema or else from the entity."""
        declared = column.dtype.to_value_type().name if column is not None else entity.value_type.name
        if declared == "UNKNOWN":
            self.report(
                view, f"join key {entity.join_key!r} has no type: give Entity {entity.name!r} a value_type"
            )
            return ValueType.STRING
        return self.value_type(view, entity.join_key, declared)

    def features(self, view: str, fields: Iterable[Any]) -> tuple[Feature, ...]:
        """The features of a view, in schema order."""
        return tuple(
            Feature(
                name=field.name,
                value_type=self.value_type(view, field.name, field.dtype.to_value_type().name),
                description=field.description or "",
            )
            for field in fields
        )

    def value_type(self, view: str, name: str, declared: str) -> ValueType:
        """Feast's type by name; a type that Waypost cannot store is a problem."""
        if declared in ValueType.__members__:
            return ValueType[declared]
        self.report(view, f"{view}:{name} has type {declared}, which is not supported: use {_supported()}")
        return ValueType.STRING

    def offline_path(self, source: Any) -> str | None:
        """Where the view's history lies, as an absolute path or URI."""
        path = getattr(source, "path", None)
        if not path:
            return None
        if urlparse(path).netloc:
            return str(path)
        return str(self.repo / Path(path))

    def source_columns(self, view: Any, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Each of these names that `field_mapping` gives to a column of the view's source, with that column."""
        columns: dict[str, str] = {}
        for column, name in (getattr(view.batch_source, "field_mapping", None) or {}).items():
            if name in columns:
                both = f"both {columns[name]!r} and {column!r}"
                self.report(view.name, f"the source of view {view.name!r} maps {both} to {name!r}: map one")
            columns[name] = column
        wanted = set(names)
        return tuple(
            sorted((name, column) for name, column in columns.items() if name in wanted and name != column)
        )

    def service(self, service: Any, views: dict[str, View]) -> Service:
        """A feature service; its string references are resolved against the repo's views."""
        refs = [
            FeatureRef(view=self.naming.referred(projection), feature=feature.name)
            for projection in service.feature_view_projections
            for feature in projection.features
        ]
        for text in getattr(service, "_pending_feature_refs", ()):
            refs += self.pending_refs(service.name, text, views)
        self.check_refs(service.name, refs, views)
        return Service(name=service.name, features=tuple(refs))

    def pending_refs(self, service: str, text: str, views: dict[str, View]) -> list[FeatureRef]:
        """The features that `view` or `view:feature` stands for, each also with a version."""
        name, number, feature = split_ref(text)
        view = version_key(name, number)
        if view not in views:
            self.report(service, f"feature service {service!r} names unknown view {view!r}")
            return []
        names = [feature] if feature else [item.name for item in views[view].features]
        return [FeatureRef(view=view, feature=name) for name in names]

    def check_refs(self, service: str, refs: Sequence[FeatureRef], views: dict[str, View]) -> None:
        """Report references to what the repo does not define."""
        for ref in refs:
            if ref.view not in views or ref.feature not in views[ref.view].feature_by_name:
                self.report(
                    service, f"feature service {service!r} names unknown feature {ref.view}:{ref.feature}"
                )

    def check_streamed(self, view: View) -> None:
        """Report features of a stream view that the materializer could not compute."""
        for feature in view.features:
            if feature.value_type.opaque:
                self.report(
                    view.name,
                    f"{view.name}:{feature.name} is {feature.value_type.name}, which no stream view computes: "
                    "push it to a FeatureView with a PushSource",
                )

    def check_windows(self, view: View) -> None:
        """Report aggregations that the window kernels could not compute as written."""
        if not view.aggregations:
            return
        produced = {aggregation.feature for aggregation in view.aggregations}
        for aggregation in view.aggregations:
            self.check_aggregation(view, aggregation)
        for feature in view.features:
            if feature.name not in produced:
                self.report(
                    view.name, f"{view.name}:{feature.name} has no Aggregation: it would never get a value"
                )

    def check_aggregation(self, view: View, aggregation: Aggregation) -> None:
        """Report an aggregation without a field, or with a window that is no multiple of the hop."""
        if aggregation.feature not in view.feature_by_name:
            self.report(
                view.name,
                f"view {view.name!r} aggregates into {aggregation.feature!r}, which its schema lacks: "
                f"add Field(name={aggregation.feature!r}, …)",
            )
        if aggregation.window_s is not None and aggregation.window_s % view.hop_s:
            self.report(
                view.name,
                f"window of {view.name}:{aggregation.feature} is {aggregation.window_s} s, "
                f"not a multiple of the view's tiling_hop_size of {view.hop_s} s",
            )

    def report_key_conflicts(self, views: Sequence[View]) -> None:
        """Report join keys that have different types in different views."""
        seen: dict[str, tuple[ValueType, str]] = {}
        for view in views:
            for key in view.join_keys:
                value_type, first = seen.setdefault(key.name, (key.value_type, view.name))
                if value_type != key.value_type:
                    self.report(
                        view.name,
                        f"join key {key.name!r} is {key.value_type.name} in {view.name!r} "
                        f"and {value_type.name} in {first!r}: use one type",
                    )

    def report_shared_names(self, views: Sequence[View]) -> None:
        """Report views that have the name under which the store keeps a version of another."""
        owners = {view.stored_as: view.name for view in views if view.stored_as}
        for view in views:
            if view.name in owners:
                self.report(
                    view.name,
                    f"view {view.name!r} is stored under the name that the current version of {owners[view.name]!r} "
                    "has, and each would overwrite the other: give it another name",
                )

    def report_duplicates(self, kind: str, names: Sequence[str]) -> None:
        """Report names that are defined more than once."""
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.report(name, f"{kind} {name!r} is defined more than once")

    def report(self, definition: str, message: str) -> None:
        """Note a problem of the named definition."""
        file, line = self.locate(definition)
        self.problems.append(Problem(message=message, file=file, line=line))


def _aggregation(item: Any) -> Aggregation:
    window = item.time_window
    return Aggregation(
        feature=item.resolved_name(window),
        column=item.column,
        function=item.function,
        window_s=int(window.total_seconds()) if window else None,
    )


def _seconds(duration: timedelta | None) -> float:
    return duration.total_seconds() if duration else 0


def _tags(definition: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((definition.tags or {}).items()))


def _supported() -> str:
    return ", ".join(value_type.name for value_type in ValueType)


def _sorted_by_name(items: Iterable[Named]) -> tuple[Named, ...]:
    return tuple(sorted(items, key=lambda item: item.name))
