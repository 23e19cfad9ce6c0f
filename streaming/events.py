"""Event types as the repo declares them in `events.yaml`, and the check every event passes before it is logged."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from google.protobuf.struct_pb2 import Value as StructValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from decision.schema import Value
from streaming.errors import EventRefused, EventSchemaError
from streaming.gates import Gates, OutlierGate, RateGate
from streaming.normalize import Conversion, Step, normalized
from waypost.events.v1 import events_pb2

MAX_EVENT_ID_BYTES = 64
MAX_CUSTOMER_ID_BYTES = 256
MAX_STRING_LENGTH = 1024
MAX_SHOWN_LENGTH = 100
EARLIEST_EVENT_US = 0
SCHEMA_FILE = "events.yaml"

_ALLOWED_TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "int64": int, "double": (int, float)}

PropertyType = Literal["string", "int64", "double", "bool", "timestamp"]


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a repeated key is an error: otherwise the last one wins without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class PropertySchema(BaseModel):
    """One declared property of an event type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: PropertyType
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int | float, ...] | None = None
    max_length: int = Field(default=MAX_STRING_LENGTH, ge=1, le=65_536)
    normalize: tuple[Step, ...] = ()
    convert: Conversion | None = None
    outlier: OutlierGate | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fits_its_type(self) -> PropertySchema:
        bounds = (self.minimum, self.maximum)
        if bounds != (None, None) and self.type not in {"int64", "double"}:
            raise ValueError(f"minimum and maximum bound numbers, not a {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}: nothing would fit")
        if self.normalize and self.type != "string":
            raise ValueError(f"normalize is for strings, not a {self.type}")
        if (self.convert or self.outlier) and self.type not in {"int64", "double"}:
            raise ValueError(f"convert and outlier are for numbers, not a {self.type}")
        if self.convert and self.type != "double":
            raise ValueError("convert makes fractions: declare the property as a double")
        wanted = _ALLOWED_TYPES.get(self.type)
        wrong = [value for value in self.allowed or () if wanted is None or not isinstance(value, wanted)]
        if wrong or self.allowed == ():
            raise ValueError(
                f"allowed must list one or more values of type {self.type}, got {wrong or 'none'}"
            )
        return self


class EventType(BaseModel):
    """One declared type of event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    properties: dict[str, PropertySchema] = Field(default_factory=dict)
    rate: RateGate | None = None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A valid event as the log keeps it.

    Attributes:
        event_us: Event time in microseconds since the epoch.
        properties: Typed values by name; absent and null properties are left out.
    """

    event_id: str
    event_type: str
    customer_id: str
    event_us: int
    properties: Mapping[str, Value]

    def to_bytes(self) -> bytes:
        """Serialize for the log, as a JSON array."""
        fields = (self.event_id, self.event_type, self.customer_id, self.event_us, self.properties)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> EventRecord:
        """Read what `to_bytes` wrote."""
        return EventRecord(*json.loads(data))


