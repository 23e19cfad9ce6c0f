"""What the example shop's customers send: the only part of the load test that knows its events and placements."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass

from google.protobuf import struct_pb2, timestamp_pb2

from waypost.decision.v1 import decision_pb2
from waypost.events.v1 import events_pb2
from waypost.features.v1 import features_pb2

CUSTOMER_COUNT = 2_469
"""Households of The Complete Journey are numbered from 1."""

CATEGORIES = (
    "SOFT DRINKS",
    "BEEF",
    "FLUID MILK PRODUCTS",
    "CHEESE",
    "FROZEN PIZZA",
    "BAG SNACKS",
    "BAKED BREAD/BUNS/ROLLS",
    "BEERS/ALES",
    "TROPICAL FRUIT",
    "COLD CEREAL",
)

LOOKED_UP = (
    "purchase_history:last_month_total",
    "purchase_history:orders_90d",
    "session:last_browsed_category",
    "session:views_30m",
    "segments:cart_abandoner",
)

Properties = dict[str, str | float | bool]


@dataclass(slots=True)
class Shopper:
    """One customer on a visit; all choices come from `choices`, so a seed repeats them."""

    customer_id: str
    choices: random.Random

    def looks(self) -> events_pb2.PublishEventsRequest:
        """Browse a category."""
        return self._publish("view", [{"product_category": self._category()}])

    def adds_to_cart(self) -> events_pb2.PublishEventsRequest:
        """Put something into the cart."""
        return self._publish(
            "add_to_cart", [{"product_category": self._category(), "sales_value": self._price()}]
        )

    def buys(self) -> events_pb2.PublishEventsRequest:
        """Pay for a basket of one to eight lines."""
        basket_id = uuid.UUID(int=self.choices.getrandbits(128)).hex
        prices = [self._price() for _ in range(self.choices.randint(1, 8))]
        lines: list[Properties] = [
            {
                "basket_id": basket_id,
                "product_category": self._category(),
                "quantity": 1,
                "sales_value": price,
                "basket_first": False,
            }
            for price in prices
        ]
        lines[0] |= {"basket_first": True, "basket_total": round(sum(prices), 2)}
        return self._publish("purchase", lines)

    def asks(self, placement: str) -> decision_pb2.DecideRequest:
        """Ask what to show at a placement."""
        return decision_pb2.DecideRequest(
            placement=placement, customer_id=self.customer_id, context=self._context(placement)
        )

    def is_looked_up(self) -> features_pb2.GetOnlineFeaturesRequest:
        """Read the customer's features, as a dashboard would."""
        keys = {"customer_id": features_pb2.Value(string_value=self.customer_id)}
        return features_pb2.GetOnlineFeaturesRequest(
            features=LOOKED_UP, entities=[features_pb2.EntityRow(keys=keys)]
        )

    def _context(self, placement: str) -> dict[str, features_pb2.Value]:
        if placement != "home_hero":
            return {}
        return {"browsing_category": features_pb2.Value(string_value=self._category())}

    def _category(self) -> str:
        return self.choices.choice(CATEGORIES)

    def _price(self) -> float:
        return round(self.choices.lognormvariate(1.0, 0.7), 2)

    def _publish(self, event_type: str, rows: list[Properties]) -> events_pb2.PublishEventsRequest:
        now_ns = time.time_ns()
        return events_pb2.PublishEventsRequest(
            events=[self._event(event_type, properties, now_ns) for properties in rows]
        )

    def _event(self, event_type: str, properties: Properties, time_ns: int) -> events_pb2.Event:
        # Ids are random, not seeded: the same run twice against one server is two visits, not a repetition.
        event = events_pb2.Event(
            event_id=uuid.uuid4().hex,
            event_type=event_type,
            customer_id=self.customer_id,
            event_time=timestamp_pb2.Timestamp(
                seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000
            ),
            properties=struct_pb2.Struct(),
        )
        event.properties.update(properties)
        return event
