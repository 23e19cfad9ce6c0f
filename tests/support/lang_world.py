"""A catalog to write conditions against, and short ways to compile and run them."""

from __future__ import annotations

from decision.lang.compiler import compile_expression
from decision.lang.findings import render
from decision.lang.syntax import Expr
from decision.schema import Aggregation, Catalog, DType, Feature, JoinKey, ValueType, View

_CUSTOMER = JoinKey(name="customer_id", value_type=ValueType.STRING)
_CATEGORY = JoinKey(name="product_category", value_type=ValueType.STRING)
_OFFER = JoinKey(name="offer_id", value_type=ValueType.INT64)


def _features(**types: ValueType) -> tuple[Feature, ...]:
    return tuple(Feature(name=name, value_type=kind) for name, kind in types.items())


VALUES = View(
    name="v",
    join_keys=(_CUSTOMER,),
    features=_features(
        i=ValueType.INT64,
        j=ValueType.INT64,
        x=ValueType.DOUBLE,
        y=ValueType.DOUBLE,
        s=ValueType.STRING,
        z=ValueType.STRING,
        b=ValueType.BOOL,
        c=ValueType.BOOL,
        t=ValueType.UNIX_TIMESTAMP,
        u=ValueType.UNIX_TIMESTAMP,
        ss=ValueType.STRING_LIST,
        ii=ValueType.INT64_LIST,
        xx=ValueType.DOUBLE_LIST,
        tt=ValueType.UNIX_TIMESTAMP_LIST,
        bb=ValueType.BOOL_LIST,
    ),
)

CATALOG = Catalog(
    project="shop",
    views=(
        VALUES,
        View(
            name="purchase_history",
            join_keys=(_CUSTOMER,),
            features=_features(
                last_month_total=ValueType.DOUBLE,
                orders_30d=ValueType.INT64,
                last_purchase_at=ValueType.UNIX_TIMESTAMP,
                fingerprint=ValueType.BYTES,
            ),
        ),
        View(
            name="session",
            join_keys=(_CUSTOMER,),
            features=_features(
                last_cart_at=ValueType.UNIX_TIMESTAMP,
                last_purchase_at=ValueType.UNIX_TIMESTAMP,
                views_30m=ValueType.INT64,
                last_categories=ValueType.STRING_LIST,
            ),
        ),
        View(
            name="segments",
            join_keys=(_CUSTOMER,),
            features=_features(
                big_spender=ValueType.BOOL,
                cart_abandoner=ValueType.BOOL,
                loyal=ValueType.BOOL,
                typo=ValueType.INT64,
            ),
            tags=(("waypost.role", "segments"),),
        ),
        View(
            name="customer_category",
            join_keys=(_CUSTOMER, _CATEGORY),
            features=_features(spend_30d=ValueType.DOUBLE, impressions_7d=ValueType.INT64),
        ),
        View(name="offer_stats", join_keys=(_OFFER,), features=_features(shown_7d=ValueType.INT64)),
        View(
            name="windows",
            join_keys=(_CUSTOMER,),
            features=_features(shown_7d=ValueType.INT64),
            aggregations=(
                Aggregation(feature="shown_7d", column="shown", function="count", window_s=604_800),
            ),
            hop_s=3600,
            stream=True,
        ),
        View(name="weather", join_keys=(), features=_features(raining=ValueType.BOOL)),
        View(
            name="live_margin",
            join_keys=(_CUSTOMER,),
            features=_features(margin_now=ValueType.DOUBLE),
            on_demand=True,
        ),
    ),
)

CONTEXT = {"device": DType.STRING, "browsing_category": DType.STRING, "hour_of_day": DType.INT64}

SHOP = """\
placement home_hero:
  context browsing_category string, hour_of_day int64
  candidates tagged "category", premium_electronics
  model category_affinity
  limit 5
  at most 2 tagged "snacks"
  minimum score 0.01
  explore softmax temperature 0.05 over top 5        -- or: explore epsilon 0.1 over top 5
  fallback soft_drinks, fluid_milk

offer soft_drinks (product_category = "SOFT DRINKS"):
  tags "category", "snacks"
  set margin = 1
offer premium_electronics:
  content {"title": "The good one"}
offer fluid_milk (product_category = "FLUID MILK PRODUCTS"):
  content {
    "title": "Fresh milk",    "image": "/img/milk.png"
  }
  value 1.2
  tags "category", "dairy"
  set margin = 0.15                       # an attribute, read as offer.margin
  when NOT in_segment(big_spender)
"""
"""A policy of one placement and three offers, to which tests add."""


def expression(text: str) -> Expr:
    """The typed tree of an expression that is right."""
    bound, findings = compile_expression(text, CATALOG, CONTEXT)
    assert bound is not None, render(findings, {"expression": text})
    return bound
