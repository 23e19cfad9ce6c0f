"""A small world to decide in: a catalog, and short builders for policies, values and bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decision.bundle import Bundle, ModelHandle
from decision.engine import Decision, Request, decide
from decision.frame import Block, Frame, Layout, layout_of
from decision.lang.syntax import NOWHERE, Compare, CompareOp, Expr, Literal, Ref
from decision.plan import PlacementPlan
from decision.policy import Action, Cap, Offer, Placement, Policy, Rule, Segment, Selector
from decision.schema import Catalog, DType, Feature, FeatureRef, JoinKey, Status, Value, ValueType, View

NOW_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000

_CUSTOMER = JoinKey(name="customer_id", value_type=ValueType.STRING)
_CATEGORY = JoinKey(name="category", value_type=ValueType.STRING)

CATALOG = Catalog(
    project="world",
    views=(
        View(
            name="profile",
            join_keys=(_CUSTOMER,),
            features=(
                Feature(name="age", value_type=ValueType.INT64),
                Feature(name="spend", value_type=ValueType.DOUBLE),
                Feature(name="last_at", value_type=ValueType.UNIX_TIMESTAMP),
                Feature(name="shown", value_type=ValueType.INT64),
            ),
        ),
        View(
            name="affinity",
            join_keys=(_CUSTOMER, _CATEGORY),
            features=(
                Feature(name="spend", value_type=ValueType.DOUBLE),
                Feature(name="shown", value_type=ValueType.INT64),
            ),
        ),
        View(
            name="popularity",
            join_keys=(_CATEGORY,),
            features=(Feature(name="rank", value_type=ValueType.INT64),),
        ),
        View(
            name="segments",
            join_keys=(_CUSTOMER,),
            features=(Feature(name="vip", value_type=ValueType.BOOL),),
            tags=(("waypost.role", "segments"),),
        ),
    ),
)

ALL = Selector()
TRUE = Literal(value=True, dtype=DType.BOOL)
FALSE = Literal(value=False, dtype=DType.BOOL)
NULL = Literal(value=None, dtype=DType.BOOL)
IN_VIP = Ref(name="segments.vip", dtype=DType.BOOL)


def compare(name: str, op: CompareOp, value: float | str, dtype: DType = DType.FLOAT64) -> Expr:
    """`name op value`; a feature of the catalog has its own type."""
    view, _, feature = name.partition(".")
    if view in CATALOG.view_by_name:
        dtype = CATALOG.feature(FeatureRef(view=view, feature=feature)).dtype or dtype
    return Compare(op=op, left=Ref(name=name, dtype=dtype), right=Literal(value=value, dtype=dtype))


def offer(name: str, **parts: Any) -> Offer:
    """An offer whose category is its name."""
    parts = {"keys": {"category": name}, "content": {"title": name}, **parts}
    return Offer(name=name, span=NOWHERE, **parts)


def rule(name: str, *actions: Action, when: Expr = TRUE, **parts: Any) -> Rule:
    """A rule on `home` that holds unless told otherwise."""
    parts = {"placement": "home", **parts}
    return Rule(name=name, condition=when, actions=actions, span=NOWHERE, **parts)


def cap(name: str, counter: str, limit: int, selector: Selector | None = None) -> Cap:
    """A cap on every placement."""
    return Cap(
        name=name,
        placement=None,
        limit=limit,
        window_s=7 * 86_400,
        selector=selector,
        counter=_ref(counter),
        span=NOWHERE,
    )


def world(
    offers: Sequence[Offer],
    rules: Sequence[Rule] = (),
    caps: Sequence[Cap] = (),
    models: Mapping[str, ModelHandle] | None = None,
    **placement: Any,
) -> Bundle:
    """A bundle of one placement, `home`, at which all offers compete; `placement` overrides its attributes."""
    parts = {"candidates": (ALL,), "context": {"page": DType.STRING, "basket": DType.FLOAT64}, **placement}
    policy = Policy(
        segments=(
            Segment(name="vip", condition=TRUE, view="segments", join_keys=("customer_id",), span=NOWHERE),
        ),
        rules=tuple(rules),
        offers=tuple(offers),
        placements=(Placement(name="home", span=NOWHERE, **parts),),
        caps=tuple(caps),
        source_hash="0" * 64,
    )
    return Bundle.build(CATALOG, policy, models or {}, "customer_id")


def frame(
    customer: Mapping[str, Value] | None = None, candidates: Mapping[str, Mapping[str, Value]] | None = None
) -> Frame:
    """Values as if read an hour ago; None is stored NULL."""
    return Frame(customer=block({"": customer or {}}), candidates=block(candidates or {}))


def block(rows: Mapping[str, Mapping[str, Value]]) -> Block:
    """A block out of rows; what a row lacks is NOT_FOUND."""
    names = tuple(dict.fromkeys(name for row in rows.values() for name in row))
    return Block.of(
        layout(*names),
        tuple(rows),
        [[row.get(name) for row in rows.values()] for name in names],
        [[_status(row, name) for row in rows.values()] for name in names],
        [[NOW_US - HOUR_US if name in row else 0 for row in rows.values()] for name in names],
    )


def cells(row: str, columns: Mapping[str, tuple[Value, Status, int]]) -> Block:
    """A block of one row out of (value, status, event time) by column."""
    parts = tuple(zip(*columns.values(), strict=True))
    values, statuses, event_us = parts or ((), (), ())
    return Block.of(
        layout(*columns),
        (row,),
        [[value] for value in values],
        [[status] for status in statuses],
        [[us] for us in event_us],
    )


def layout(*names: str) -> Layout:
    """The columns as the catalog types them."""
    return layout_of(CATALOG, [_ref(name) for name in names])


def _ref(name: str) -> FeatureRef:
    view, _, feature = name.partition(".")
    return FeatureRef(view=view, feature=feature)


def _status(row: Mapping[str, Value], name: str) -> Status:
    if name not in row:
        return Status.NOT_FOUND
    return Status.NULL if row[name] is None else Status.PRESENT


def ask(bundle: Bundle, values: Frame | None = None, *, seed: int = 1, **request: Any) -> Decision:
    """Decide on `home` for customer c."""
    parts = {"placement": "home", "customer_id": "c", **request}
    return decide(Request(**parts), values or frame(), bundle, now_us=NOW_US, seed=seed)


def shown(decision: Decision) -> list[str]:
    """Names of the ranked offers."""
    return [ranked.offer for ranked in decision.offers]


def home(bundle: Bundle) -> PlacementPlan:
    """The plan of `home`."""
    return bundle.placement("home")
