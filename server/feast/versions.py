"""What Feast's registry says of the versions of views. Reads attributes and calls methods: no import of Feast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.feast.naming import version_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The versions of a project's views.

    Attributes:
        current: The number of the version that is served, by view.
        views: Feast's object of each version, by `view@vN`.
    """

    current: Mapping[str, int] = field(default_factory=dict)
    views: Mapping[str, Any] = field(default_factory=dict)


def current_numbers(store: Any) -> dict[str, int]:
    """The version that is served of each view that can be stored; needs none of the repo's code."""
    registry, project = store.registry, store.project
    views = [
        *registry.list_feature_views(project, allow_cache=True),
        *registry.list_stream_feature_views(project, allow_cache=True, skip_udf=True),
    ]
    return {view.name: int(view.current_version_number or 0) for view in views}


def read_versions(store: Any) -> Versions:
    """What a refreshed `FeatureStore` finds in its registry; nothing where versions are off."""
    registry, project = store.registry, store.project
    if not getattr(registry, "enable_online_versioning", False):
        return Versions()
    views = [
        *registry.list_feature_views(project, allow_cache=True),
        *registry.list_stream_feature_views(project, allow_cache=True),
        *registry.list_on_demand_feature_views(project, allow_cache=True),
    ]
    found = {
        version_key(view.name, number): old for view in views for number, old in _history(store, view.name)
    }
    return Versions(
        current={view.name: int(view.current_version_number or 0) for view in views},
        views=found,
    )


def _history(store: Any, view: str) -> Iterator[tuple[int, Any]]:
    """The versions of a view that can still be read; code of an old one may be of another Python.

    Raises:
        Exception: Of any kind, where the registry does not answer.
    """
    try:
        records = store.registry.list_feature_view_versions(view, store.project)
    except NotImplementedError:  # registries that do not keep them have the current ones alone
        return
    for record in records:
        number = int(record["version_number"])
        try:
            yield (
                number,
                store.registry.get_feature_view_by_version(view, store.project, number, allow_cache=True),
            )
        except Exception:  # noqa: BLE001 - unpickling runs whatever was written
            # A registry that is lost meanwhile says so here, too: its versions must not be taken for gone.
            store.registry.list_feature_view_versions(view, store.project)


def with_versions(contents: Any, versions: Versions) -> Any:
    """A repo's objects with the numbers that the registry gives them.

    A view that its file pins (`version="v1"`) is the registry's, as it is for Feast: the file describes another one.
    """
    for view in (*contents.feature_views, *contents.stream_feature_views, *contents.on_demand_feature_views):
        view.current_version_number = versions.current.get(view.name, 0)
    return contents._replace(feature_views=[_pinned(view, versions) for view in contents.feature_views])


def _pinned(view: Any, versions: Versions) -> Any:
    if str(view.version or "latest").lower() == "latest":
        return view
    return versions.views.get(version_key(view.name, view.current_version_number), view)


def computed_views(contents: Any, customer: str, *, has_properties: bool) -> frozenset[str]:
    """Names of the views that the materializer writes: what events feed, and the views that hold segments.

    Args:
        contents: Feast's objects, as files define them or a registry holds them.
        customer: Join key of the entity that events belong to.
        has_properties: Whether events bring anything to a view without a function.
    """
    streams = list(contents.stream_feature_views)
    segments = [
        view for view in (*contents.feature_views, *streams) if view.tags.get("waypost.role") == "segments"
    ]
    keys = {entity.name: entity.join_key for entity in contents.entities}
    by_customer = [
        view for view in (*streams, *segments) if [keys.get(name) for name in view.entities] == [customer]
    ]
    held = {view.name for view in segments}
    if not by_customer:  # no materializer runs
        return frozenset(held)
    return frozenset(held | {view.name for view in streams if has_properties or view.udf is not None})