@dataclass(frozen=True, slots=True)
class Events:
    """Events as columns; the same row of each is of one event, as in `EventRecord`.

    Attributes:
        event_us: int64.
        texts: Each as `EventRecord.to_bytes` makes it.
    """

    event_ids: Sequence[str]
    event_types: Sequence[str]
    customer_ids: Sequence[str]
    event_us: npt.NDArray[np.int64]
    properties: Sequence[Mapping[str, Value]]
    texts: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.event_ids)

    @staticmethod
    def of(records: Sequence[EventRecord]) -> Events:
        """Put events side by side."""
        return Events._of(
            [(r.event_id, r.event_type, r.customer_id, r.event_us, r.properties) for r in records],
            [r.to_bytes() for r in records],
        )

    @staticmethod
    def from_bytes(texts: Sequence[bytes]) -> Events:
        """Read what `EventRecord.to_bytes` wrote; ValueError where that is not one event each."""
        rows = json.loads(b"[%b]" % b",".join(texts))
        if len(rows) != len(texts):
            raise ValueError(f"{len(texts)} records hold {len(rows)} events")
        return Events._of(rows, texts)

    @staticmethod
    def _of(rows: Sequence[Any], texts: Sequence[bytes]) -> Events:
        ids, types, customers, times, properties = zip(*rows, strict=True) if rows else ((),) * 5
        return Events(ids, types, customers, np.array(times, dtype=np.int64), properties, texts)

    def record(self, row: int) -> EventRecord:
        """One of them."""
        return EventRecord(
            self.event_ids[row],
            self.event_types[row],
            self.customer_ids[row],
            int(self.event_us[row]),
            self.properties[row],
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Events:
        """Some of them."""
        if len(rows) == len(self):
            return self
        places = rows.tolist()
        columns = (self.event_ids, self.event_types, self.customer_ids)
        ids, types, customers = ([column[place] for place in places] for column in columns)
        return Events(
            ids,
            types,
            customers,
            self.event_us[rows],
            [self.properties[place] for place in places],
            [self.texts[place] for place in places],
        )


class EventSchema(BaseModel):
    """All event types of a repo.

    Attributes:
        customer: Join key of the entity that events belong to.
        lateness_s: How much later than its event time an event may arrive and still count in features.
        max_future_s: How far ahead of the server's clock an event time may lie.
        types: The event types by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    customer: str
    lateness_s: int = Field(default=3600, ge=0, le=31 * 86_400)
    max_future_s: int = Field(default=5, ge=0, le=3600)
    types: dict[str, EventType] = Field(min_length=1)

    @staticmethod
    def load(repo: Path) -> EventSchema:
        """Read `events.yaml` of a repo.

        Raises:
            EventSchemaError: If the file is missing, no YAML, or not of the declared form.
        """
        path = repo / SCHEMA_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            message = f"{path}: cannot be read ({error.strerror}); a repo declares its event types there"
            raise EventSchemaError(message) from error
        return EventSchema.parse(text, str(path))

    @staticmethod
    def parse(text: str, name: str = SCHEMA_FILE) -> EventSchema:
        """Parse the text of `events.yaml`; `name` stands in errors."""
        try:
            schema = EventSchema.model_validate(yaml.load(text, Loader=_UniqueKeys))  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise EventSchemaError(f"{name}: not valid YAML: {error}") from error
        except ValidationError as error:
            places = [f"{name}: {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
            raise EventSchemaError("\n".join(places)) from error
        problems = schema.problems()
        if problems:
            raise EventSchemaError("\n".join(f"{name}: {problem}" for problem in problems))
        return schema

    def problems(self) -> list[str]:
        """What event types declare that cannot stand beside each other."""
        found = []
        for type_name, event_type in self.types.items():
            for name, declared in event_type.properties.items():
                place = f"types.{type_name}.properties.{name}"
                unit = declared.convert.by if declared.convert is not None else None
                if unit is not None and not _is_string(event_type.properties.get(unit)):
                    found.append(f"{place}.convert.by: {unit!r} is no string property of {type_name}")
                if name in RESERVED_COLUMNS:
                    found.append(f"{place}: the name is taken by the event itself; rename it")
                elif declared.type != self.property_types[name]:
                    found.append(
                        f"{place}: {declared.type} here, {self.property_types[name]} in another type; "
                        "a property has the same type in every event type"
                    )
        return found

    @property
    def has_properties(self) -> bool:
        """Whether events bring anything but themselves."""
        return any(event_type.properties for event_type in self.types.values())

    @cached_property
    def property_types(self) -> dict[str, PropertyType]:
        """Type of each property, over all event types; they share one frame, so a name has one type."""
        types: dict[str, PropertyType] = {}
        for event_type in self.types.values():
            for name, declared in event_type.properties.items():
                types.setdefault(name, declared.type)
        return types

    @property
    def lateness_us(self) -> int:
        return self.lateness_s * 1_000_000

    def gates(self) -> Gates:
        """The gates that are declared, with nothing seen yet."""
        outliers = {
            (type_name, name): declared.outlier
            for type_name, event_type in self.types.items()
            for name, declared in event_type.properties.items()
            if declared.outlier is not None
        }
        rates = {name: kind.rate for name, kind in self.types.items() if kind.rate is not None}
        return Gates(outliers, rates)

    def validate_event(self, event: events_pb2.Event, now_us: int) -> EventRecord:
        """Check one event against its declared type.

        Args:
            event: As the client sent it.
            now_us: The server's clock.

        Raises:
            EventRefused: With the field, a stable reason and the fix, at the first thing that is wrong.
        """
        _check_id("event_id", event.event_id, MAX_EVENT_ID_BYTES)
        _check_id("customer_id", event.customer_id, MAX_CUSTOMER_ID_BYTES)
        event_type = self.types.get(event.event_type)
        if event_type is None:
            raise _unknown("event_type", "UNKNOWN_EVENT_TYPE", "event type", event.event_type, self.types)
        event_us = self._event_time(event, now_us)
        fields = event.properties.fields
        for name in fields:
            if name not in event_type.properties:
                place = f"properties.{name}"
                raise _unknown(place, "UNKNOWN_PROPERTY", "property", name, event_type.properties)
        properties: dict[str, Value] = {}
        for name, declared in event_type.properties.items():
            value = _typed(name, declared, fields.get(name))
            if value is not None:
                properties[name] = value
        _convert(event_type, properties)
        for name, value in properties.items():
            _check_range(f"properties.{name}", event_type.properties[name], value)
        return EventRecord(event.event_id, event.event_type, event.customer_id, event_us, properties)

    def to_proto(self, record: EventRecord) -> events_pb2.Event:
        """A logged event as a client may send it again."""
        event = events_pb2.Event(
            event_id=record.event_id, event_type=record.event_type, customer_id=record.customer_id
        )
        event.event_time.FromMicroseconds(record.event_us)
        types = self.property_types
        for name, value in record.properties.items():
            event.properties[name] = _sendable(value, types.get(name))
        return event

    def _event_time(self, event: events_pb2.Event, now_us: int) -> int:
        if not event.HasField("event_time"):
            raise EventRefused(
                "event_time", "EVENT_TIME_MISSING", "event_time is required: when it happened, in UTC"
            )
        if not 0 <= event.event_time.nanos < 1_000_000_000:
            raise EventRefused(
                "event_time", "EVENT_TIME_INVALID", "event_time.nanos must be in [0, 999999999]"
            )
        event_us = event.event_time.seconds * 1_000_000 + event.event_time.nanos // 1000
        if event_us < EARLIEST_EVENT_US:
            raise EventRefused("event_time", "EVENT_TIME_INVALID", "event_time lies before 1970")
        if event_us > now_us + self.max_future_s * 1_000_000:
            message = (
                f"event_time lies {(event_us - now_us) / 1e6:.0f} s ahead of the server's clock, more than "
                f"max_future_s = {self.max_future_s}; send the time at which the event happened, in UTC"
            )
            raise EventRefused("event_time", "EVENT_TIME_IN_FUTURE", message)
        if event_us < now_us - self.lateness_us:
            message = (
                f"event_time lies {(now_us - event_us) / 1e6:.0f} s behind the server's clock, more than lateness_s = "
                f"{self.lateness_s}: it would count in no feature; raise lateness_s, or backfill what is old"
            )
            raise EventRefused("event_time", "EVENT_TIME_TOO_OLD", message)
        return event_us


RESERVED_COLUMNS = ("event_id", "event_type", "customer_id", "event_time", "event_timestamp")


def _sendable(value: Value, kind: PropertyType | None) -> Any:
    if kind == "timestamp" and isinstance(value, int):
        return (_EPOCH + timedelta(microseconds=value)).isoformat()
    if kind == "int64" and isinstance(value, int) and abs(value) > 2**53:
        return str(value)
    return value


def _check_id(field: str, value: str, limit_bytes: int) -> None:
    if not 0 < len(value.encode()) <= limit_bytes:
        raise EventRefused(
            field, "INVALID_ID", f"{field} must have 1 to {limit_bytes} bytes, got {len(value.encode())}"
        )


def _unknown(field: str, reason: str, kind: str, name: str, known: Mapping[str, Any]) -> EventRefused:
    near = difflib.get_close_matches(name[:MAX_SHOWN_LENGTH], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"declared are: {', '.join(sorted(known)) or 'none'}"
    return EventRefused(field, reason, f"unknown {kind} {name[:MAX_SHOWN_LENGTH]!r}; {hint}")


def _typed(name: str, declared: PropertySchema, raw: StructValue | None) -> Value:
    place = f"properties.{name}"
    kind = raw.WhichOneof("kind") if raw is not None else None
    if raw is None or kind in (None, "null_value"):
        if declared.required:
            message = f"{place} is required ({declared.type})"
            raise EventRefused(place, "REQUIRED_PROPERTY_MISSING", message)
        return None
    value = _READERS[declared.type](place, raw, kind)
    return normalized(value, declared.normalize) if isinstance(value, str) else value


def _is_string(declared: PropertySchema | None) -> bool:
    return declared is not None and declared.type == "string"


def _convert(event_type: EventType, properties: dict[str, Value]) -> None:
    """Bring numbers into the unit that is kept, and say so in the property that names the unit."""
    kept: dict[str, str] = {}
    for name, declared in event_type.properties.items():
        conversion, value = declared.convert, properties.get(name)
        if conversion is None or not isinstance(value, float):
            continue
        unit = str(properties.get(conversion.by, conversion.to))
        factor = conversion.factor(unit)
        if factor is None:
            known = ", ".join(sorted({conversion.to, *conversion.factors})[:20])
            place = f"properties.{conversion.by}"
            raise EventRefused(
                place, "UNKNOWN_UNIT", f"{place} is {unit[:MAX_SHOWN_LENGTH]!r}; known are {known}"
            )
        properties[name] = value * factor
        if not math.isfinite(value * factor):
            place = f"properties.{name}"
            raise EventRefused(
                place, "OUT_OF_RANGE", f"{place} is {value} {unit}, too large in {conversion.to}"
            )
        kept[conversion.by] = conversion.to
    properties.update({name: unit for name, unit in kept.items() if name in properties})


def _wrong_type(place: str, wanted: str, kind: str | None) -> EventRefused:
    got = (kind or "nothing").removesuffix("_value")
    return EventRefused(place, "WRONG_TYPE", f"{place} must be a {wanted}, got a {got}")


def _read_string(place: str, raw: StructValue, kind: str | None) -> Value:
    if kind != "string_value":
        raise _wrong_type(place, "string", kind)
    return raw.string_value


def _read_double(place: str, raw: StructValue, kind: str | None) -> Value:
    if kind != "number_value":
        raise _wrong_type(place, "number", kind)
    if not math.isfinite(raw.number_value):
        raise EventRefused(place, "WRONG_TYPE", f"{place} must be a finite number, got {raw.number_value}")
    return raw.number_value


def _read_int64(place: str, raw: StructValue, kind: str | None) -> Value:
    if kind == "number_value" and raw.number_value.is_integer() and abs(raw.number_value) <= 2**53:
        return int(raw.number_value)
    if (
        kind == "string_value"
        and raw.string_value.removeprefix("-").isdecimal()
        and len(raw.string_value) <= 20
    ):
        value = int(raw.string_value)
        if -(2**63) <= value < 2**63:
            return value
    raise _wrong_type(place, "whole number (beyond 2^53 as a decimal string)", kind)


def _read_bool(place: str, raw: StructValue, kind: str | None) -> Value:
    if kind != "bool_value":
        raise _wrong_type(place, "bool", kind)
    return raw.bool_value


def _read_timestamp(place: str, raw: StructValue, kind: str | None) -> Value:
    if kind == "string_value":
        try:
            moment = datetime.fromisoformat(raw.string_value)
            if moment.tzinfo is not None:
                return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):  # no time, or in UTC not in the years 1 to 9999
            pass
    raise _wrong_type(place, "RFC 3339 timestamp with a zone, such as 2026-01-31T12:00:00Z", kind)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_READERS = {
    "string": _read_string,
    "double": _read_double,
    "int64": _read_int64,
    "bool": _read_bool,
    "timestamp": _read_timestamp,
}


def _check_range(place: str, declared: PropertySchema, value: Value) -> None:
    if isinstance(value, str) and len(value) > declared.max_length:
        raise EventRefused(
            place, "TOO_LONG", f"{place} has {len(value)} characters, max_length is {declared.max_length}"
        )
    if declared.allowed is not None and value not in declared.allowed:
        allowed = ", ".join(map(repr, declared.allowed[:20]))
        raise EventRefused(place, "NOT_ALLOWED", f"{place} is {value!r}; allowed are {allowed}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if declared.minimum is not None and value < declared.minimum:
        raise EventRefused(place, "OUT_OF_RANGE", f"{place} is {value}, minimum is {declared.minimum}")
    if declared.maximum is not None and value > declared.maximum:
        raise EventRefused(place, "OUT_OF_RANGE", f"{place} is {value}, maximum is {declared.maximum}")
