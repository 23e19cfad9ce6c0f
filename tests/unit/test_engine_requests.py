from __future__ import annotations

from typing import Any

import pytest

from decision.bundle import Bundle, ModelHandle
from decision.engine import Request, decide
from decision.errors import (
    BundleError,
    ContextTypeError,
    FrameError,
    InvalidCustomerError,
    LimitError,
    RequestError,
    UnknownCandidateError,
    UnknownContextError,
    UnknownPlacementError,
)
from decision.frame import Block, Frame
from decision.plan import key_type, typed_key
from decision.policy import Boost, Exploration, Explore, Pin, Selector, Show
from decision.schema import Catalog, DType, FeatureRef, JoinKey, Status, ValueType, View
from decision.validate import check_request
from tests.support.engine_world import (
    ALL,
    CATALOG,
    IN_VIP,
    NOW_US,
    ask,
    cap,
    compare,
    frame,
    home,
    layout,
    offer,
    rule,
    world,
)


@pytest.mark.parametrize(
    ("request_parts", "error", "field", "suggestion"),
    [
        ({"placement": "hom"}, UnknownPlacementError, "placement", "home"),
        ({"candidates": ("apple", "aple")}, UnknownCandidateError, "candidates[1]", "apple"),
        ({"candidates": ("zzz",)}, UnknownCandidateError, "candidates[0]", None),
        ({"context": {"pages": "x"}}, UnknownContextError, "context.pages", "page"),
        ({"context": {"page": 3}}, ContextTypeError, "context.page", None),
        ({"context": {"basket": True}}, ContextTypeError, "context.basket", None),
        ({"context": {"basket": 10**400}}, ContextTypeError, "context.basket", None),
        ({"limit": -1}, LimitError, "limit", None),
        ({"limit": 11}, LimitError, "limit", None),
        ({"customer_id": ""}, InvalidCustomerError, "customer_id", None),
        ({"customer_id": "x" * 257}, InvalidCustomerError, "customer_id", None),
        ({"candidates": ("apple",) * 1001}, RequestError, "candidates", None),
    ],
)
def test_wrong_request_names_field_and_fix(
    request_parts: dict[str, Any], error: type[RequestError], field: str, suggestion: str | None
) -> None:
    """Every error carries the field at fault and the nearest valid name."""
    parts = {"placement": "home", "customer_id": "c", **request_parts}
    with pytest.raises(error) as caught:
        decide(Request(**parts), frame(), world([offer("apple")]), now_us=NOW_US, seed=0)
    assert caught.value.field == field
    assert caught.value.suggestion == suggestion
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value", "typed"),
    [
        (DType.FLOAT64, 3, 3.0),
        (DType.FLOAT64, float("nan"), None),
        (DType.INT64, 3, 3),
        (DType.BOOL, False, False),
        (DType.TIMESTAMP, 5, 5),
        (DType.STRING, None, None),
        (DType.STRING_LIST, ("a", "b"), ("a", "b")),
        (DType.FLOAT64_LIST, (1, 2.5), (1.0, 2.5)),
    ],
)
def test_context_is_typed(dtype: DType, value: Any, typed: Any) -> None:
    """Context takes the declared type: integers widen to floats, a NaN is NULL."""
    bundle = world([offer("a")], context={"x": dtype})
    checked = check_request(Request(placement="home", customer_id="c", context={"x": value}), home(bundle))
    assert checked.context == {"x": typed}
    assert type(checked.context["x"]) is type(typed)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (DType.INT64, 1.0),
        (DType.INT64, 2**63),
        (DType.STRING_LIST, "ab"),
        (DType.INT64_LIST, (1, "a")),
        (DType.BOOL, 1),
    ],
)
def test_context_of_another_type_is_refused(dtype: DType, value: Any) -> None:
    """Nothing but int to float converts."""
    with pytest.raises(ContextTypeError, match=r"context\.x: must be"):
        ask(world([offer("a")], context={"x": dtype}), context={"x": value})


def test_plan_reads_each_feature_at_its_level() -> None:
    """Features of the customer alone are read once, all others per candidate; memberships are always read."""
    rules = [
        rule("r", Boost(selector=ALL, factor=2.0), when=compare("profile.spend", ">", 1.0)),
        rule(
            "s",
            Boost(selector=ALL, factor=2.0),
            when=compare("popularity.rank", "<", 3.0),
            per_candidate=True,
        ),
    ]
    plan = home(
        world([offer("a", when=compare("profile.age", ">", 17))], rules, [cap("c", "affinity.shown", 3)])
    )
    assert [str(ref) for ref in plan.customer_refs] == ["profile.age", "profile.spend", "segments.vip"]
    assert [str(ref) for ref in plan.candidate_refs] == ["affinity.shown", "popularity.rank"]
    assert plan.context == {"page": DType.STRING, "basket": DType.FLOAT64}


