"""Offers: keys, content, attributes, tags and eligibility."""

from __future__ import annotations

import json
import math
from typing import cast

from decision.lang.binder import Binder, constant_type
from decision.lang.findings import Code, nearest
from decision.lang.fold import simplify
from decision.lang.names import CUSTOMER, Scope
from decision.lang.report import Place
from decision.lang.syntax import Expr
from decision.lang.tree import Clause, Constant, Node, OfferDecl, Word
from decision.lang.types import type_name
from decision.lang.world import Located, World
from decision.policy import Offer
from decision.schema import DTYPES, DType, Value

REPEATABLE = frozenset({"set", "tags"})


def gather_offers(world: World) -> None:
    """Learn what offers have, before any condition is bound: attributes with types, tags, keys."""
    for offer in world.offers.values():
        for clause in offer.decl.clauses:
            if clause.kind == "set":
                _gather_attribute(world, offer.place, clause)
            if clause.kind == "tags":
                world.tags |= {cast("Word", word).text for word in clause.parts}
        world.offer_keys |= {key.text for key, _ in offer.decl.keys}
    world.attributes["tags"] = DType.STRING_LIST


def _gather_attribute(world: World, place: Place, clause: Clause) -> None:
    name, constant = cast("tuple[Word, Constant]", clause.parts)
    dtype = constant_type(constant.value)
    before = world.attributes.setdefault(name.text, dtype)
    if before is dtype:
        return
    if {before, dtype} == {DType.INT64, DType.FLOAT64}:
        world.attributes[name.text] = DType.FLOAT64
        return
    message = f"`{name.text}` is {type_name(dtype)} here and {type_name(before)} in another offer"
    world.report.add(Code.TYPE_MISMATCH, message, place.span(name.at), "give it one type everywhere")


def build_offer(world: World, offer: Located[OfferDecl]) -> Offer:
    """Check one offer and put it together."""
    clauses = offer.decl.clauses
    check_repeats(world, offer.place, clauses)
    parts = {clause.kind: clause for clause in clauses}
    attributes = dict(_attribute(world, offer.place, clause) for clause in clauses if clause.kind == "set")
    tags = [cast("Word", word).text for clause in clauses if clause.kind == "tags" for word in clause.parts]
    return Offer(
        name=offer.name,
        keys=_keys(world, offer),
        content=_content(world, offer.place, parts.get("content")),
        attributes=attributes,
        tags=tuple(dict.fromkeys(tags)),
        value=_factor(world, offer.place, parts.get("value")),
        weight=_factor(world, offer.place, parts.get("weight")),
        when=_when(world, offer, parts.get("when")),
        span=offer.span,
    )


def check_repeats(world: World, place: Place, clauses: tuple[Clause, ...]) -> None:
    """A clause that is not a list of its own may be given once."""
    seen: set[str] = set()
    for clause in clauses:
        if clause.kind in seen and clause.kind not in REPEATABLE:
            message = f"`{clause.kind}` is given twice"
            world.report.add(Code.DUPLICATE_NAME, message, place.span(clause.at), "keep one")
        seen.add(clause.kind)


def _attribute(world: World, place: Place, clause: Clause) -> tuple[str, Value]:
    name, constant = cast("tuple[Word, Constant]", clause.parts)
    if name.text == "tags":
        world.report.add(
            Code.DUPLICATE_NAME, "offer.tags are the offer's tags", place.span(name.at), "rename it"
        )
    as_float = world.attributes.get(name.text) is DType.FLOAT64
    value = (
        float(cast("float", constant.value))
        if as_float and constant_type(constant.value) is DType.INT64
        else None
    )
    return name.text, constant.value if value is None else value


def _content(world: World, place: Place, clause: Clause | None) -> dict[str, object]:
    if clause is None:
        return {}
    word = cast("Word", clause.parts[0])
    try:
        word.text.encode()
        content = json.loads(word.text)
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "content holds half a surrogate pair, which is no text"
        world.report.add(Code.BAD_ARGUMENT, message, place.span(word.at), "write both halves")
        return {}
    return cast("dict[str, object]", content)


def _factor(world: World, place: Place, clause: Clause | None) -> float:
    if clause is None:
        return 1.0
    constant = cast("Constant", clause.parts[0])
    value = float(cast("float", constant.value))
    if value < 0 or not math.isfinite(value):
        world.report.add(
            Code.BAD_ARGUMENT, f"an offer's {clause.kind} is not negative", place.span(constant.at)
        )
    return value


def _keys(world: World, offer: Located[OfferDecl]) -> dict[str, Value]:
    keys: dict[str, Value] = {}
    for word, constant in offer.decl.keys:
        if word.text in keys:
            message = f"the key `{word.text}` is given twice"
            world.report.add(Code.DUPLICATE_NAME, message, offer.place.span(word.at), "keep one")
        if _key_fits(world, offer.place, word, constant):
            keys[word.text] = constant.value
    return keys


def _key_fits(world: World, place: Place, word: Word, constant: Constant) -> bool:
    view = world.join_keys.get(word.text)
    if view is None:
        message = f"no view has the join key `{word.text}`"
        world.report.add(Code.UNKNOWN_KEY, message, place.span(word.at), nearest(word.text, world.join_keys))
        return False
    declared = next(key.value_type for key in view.join_keys if key.name == word.text)
    wanted, given = DTYPES.get(declared), constant_type(constant.value)
    if wanted is not given:
        message = (
            f"the key `{word.text}` is {type_name(wanted) if wanted else 'bytes'}, this is {type_name(given)}"
        )
        world.report.add(Code.TYPE_MISMATCH, message, place.span(constant.at))
    return wanted is given


def _when(world: World, offer: Located[OfferDecl], clause: Clause | None) -> Expr | None:
    if clause is None:
        return None
    scope = Scope(
        catalog=world.catalog,
        views_of=world.views_of,
        context=_shared_context(world),
        attributes=world.attributes,
        labels=world.labels,
        segment_view=world.segment_view,
    )
    bound = Binder(scope, offer.place, world.report).condition(cast("Node", clause.parts[0]))
    return None if bound is None else simplify(bound)


def _shared_context(world: World) -> dict[str, DType]:
    """Context of all placements together: an offer may be shown at any. Names of two types are left out."""
    merged: dict[str, DType] = {CUSTOMER: DType.STRING}
    clashing: set[str] = set()
    for context in world.contexts.values():
        for name, dtype in context.items():
            if merged.setdefault(name, dtype) is not dtype:
                clashing.add(name)
    return {name: dtype for name, dtype in merged.items() if name not in clashing}
