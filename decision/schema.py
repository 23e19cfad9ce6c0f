"""What a feature repo defines, as plain immutable data.

Feast's objects stop at the loader (`server/repo.py`); everything behind it, from the window kernels to the rule
compiler, works on this catalog and never imports Feast.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property


class ValueType(enum.IntEnum):
    """Feast's value types, with Feast's numbers (`feast.types.ValueType.Enum`)."""

    BYTES = 1
    STRING = 2
    INT32 = 3
    INT64 = 4
    DOUBLE = 5
    FLOAT = 6
    BOOL = 7
    UNIX_TIMESTAMP = 8
    BYTES_LIST = 11
    STRING_LIST = 12
    INT32_LIST = 13
    INT64_LIST = 14
    DOUBLE_LIST = 15
    FLOAT_LIST = 16
    BOOL_LIST = 17
    UNIX_TIMESTAMP_LIST = 18
    MAP = 20
    MAP_LIST = 21
    BYTES_SET = 22
    STRING_SET = 23
    INT32_SET = 24
    INT64_SET = 25
    DOUBLE_SET = 26
    FLOAT_SET = 27
    BOOL_SET = 28
    UNIX_TIMESTAMP_SET = 29
    JSON = 32
    JSON_LIST = 33
    STRUCT = 34
    STRUCT_LIST = 35
    UUID = 36
    TIME_UUID = 37
    UUID_LIST = 38
    TIME_UUID_LIST = 39
    UUID_SET = 40
    TIME_UUID_SET = 41
    VALUE_LIST = 42
    VALUE_SET = 43
    DECIMAL = 44
    DECIMAL_LIST = 45
    DECIMAL_SET = 46
    SCALAR_MAP = 47
    ZONED_TIMESTAMP = 48

    @property
    def opaque(self) -> bool:
        """Whether values of it pass through as stored: no rule, model or window reads them."""
        return self > ValueType.UNIX_TIMESTAMP_LIST


class DType(enum.StrEnum):
    """Types of the rule language. Timestamps are int64 microseconds since the Unix epoch, UTC.

    INTERVAL, int64 microseconds, only arises inside expressions: no feature or context has it.
    """

    BOOL = "bool"
    INT64 = "int64"
    FLOAT64 = "float64"
    STRING = "string"
    TIMESTAMP = "timestamp"
    INTERVAL = "interval"
    BOOL_LIST = "bool_list"
    INT64_LIST = "int64_list"
    FLOAT64_LIST = "float64_list"
    STRING_LIST = "string_list"
    TIMESTAMP_LIST = "timestamp_list"


DTYPES: dict[ValueType, DType] = {
    ValueType.STRING: DType.STRING,
    ValueType.INT32: DType.INT64,
    ValueType.INT64: DType.INT64,
    ValueType.DOUBLE: DType.FLOAT64,
    ValueType.FLOAT: DType.FLOAT64,
    ValueType.BOOL: DType.BOOL,
    ValueType.UNIX_TIMESTAMP: DType.TIMESTAMP,
    ValueType.STRING_LIST: DType.STRING_LIST,
    ValueType.INT32_LIST: DType.INT64_LIST,
    ValueType.INT64_LIST: DType.INT64_LIST,
    ValueType.DOUBLE_LIST: DType.FLOAT64_LIST,
    ValueType.FLOAT_LIST: DType.FLOAT64_LIST,
    ValueType.BOOL_LIST: DType.BOOL_LIST,
    ValueType.UNIX_TIMESTAMP_LIST: DType.TIMESTAMP_LIST,
}

Scalar = bool | int | float | str | bytes
Value = Scalar | tuple[Scalar, ...] | None
"""A feature's value in Python: timestamps are int microseconds, lists are tuples, NULL is None."""


