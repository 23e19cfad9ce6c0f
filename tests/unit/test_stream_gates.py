"""Normalization and gates: what an event becomes before it is logged, and which events are kept out as anomalies."""

from __future__ import annotations

import random

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from streaming.errors import EventRefused, EventSchemaError
from streaming.events import EventRecord, EventSchema
from streaming.gates import PERIODS, WINDOW, Gates, OutlierGate, RateGate
from waypost.events.v1 import events_pb2

NOW_US = 1_700_000_000_000_000
SCHEMA = EventSchema.parse(
    """
customer: customer_id
types:
  buy:
    properties:
      genre: {type: string, normalize: [trim, lower], allowed: [crime, poetry]}
      currency: {type: string, normalize: [upper]}
      price:
        type: double
        maximum: 100
        convert: {by: currency, to: USD, factors: {EUR: 1.25, JPY: 0.0078125}}
      read_at: {type: timestamp}
      pages: {type: int64}
"""
)


def _buy(**properties: str | float) -> EventRecord:
    event = events_pb2.Event(event_id="e", event_type="buy", customer_id="ann")
    event.event_time.CopyFrom(Timestamp(seconds=NOW_US // 1_000_000))
    event.properties.update(properties)
    return SCHEMA.validate_event(event, NOW_US)


def test_normalized_strings_and_units_are_kept_in_one_form() -> None:
    """Case and blanks go before `allowed` is asked, units before `maximum`, and the unit says what is kept."""
    record = _buy(genre="  Crime ", currency="eur", price=80.0)
    assert record.properties == {"genre": "crime", "currency": "USD", "price": 100.0}
    assert _buy(price=3.5).properties == {"price": 3.5}
    assert _buy(currency="usd", price=3.5).properties == {"currency": "USD", "price": 3.5}
    with pytest.raises(EventRefused) as refused:
        _buy(currency="EUR", price=81.0)
    assert (refused.value.reason, refused.value.field) == ("OUT_OF_RANGE", "properties.price")
    with pytest.raises(
        EventRefused, match=r"properties.currency is 'XAU'; known are EUR, JPY, USD"
    ) as refused:
        _buy(currency="XAU", price=1.0)
    assert refused.value.reason == "UNKNOWN_UNIT"


def test_normalized_record_comes_back_as_the_same_event() -> None:
    """A logged event sent again is the same record: nothing is converted twice, nothing is rounded."""
    record = _buy(
        genre="POETRY", currency="JPY", price=128.0, read_at="2023-11-14T12:00:00Z", pages=str(2**60)
    )
    assert record.properties["pages"] == 2**60
    assert SCHEMA.validate_event(SCHEMA.to_proto(record), NOW_US) == record


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{type: int64, normalize: [lower]}", "normalize is for strings"),
        ("{type: string, outlier: {factor: 3}}", "convert and outlier are for numbers"),
        ("{type: int64, convert: {by: b, to: g, factors: {kg: 1000}}}", "declare the property as a double"),
        ("{type: double, convert: {by: b, to: g, factors: {g: 1}}}", "leave it out of the factors"),
        ("{type: double, convert: {by: b, to: g, factors: {kg: -1}}}", "must be a positive number"),
        ("{type: double, convert: {by: b, to: g, factors: {kg: 1000}}}", "'b' is no string property of t"),
    ],
)
def test_contradictory_declarations_are_refused(declared: str, message: str) -> None:
    """What cannot work is said when the file is read."""
    with pytest.raises(EventSchemaError, match=message):
        EventSchema.parse(f"customer: c\ntypes: {{t: {{properties: {{a: {declared}}}}}}}")


def test_outlier_gate_closes_late_and_opens_for_what_lasts() -> None:
    """Nothing is refused before enough was seen; then only what is far off; and a level that lasts becomes usual."""
    gates = Gates({("buy", "price"): OutlierGate(factor=5, after=200)}, {})
    rng = random.Random(1)
    gates.judge("buy", {"price": 1e9}, NOW_US)
    for _ in range(400):
        gates.judge("buy", {"price": rng.uniform(5, 15)}, NOW_US)
    with pytest.raises(EventRefused) as refused:
        gates.judge("buy", {"price": 500.0}, NOW_US)
    assert (refused.value.reason, refused.value.field) == ("OUTLIER", "properties.price")
    gates.judge("buy", {"price": 14.0}, NOW_US)
    gates.judge("other", {"price": 500.0}, NOW_US)
    refusals = 0
    for _ in range(WINDOW):
        try:
            gates.judge("buy", {"price": rng.uniform(495, 505)}, NOW_US)
        except EventRefused:
            refusals += 1
    assert 0 < refusals < WINDOW / 2


def test_outlier_gate_leaves_constant_values_alone() -> None:
    """Where all values are the same there is no spread to judge by."""
    gates = Gates({("buy", "price"): OutlierGate(factor=3, after=16)}, {})
    for _ in range(100):
        gates.judge("buy", {"price": 1.0}, NOW_US)
    gates.judge("buy", {"price": 2.0}, NOW_US)


def test_rate_gate_closes_on_a_flood_and_opens_in_the_next_period() -> None:
    """A type that comes many times as often as usual is refused until the period ends; others are not."""
    gates = Gates({}, {"buy": RateGate(factor=10, period_s=60, at_least=20)})
    for minute in range(5):
        for _ in range(10):
            gates.judge("buy", {}, NOW_US + minute * 60_000_000)
    flood_us = NOW_US + 5 * 60_000_000
    for _ in range(100):
        gates.judge("buy", {}, flood_us)
    with pytest.raises(EventRefused) as refused:
        gates.judge("buy", {}, flood_us)
    assert (refused.value.reason, refused.value.field) == ("RATE_SPIKE", "event_type")
    gates.judge("look", {}, flood_us)
    gates.judge("buy", {}, flood_us + 60_000_000)


def test_rate_gate_takes_idle_periods_for_quiet_ones() -> None:
    """Periods without an event count as such, however long nothing came."""
    gates = Gates({}, {"buy": RateGate(factor=2, period_s=1, at_least=5)})
    gates.judge("buy", {}, NOW_US)
    later_us = NOW_US + 10 * PERIODS * 1_000_000
    for _ in range(5):
        gates.judge("buy", {}, later_us)
    with pytest.raises(EventRefused):
        gates.judge("buy", {}, later_us)
