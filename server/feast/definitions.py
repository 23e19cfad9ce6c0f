"""What clients of Feast's API can ask for and write to, as plain immutable data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decision.schema import Catalog, Feature, View

Function = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A view as a feature service or an on-demand view takes it.

    Attributes:
        view: Key into `Definitions.views` or `Definitions.on_demand`.
        alias: What the view is called in the response.
        features: Names, in order.
        columns: The request's column for each of the view's join keys that goes by another name.
    """

    view: str
    alias: str
    features: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedView:
    """A stored view.

    Attributes:
        name: Its name, without a version.
        view: The catalog's view, under the name by which it is found.
        version: Feast's version number; 0 where versions are off.
        entities: Join key of each entity name: Feast lets clients send either.
        refusal: Why it cannot be read now, or None.
        push_source: Name of the push source that feeds it, or None.
        computed_on_write: An on-demand view whose results are stored.
    """

    name: str
    view: View
    version: int = 0
    entities: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None
    push_source: str | None = None
    computed_on_write: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandView:
    """A view that a function computes at request time.

    Attributes:
        mode: `python` or `pandas`.
        function: None where `refusal` says why there is none.
        singleton: The function takes one row, not lists (python mode only).
        sources: What it reads from the store.
        request: What it takes from the request.
    """

    name: str
    features: tuple[Feature, ...]
    mode: str
    singleton: bool
    function: Function | None = field(repr=False)
    sources: tuple[Projection, ...]
    request: tuple[Feature, ...]
    version: int = 0
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """All of one project; replaced as a whole.

    Attributes:
        catalog: The stored views, versions among them.
        views: Stored views by name, and by `name@vN` where versions are on.
        on_demand: Views computed at request time, by name and by `name@vN`.
        services: Projections of each feature service.
        versioned: Whether references may name a version.
    """

    catalog: Catalog
    views: Mapping[str, ServedView]
    on_demand: Mapping[str, OnDemandView]
    services: Mapping[str, tuple[Projection, ...]]
    versioned: bool = False

    def feature(self, view: str, name: str) -> Feature | None:
        """A feature of a stored or computed view; None where there is none."""
        served = self.views.get(view)
        if served is not None:
            return served.view.feature_by_name.get(name)
        computed = self.on_demand.get(view)
        if computed is None:
            return None
        return next((feature for feature in computed.features if feature.name == name), None)

    def feature_names(self, view: str) -> tuple[str, ...]:
        """The features of a view that is there."""
        served = self.views.get(view)
        features = served.view.features if served is not None else self.on_demand[view].features
        return tuple(feature.name for feature in features)

    def fed_by(self, push_source: str) -> tuple[ServedView, ...]:
        """The views that a push source feeds."""
        return tuple(
            served
            for key, served in self.views.items()
            if served.push_source == push_source and key == served.name
        )