def test_plan_knows_every_offer_that_can_appear() -> None:
    """Listed offers, those that rules add and the fallback; only what a request can need is read."""
    offers = [offer(name) for name in "abcdef"]
    rules = [rule("r", Show(offer="b"), otherwise=(Pin(offer="c", position=1),))]
    plan = home(world(offers, rules, candidates=(Selector(offer="a"), Selector(offer="e")), fallback=("d",)))
    assert [known.name for known in plan.offers] == ["a", "b", "c", "d", "e"]
    assert plan.considered(()) == ("a", "b", "c", "d", "e")
    assert plan.considered(("e",)) == ("b", "c", "d", "e")


def test_candidate_rows_hold_declared_keys_and_the_customer() -> None:
    """Keys come from the offer and the request; what an offer does not declare is absent."""
    plan = home(world([offer("a"), offer("b", keys={})]))
    assert plan.customer_row("7") == {"customer_id": "7"}
    assert plan.candidate_rows("7", ["b", "a"]) == [
        {"customer_id": "7"},
        {"customer_id": "7", "category": "a"},
    ]


@pytest.mark.parametrize(
    ("text", "value_type", "value"),
    [("007", ValueType.STRING, "007"), ("7", ValueType.INT64, 7), ("-7", ValueType.INT32, -7)],
)
def test_customer_id_takes_the_type_of_its_key(text: str, value_type: ValueType, value: object) -> None:
    """An integer key is parsed from its one text form."""
    assert typed_key(text, value_type) == value


@pytest.mark.parametrize("text", ["007", "7.0", "x", "²", "-0", str(2**31)])
def test_customer_id_of_an_integer_key_is_an_integer(text: str) -> None:
    """Anything but the canonical text of an int32 is refused."""
    with pytest.raises(InvalidCustomerError):
        typed_key(text, ValueType.INT32)


def test_customer_key_must_have_one_plain_type() -> None:
    """Views that disagree about the customer key, or key by other types, make no bundle."""
    views = [
        View(name=f"v{kind}", join_keys=(JoinKey(name="id", value_type=kind),), features=())
        for kind in (ValueType.INT64, ValueType.STRING, ValueType.BYTES)
    ]
    with pytest.raises(BundleError, match="disagree"):
        key_type(Catalog(project="p", views=tuple(views[:2])), "id")
    with pytest.raises(BundleError, match="BYTES"):
        key_type(Catalog(project="p", views=tuple(views[2:])), "id")


def test_bundle_version_names_catalog_policy_and_key() -> None:
    """The version is a content hash: equal parts give the same, another key or catalog another."""
    bundle = world([offer("a")])
    assert len(bundle.version) == 64
    assert bundle.version == world([offer("a")]).version
    assert Bundle.build(CATALOG, bundle.policy, {}, "category").version != bundle.version


def test_bundle_refuses_what_does_not_fit() -> None:
    """Unknown features and boosts that are not finite are found when the bundle is built."""
    with pytest.raises(BundleError, match=r"nowhere\.spend"):
        world([offer("a", when=compare("nowhere.spend", ">", 1.0))])
    with pytest.raises(BundleError, match="finite"):
        world([offer("a")], [rule("r", Boost(selector=ALL, factor=float("inf")))])
    with pytest.raises(BundleError, match="finite"):
        world([offer("a", value=float("nan"))])


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        (Exploration.SOFTMAX, 0.0),
        (Exploration.SOFTMAX, float("nan")),
        (Exploration.EPSILON_GREEDY, 1.5),
        (Exploration.EPSILON_GREEDY, -0.1),
    ],
)
def test_bundle_refuses_exploration_out_of_range(kind: Exploration, parameter: float) -> None:
    """A temperature must be above 0, an epsilon a probability."""
    with pytest.raises(BundleError, match="must be"):
        world([offer("a")], explore=Explore(kind=kind, top_k=2, parameter=parameter))


def test_bundle_is_immutable() -> None:
    """Models and plans cannot be swapped in place."""
    bundle = world([offer("a")], [rule("r", Show(offer="a"), when=IN_VIP)])
    with pytest.raises(TypeError):
        bundle.plans["home"] = None  # type: ignore[index]


def test_block_refuses_another_shape() -> None:
    """Columns of uneven length, repeated names and a customer's block of two rows are programming errors."""
    with pytest.raises(FrameError, match="shape"):
        Block.of(layout("profile.age"), ("a",), [[1, 2]], [[Status.PRESENT]], [[0]])
    with pytest.raises(FrameError, match="unique"):
        Block.empty(("a", "a"))
    with pytest.raises(FrameError, match="one row"):
        Frame(customer=Block.empty(("a", "b")), candidates=Block.empty(()))


def test_model_handle_names_itself() -> None:
    """A model is written name@version."""
    handle = ModelHandle(name="m", version="3", features=(FeatureRef(view="v", feature="f"),), forest=None)  # type: ignore[arg-type]
    assert str(handle) == "m@3"
