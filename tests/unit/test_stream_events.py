"""Every way in which an event or `events.yaml` can be wrong, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.errors import EventRefused, EventSchemaError
from streaming.events import EventRecord, Events, EventSchema
from waypost.events.v1 import events_pb2

NOW_US = 1_700_000_000_000_000
SCHEMA = EventSchema.parse(
    """
customer: account_id
lateness_s: 60
max_future_s: 5
types:
  transfer:
    properties:
      amount: {type: double, required: true, minimum: 0, maximum: 1000}
      cents: {type: int64}
      currency: {type: string, allowed: [EUR, USD], max_length: 3}
      note: {type: string, max_length: 5}
      instant: {type: bool}
      booked_at: {type: timestamp}
      unit: {type: string}
      weight: {type: double, convert: {by: unit, to: g, factors: {t: 1.0e+6}}}
"""
)


def _event(**changes: Any) -> events_pb2.Event:
    properties = {"amount": 1.5} | changes.pop("properties", {})
    event = events_pb2.Event(
        **({"event_id": "e1", "event_type": "transfer", "customer_id": "7"} | changes.pop("fields", {}))
    )
    event.event_time.FromMicroseconds(changes.pop("event_us", NOW_US))
    event.properties.update({name: value for name, value in properties.items() if value is not ...})
    return event


def test_valid_event_is_typed() -> None:
    """Properties arrive with the declared types: instants as microseconds, whole numbers as int."""
    record = SCHEMA.validate_event(
        _event(
            properties={
                "cents": 150,
                "currency": "EUR",
                "instant": True,
                "booked_at": "2023-11-14T23:13:20.25+01:00",
                "note": None,
            }
        ),
        NOW_US,
    )
    assert record.properties == {
        "amount": 1.5,
        "cents": 150,
        "currency": "EUR",
        "instant": True,
        "booked_at": NOW_US + 250_000,
    }
    assert type(record.properties["cents"]) is int


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"fields": {"event_id": ""}}, "INVALID_ID", "event_id"),
        ({"fields": {"event_id": "x" * 65}}, "INVALID_ID", "event_id"),
        ({"fields": {"customer_id": ""}}, "INVALID_ID", "customer_id"),
        ({"fields": {"event_type": "transfr"}}, "UNKNOWN_EVENT_TYPE", "event_type"),
        ({"properties": {"amout": 1}}, "UNKNOWN_PROPERTY", "properties.amout"),
        ({"properties": {"amount": ...}}, "REQUIRED_PROPERTY_MISSING", "properties.amount"),
        ({"properties": {"amount": None}}, "REQUIRED_PROPERTY_MISSING", "properties.amount"),
        ({"properties": {"amount": "1"}}, "WRONG_TYPE", "properties.amount"),
        ({"properties": {"amount": float("nan")}}, "WRONG_TYPE", "properties.amount"),
        ({"properties": {"amount": float("inf")}}, "WRONG_TYPE", "properties.amount"),
        ({"properties": {"amount": -1}}, "OUT_OF_RANGE", "properties.amount"),
        ({"properties": {"amount": 1000.5}}, "OUT_OF_RANGE", "properties.amount"),
        ({"properties": {"cents": 1.5}}, "WRONG_TYPE", "properties.cents"),
        ({"properties": {"cents": 2.0**60}}, "WRONG_TYPE", "properties.cents"),
        ({"properties": {"cents": "9223372036854775808"}}, "WRONG_TYPE", "properties.cents"),
        ({"properties": {"cents": True}}, "WRONG_TYPE", "properties.cents"),
        ({"properties": {"currency": "GBP"}}, "NOT_ALLOWED", "properties.currency"),
        ({"properties": {"note": "longer"}}, "TOO_LONG", "properties.note"),
        ({"properties": {"instant": "yes"}}, "WRONG_TYPE", "properties.instant"),
        ({"properties": {"booked_at": "2023-11-14T23:13:20"}}, "WRONG_TYPE", "properties.booked_at"),
        ({"properties": {"booked_at": 5}}, "WRONG_TYPE", "properties.booked_at"),
        ({"properties": {"booked_at": "0001-01-01T00:00:00+14:00"}}, "WRONG_TYPE", "properties.booked_at"),
        ({"properties": {"booked_at": "9999-12-31T23:59:59-14:00"}}, "WRONG_TYPE", "properties.booked_at"),
        ({"properties": {"weight": 1e308, "unit": "t"}}, "OUT_OF_RANGE", "properties.weight"),
        ({"event_us": NOW_US + 5_000_001}, "EVENT_TIME_IN_FUTURE", "event_time"),
        ({"event_us": -1}, "EVENT_TIME_INVALID", "event_time"),
        ({"event_us": NOW_US - 60_000_001}, "EVENT_TIME_TOO_OLD", "event_time"),
    ],
)
def test_wrong_event_is_refused_with_place_and_reason(
    changes: dict[str, Any], reason: str, field: str
) -> None:
    """Each refusal names the field and a stable reason."""
    with pytest.raises(EventRefused) as refusal:
        SCHEMA.validate_event(_event(**changes), NOW_US)
    assert (refusal.value.reason, refusal.value.field) == (reason, field)


def test_missing_event_time_is_refused() -> None:
    """An event without a time has no place in any window."""
    event = _event()
    event.ClearField("event_time")
    with pytest.raises(EventRefused, match="event_time is required"):
        SCHEMA.validate_event(event, NOW_US)


def test_whole_numbers_beyond_doubles_come_as_text() -> None:
    """JSON numbers are doubles; a decimal string carries all 64 bits."""
    record = SCHEMA.validate_event(_event(properties={"cents": "-9223372036854775808"}), NOW_US)
    assert record.properties["cents"] == -(2**63)


def test_near_names_are_suggested() -> None:
    """A typing error gets the name that was meant."""
    with pytest.raises(EventRefused, match="did you mean 'transfer'"):
        SCHEMA.validate_event(_event(fields={"event_type": "transfr"}), NOW_US)


@given(
    st.builds(
        EventRecord,
        st.text(min_size=1),
        st.text(),
        st.text(),
        st.integers(0, 2**62),
        st.dictionaries(
            st.text(),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
        ),
    )
)
def test_records_survive_the_log(record: EventRecord) -> None:
    """What is appended is what is read, for any text and number."""
    assert EventRecord.from_bytes(record.to_bytes()) == record
    assert Events.from_bytes([record.to_bytes()] * 2).record(1) == record
    with pytest.raises(ValueError, match="2 records hold 3 events"):
        Events.from_bytes([record.to_bytes() + b"," + record.to_bytes(), record.to_bytes()])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("customer: [", "not valid YAML"),
        ("customer: c", "types: Field required"),
        ("customer: c\ntypes: {}", "at least 1 item"),
        ("customer: c\ntypes: {t: {propertys: {}}}", "types.t.propertys"),
        ("customer: c\ntypes: {t: {properties: {p: {type: text}}}}", "types.t.properties.p.type"),
        ("customer: c\ntypes: {t: {properties: {event_id: {type: string}}}}", "taken by the event itself"),
        (
            "customer: c\ntypes: {t: {properties: {p: {type: string}}}, u: {properties: {p: {type: bool}}}}",
            "bool here, string in another type",
        ),
        ("- 1", "events.yaml: file:"),
        ("customer: c\ntypes: {t: {}, t: {}}", "'t' stands here twice"),
        (
            "customer: c\ntypes: {t: {properties: {p: {type: string, minimum: 1}}}}",
            "bound numbers, not a string",
        ),
        (
            "customer: c\ntypes: {t: {properties: {p: {type: int64, minimum: 2, maximum: 1}}}}",
            "nothing would fit",
        ),
        ("customer: c\ntypes: {t: {properties: {p: {type: int64, allowed: [a]}}}}", "values of type int64"),
    ],
)
def test_wrong_schema_is_refused_with_its_place(text: str, said: str) -> None:
    """What is wrong in `events.yaml` is named by its path in the file."""
    with pytest.raises(EventSchemaError, match=r"events\.yaml: ") as error:
        EventSchema.parse(text)
    assert said in str(error.value)
