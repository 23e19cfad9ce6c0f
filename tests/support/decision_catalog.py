"""A catalog and models to decide with, for tests of whole decisions: everything that a policy can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from decision.schema import Catalog, DType, Feature, FeatureRef, JoinKey, ValueType, View

NOW_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
KEY = "customer_id"
_CUSTOMER = JoinKey(name=KEY, value_type=ValueType.STRING)
_CATEGORY = JoinKey(name="category", value_type=ValueType.STRING)
_ROLE = (("waypost.role", "segments"),)


def _view(name: str, keys: Sequence[JoinKey], tags: Any = (), **types: ValueType) -> View:
    features = tuple(Feature(name=feature, value_type=kind) for feature, kind in types.items())
    return View(name=name, join_keys=tuple(keys), features=features, tags=tags)


CATALOG = Catalog(
    project="oracle",
    views=(
        _view(
            "profile",
            [_CUSTOMER],
            age=ValueType.INT64,
            spend=ValueType.DOUBLE,
            city=ValueType.STRING,
            town=ValueType.STRING,
            member=ValueType.BOOL,
            seen_at=ValueType.UNIX_TIMESTAMP,
            clubs=ValueType.STRING_LIST,
            shown=ValueType.INT64,
        ),
        _view("weather", [], raining=ValueType.BOOL, degrees=ValueType.DOUBLE),
        _view("segments", [_CUSTOMER], _ROLE, vip=ValueType.BOOL, lapsed=ValueType.BOOL),
        _view(
            "affinity",
            [_CUSTOMER, _CATEGORY],
            spend=ValueType.DOUBLE,
            mood=ValueType.STRING,
            last_at=ValueType.UNIX_TIMESTAMP,
            shown=ValueType.INT64,
            clicks=ValueType.INT64,
            misses=ValueType.DOUBLE,
        ),
        _view("popularity", [_CATEGORY], rank=ValueType.INT64),
        _view("heat", [_CATEGORY], _ROLE, hot=ValueType.BOOL),
    ),
)
DTYPES = {
    f"{view.name}.{feature.name}": cast("DType", feature.dtype)
    for view in CATALOG.views
    for feature in view.features
}
CONTEXT = {"page": DType.STRING, "basket": DType.FLOAT64, "hour": DType.INT64}
SEGMENTS = {
    "vip": ("segments", KEY, "profile.spend"),
    "lapsed": ("segments", KEY, "profile.age"),
    "hot": ("heat", "category", "popularity.rank"),
}
LABELS = ("browsers", "high intent", "loyal")

NAMES = ("a", "B", "b", "ä", "offer", "NOT", "🥛 milk", "zebra")
TAGS = ("x", "y", "all")
CITIES = ("berlin", "bonn", "oslo", "rome")
POOLS: Mapping[DType, tuple[Any, ...]] = {
    DType.BOOL: (True, False),
    DType.INT64: (0, 1, 2, 3, 5, 20, -1, 2**53 + 1, 2**63 - 1, -(2**63)),
    DType.FLOAT64: (0.0, -0.0, 0.5, 1.5, 2.0, 3.0, -4.25, 1e300, math.nan, math.inf, -math.inf),
    DType.STRING: ("", "a", "ab", "é", "🥛", *CITIES, "paris"),
    DType.TIMESTAMP: (
        0,
        NOW_US,
        NOW_US - 1,
        NOW_US - HOUR_US,
        NOW_US - 40 * HOUR_US,
        NOW_US + HOUR_US,
        -(2**63),
    ),
    DType.STRING_LIST: ((), ("a",), ("a", "ab"), ("é", "oslo")),
}
"""What a feature may hold; what conditions compare with is drawn from the same, so that all truths come up."""

CUSTOMER_NAMES = {
    **{
        name: dtype
        for name, dtype in DTYPES.items()
        if name.split(".")[0] in {"profile", "weather", "segments"}
    },
    **{f"context.{name}": dtype for name, dtype in CONTEXT.items()},
    "context.customer": DType.STRING,
    "label(personas)": DType.STRING,
    "label(ghosts)": DType.STRING,
}
OFFER_NAMES = {
    **{name: dtype for name, dtype in DTYPES.items() if name not in CUSTOMER_NAMES},
    "offer.margin": DType.FLOAT64,
    "offer.kind": DType.STRING,
    "offer.tags": DType.STRING_LIST,
}


def ref_of(name: str) -> FeatureRef:
    """The feature of a canonical name."""
    view, _, feature = name.partition(".")
    return FeatureRef(view=view, feature=feature)
