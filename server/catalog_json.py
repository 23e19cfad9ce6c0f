"""The catalog as JSON and back, for bundles that are kept for replays."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from decision.schema import Aggregation, Catalog, Feature, FeatureRef, JoinKey, Service, ValueType, View


def catalog_to_json(catalog: Catalog) -> str:
    """The catalog as JSON text; `catalog_from_json` gives an equal catalog."""
    return json.dumps(asdict(catalog), indent=1, sort_keys=True)


def catalog_from_json(text: str) -> Catalog:
    """The catalog that `catalog_to_json` wrote."""
    data = json.loads(text)
    return Catalog(
        project=data["project"],
        views=tuple(_view(view) for view in data["views"]),
        services=tuple(_service(service) for service in data["services"]),
        versions=tuple(_view(view) for view in data.get("versions", ())),
    )


def _view(data: dict[str, Any]) -> View:
    lists = {
        "join_keys": tuple(JoinKey(**_typed(key)) for key in data["join_keys"]),
        "features": tuple(Feature(**_typed(feature)) for feature in data["features"]),
        "aggregations": tuple(Aggregation(**aggregation) for aggregation in data["aggregations"]),
        "tags": tuple((name, value) for name, value in data["tags"]),
        "source_columns": tuple((name, column) for name, column in data.get("source_columns", ())),
    }
    return View(**(data | lists))


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"value_type": ValueType(data["value_type"])}


def _service(data: dict[str, Any]) -> Service:
    return Service(name=data["name"], features=tuple(FeatureRef(**ref) for ref in data["features"]))