class Status(enum.IntEnum):
    """What is known about one value; the numbers are those of `waypost.features.v1.FieldStatus`.

    Only PRESENT and STALE carry a value. A missing value is never replaced by a silent zero.
    """

    PRESENT = 1
    NULL = 2
    NOT_FOUND = 3
    STALE = 4
    TIMEOUT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinKey:
    """One join key of an entity: its column name and Feast type."""

    name: str
    value_type: ValueType


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature of a view."""

    name: str
    value_type: ValueType
    description: str = ""

    @property
    def dtype(self) -> DType | None:
        """The rule language's type, or None where the language has none (bytes)."""
        return DTYPES.get(self.value_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """One windowed feature of a stream view.

    Attributes:
        feature: Name of the feature it produces.
        column: Column of the transformed event it reads.
        function: sum, count, mean, min, max, first, last, ….
        window_s: Width of the sliding window in seconds, a multiple of the view's hop; None covers all time.
    """

    feature: str
    column: str
    function: str
    window_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A Feast feature view.

    Attributes:
        name: Unique in the project.
        join_keys: In Feast's order; empty for an entityless view.
        features: The features, without join keys.
        ttl_s: Age in seconds past which a value is STALE; 0 is never.
        aggregations: Empty unless the view is a stream view with windows.
        hop_s: Width of a tile in seconds; 0 where there are no windows.
        stream: Fed by events (a StreamFeatureView), not by a batch source alone.
        on_demand: Computed at request time; no rule or model may read it.
        offline_path: Parquet files (a glob is allowed) that hold the log of its values, or None.
        timestamp_column: Name of the event timestamp in those files.
        source_columns: (name, name in those files) of join keys, features and timestamps that go by another name there.
        created_column: Name of the time at which a row became readable; by it, of rows that share keys and event
            timestamp, the latest counts.
        tags: Feast tags. `waypost.role = segments` marks the view that stores segment membership.
        stored_as: What the online store calls it, where that is not its name: Feast keeps versions of a view apart.
    """

    name: str
    join_keys: tuple[JoinKey, ...]
    features: tuple[Feature, ...]
    ttl_s: float = 0
    aggregations: tuple[Aggregation, ...] = ()
    hop_s: int = 0
    stream: bool = False
    on_demand: bool = False
    offline_path: str | None = None
    timestamp_column: str = "event_timestamp"
    created_column: str = "created"
    source_columns: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    description: str = ""
    stored_as: str = ""

    @property
    def stored_name(self) -> str:
        """The name that its values and timestamp have in the online store."""
        return self.stored_as or self.name

    @property
    def feature_by_name(self) -> dict[str, Feature]:
        return {feature.name: feature for feature in self.features}

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.join_keys)

    def tag(self, name: str) -> str | None:
        return dict(self.tags).get(name)

    def source_column(self, name: str) -> str:
        """The name in the offline files of a join key, feature or timestamp."""
        return dict(self.source_columns).get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FeatureRef:
    """A feature by view and name, written `view.feature` in rules and `view:feature` in Feast."""

    view: str
    feature: str

    def __str__(self) -> str:
        return f"{self.view}.{self.feature}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Feast feature service: an ordered list of features, the input of a model or placement."""

    name: str
    features: tuple[FeatureRef, ...]


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All definitions of one project.

    Attributes:
        versions: Older and current versions of views, called `view@vN`, for services that pin one; nothing else counts
            them as views.
    """

    project: str
    views: tuple[View, ...]
    services: tuple[Service, ...] = ()
    versions: tuple[View, ...] = ()

    @cached_property
    def view_by_name(self) -> dict[str, View]:
        return {view.name: view for view in self.stored_views}

    @property
    def stored_views(self) -> tuple[View, ...]:
        """All that can be read, versions among them."""
        return (*self.views, *self.versions)

    def stored_under(self, names: Mapping[str, str]) -> Catalog:
        """The same views, each stored as this mapping of their names says, where it does."""
        views = [replace(view, stored_as=names.get(view.name, view.stored_as)) for view in self.views]
        return replace(self, views=tuple(views))

    @cached_property
    def service_by_name(self) -> dict[str, Service]:
        return {service.name: service for service in self.services}

    def feature(self, ref: FeatureRef) -> Feature:
        """Look a feature up; KeyError where the view or the feature is unknown."""
        return self.view_by_name[ref.view].feature_by_name[ref.feature]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the canonical JSON of the catalog, in hex; how the offline files lie is no part of it.

        Names in the store and versions are, where there are any.
        """
        definitions = asdict(self)
        for view in (*definitions["views"], *definitions["versions"]):
            del view["offline_path"], view["source_columns"]
            if not view["stored_as"]:
                del view["stored_as"]
        if not definitions["versions"]:
            del definitions["versions"]
        text = json.dumps(definitions, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()
