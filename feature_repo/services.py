"""Versioned lists of features: one for each model and placement. A changed list gets a new version."""

from __future__ import annotations

from feast import FeatureService
from views_category import category_popularity, customer_category
from views_customer import demographics, purchase_history, segments
from views_offer import customer_offer
from views_session import session

category_affinity_v1 = FeatureService(
    name="category_affinity_v1",
    features=[
        customer_category[
            [
                "spend_30d",
                "spend_90d",
                "purchases_30d",
                "purchases_90d",
                "purchases_total",
                "last_purchase_at",
            ]
        ],
        category_popularity[["purchases_7d", "purchases_30d", "spend_7d", "spend_30d"]],
        purchase_history[
            [
                "spend_7d",
                "last_month_total",
                "spend_90d",
                "orders_7d",
                "orders_30d",
                "orders_90d",
                "orders_total",
                "average_basket_90d",
                "last_purchase_at",
            ]
        ],
        demographics[["age", "income", "household_size", "kids_count"]],
    ],
    description="Input of the model category_affinity, in order. No session features: see docs/model.md.",
    owner="data@shop.example",
    tags={"team": "shop", "kind": "model"},
)

home_hero_v1 = FeatureService(
    name="home_hero_v1",
    features=[
        purchase_history[["last_month_total", "orders_90d", "last_purchase_at"]],
        session[["last_browsed_category", "views_30m", "cart_adds_30m", "last_cart_at", "last_purchase_at"]],
        segments[["big_spender", "cart_abandoner", "high_intent", "lapsed", "loyal"]],
        customer_category[["purchases_30d", "last_purchase_at"]],
        customer_offer[["impressions_1d", "impressions_7d"]],
    ],
    description="What the rules of home_hero read.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "kind": "placement"},
)

weekly_email_v1 = FeatureService(
    name="weekly_email_v1",
    features=[
        purchase_history[["last_month_total", "orders_90d", "last_purchase_at"]],
        segments[["lapsed", "loyal", "cart_abandoner"]],
        customer_category[["purchases_90d", "last_purchase_at"]],
        customer_offer[["impressions_7d"]],
    ],
    description="What the rules of weekly_email read.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "kind": "placement"},
)

checkout_v1 = FeatureService(
    name="checkout_v1",
    features=[
        session[["cart_adds_30m", "cart_value_30m", "last_browsed_category"]],
        purchase_history[["average_basket_90d"]],
        customer_category[["last_purchase_at"]],
    ],
    description="What the rules of checkout read.",
    owner="marketing@shop.example",
    tags={"team": "marketing", "kind": "placement"},
)
