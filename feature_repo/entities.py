"""What features belong to."""

from __future__ import annotations

from feast import Entity
from feast.value_type import ValueType

customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.STRING,
    description="A household that shops with a loyalty card; the id is text.",
    tags={"team": "shop"},
)

category = Entity(
    name="category",
    join_keys=["product_category"],
    value_type=ValueType.STRING,
    description="A product category as the shop's assortment names it.",
    tags={"team": "shop"},
)

offer = Entity(
    name="offer",
    join_keys=["offer_id"],
    value_type=ValueType.STRING,
    description="Something that a placement can show; the id is the offer's name in the policy.",
    tags={"team": "shop"},
)
