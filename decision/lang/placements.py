"""Placements: declared context, candidates, model, limits, exploration, fallback and changeable inputs."""

from __future__ import annotations

from typing import Final, cast

from decision.lang.findings import Code, nearest
from decision.lang.names import CUSTOMER, Scope
from decision.lang.offers import check_repeats
from decision.lang.report import Place
from decision.lang.syntax import Ref
from decision.lang.tree import Clause, Constant, Path, PlacementDecl, Target, Word
from decision.lang.types import ELEMENTS, NUMBERS, type_name
from decision.lang.world import Located, World
from decision.policy import (
    SHAPE_LEAST,
    SHAPE_MOST,
    THOMPSON_MAX,
    Exploration,
    Explore,
    Placement,
    Selector,
)
from decision.schema import DType, FeatureRef

CONTEXT_TYPES: Final = {dtype.value: dtype for dtype in DType if dtype is not DType.INTERVAL}
LIMIT_MAX: Final = 1_000
LIMIT_DEFAULT: Final = 10


def gather_contexts(world: World) -> None:
    """Learn the typed context of each placement, before any condition is bound."""
    for name, placement in world.placements.items():
        context: dict[str, DType] = {}
        for clause in _clauses(placement, "context"):
            for word, kind in cast("tuple[tuple[Word, Word], ...]", clause.parts):
                _declare(world, placement.place, context, word, kind)
        world.contexts[name] = {**context, CUSTOMER: DType.STRING}


def _declare(world: World, place: Place, context: dict[str, DType], word: Word, kind: Word) -> None:
    dtype = CONTEXT_TYPES.get(kind.text.lower())
    if dtype is None:
        message = f"`{kind.text}` is no type"
        hint = nearest(kind.text, CONTEXT_TYPES) or f"types are {', '.join(CONTEXT_TYPES)}"
        world.report.add(Code.TYPE_MISMATCH, message, place.span(kind.at), hint)
    if word.text in context or word.text == CUSTOMER:
        message = f"the context `{word.text}` is there already"
        world.report.add(Code.DUPLICATE_NAME, message, place.span(word.at), "give it another name")
    context[word.text] = dtype or DType.STRING


def _clauses(placement: Located[PlacementDecl], kind: str) -> list[Clause]:
    return [clause for clause in placement.decl.clauses if clause.kind == kind]


def build_placement(world: World, placement: Located[PlacementDecl]) -> Placement:
    """Check one placement and put it together."""
    place = placement.place
    single = [
        clause for clause in placement.decl.clauses if clause.kind not in ("context", "candidates", "at")
    ]
    check_repeats(world, place, tuple(single))
    parts = {clause.kind: clause for clause in single}
    context = {name: dtype for name, dtype in world.contexts[placement.name].items() if name != CUSTOMER}
    return Placement(
        name=placement.name,
        context=context,
        candidates=_candidates(world, placement),
        model=_model(world, place, parts.get("model")),
        limit=_limit(world, place, parts.get("limit")),
        max_per_tag=_max_per_tag(world, placement),
        fallback=_fallback(world, place, parts.get("fallback")),
        explore=_explore(world, place, parts.get("explore")),
        minimum_score=_minimum(parts.get("minimum")),
        changeable=_changeable(world, placement, parts.get("changeable")),
        span=placement.span,
    )


def _candidates(world: World, placement: Located[PlacementDecl]) -> tuple[Selector, ...]:
    targets = [target for clause in _clauses(placement, "candidates") for target in clause.parts]
    return tuple(select(world, placement.place, cast("Target", target)) for target in targets)


def select(world: World, place: Place, target: Target) -> Selector:
    """A selector of offers; an unknown offer or tag is reported."""
    if target.is_tag:
        world.tag_known(target.word, place)
        return Selector(tag=target.word.text)
    world.offer_known(target.word, place)
    return Selector(offer=target.word.text)


def _model(world: World, place: Place, clause: Clause | None) -> str | None:
    if clause is None:
        return None
    word = cast("Word", clause.parts[0])
    if world.models is not None:
        world.known(dict.fromkeys(world.models), word, place, Code.UNKNOWN_MODEL, "model")
    return word.text


def whole_number(world: World, place: Place, constant: Constant, most: int, what: str) -> int:
    """A whole number from 1 to `most`; anything else is reported and read as 1."""
    if isinstance(constant.value, int) and 1 <= constant.value <= most:
        return constant.value
    message = f"{what} is a whole number from 1 to {most}"
    world.report.add(Code.BAD_ARGUMENT, message, place.span(constant.at))
    return 1


def _limit(world: World, place: Place, clause: Clause | None) -> int:
    if clause is None:
        return LIMIT_DEFAULT
    return whole_number(world, place, cast("Constant", clause.parts[0]), LIMIT_MAX, "limit")


def _max_per_tag(world: World, placement: Located[PlacementDecl]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for clause in _clauses(placement, "at"):
        count, tag = cast("tuple[Constant, Word]", clause.parts)
        world.tag_known(tag, placement.place)
        if tag.text in limits:
            message = f'the tag "{tag.text}" is limited twice'
            world.report.add(Code.DUPLICATE_NAME, message, placement.place.span(tag.at), "keep one")
        limits[tag.text] = whole_number(world, placement.place, count, LIMIT_MAX, "a limit per tag")
    return limits


def _fallback(world: World, place: Place, clause: Clause | None) -> tuple[str, ...]:
    words = () if clause is None else cast("tuple[Word, ...]", clause.parts)
    for word in words:
        world.offer_known(word, place)
    return tuple(word.text for word in words)


def _minimum(clause: Clause | None) -> float | None:
    return None if clause is None else float(cast("float", cast("Constant", clause.parts[0]).value))


def _explore(world: World, place: Place, clause: Clause | None) -> Explore:
    if clause is None:
        return Explore()
    if len(clause.parts) > 3:
        return _thompson(world, place, clause)
    kind, parameter, top_k = cast("tuple[Word, Constant, Constant]", clause.parts)
    value = float(cast("float", parameter.value))
    softmax = kind.text.lower() == "softmax"
    if value <= 0 or (not softmax and value > 1):
        what = "temperature is above 0" if softmax else "epsilon is above 0 and at most 1"
        world.report.add(Code.BAD_ARGUMENT, what, place.span(parameter.at))
    return Explore(
        kind=Exploration.SOFTMAX if softmax else Exploration.EPSILON_GREEDY,
        top_k=whole_number(world, place, top_k, LIMIT_MAX, "top"),
        parameter=value,
    )


def _changeable(world: World, placement: Located[PlacementDecl], clause: Clause | None) -> tuple[str, ...]:
    """Canonical names of the inputs that a why-not answer may change."""
    scope = Scope(
        catalog=world.catalog,
        views_of=world.views_of,
        context=world.contexts[placement.name],
        attributes=world.attributes,
    )
    names: dict[str, None] = {}
    for path in cast("tuple[Path, ...]", () if clause is None else clause.parts):
        span = placement.place.span(path.at)
        ref = scope.resolve(path.parts, span, world.report)
        if ref is None:
            continue
        problem = _unchangeable(ref)
        if problem:
            world.report.add(Code.BAD_ARGUMENT, f"{ref.name} {problem}", span, "leave it out")
        if ref.name in names:
            world.report.add(Code.DUPLICATE_NAME, f"{ref.name} is given twice", span, "keep one")
        names[ref.name] = None
    return tuple(names)


def _unchangeable(ref: Ref) -> str:
    """Why an input cannot be changed, or empty."""
    if ref.name == f"context.{CUSTOMER}":
        return "says who asks and cannot change"
    if ref.name.startswith("offer."):
        return "is written in this policy and is no input"
    return "is a list, which is compared with no constant" if ref.dtype in ELEMENTS else ""


def _thompson(world: World, place: Place, clause: Clause) -> Explore:
    successes, failures, prior, top_k = cast(
        "tuple[Path | None, Path | None, tuple[Constant, Constant] | None, Constant]", clause.parts
    )
    if successes is None and prior is None:
        message = "Thompson sampling needs counts, a prior or both"
        hint = "write thompson successes view.clicks failures view.misses prior 1, 20 over top 5"
        world.report.add(Code.BAD_ARGUMENT, message, place.span(clause.at), hint)
    shapes = [_shape(world, place, constant) for constant in prior or ()]
    return Explore(
        kind=Exploration.THOMPSON,
        top_k=whole_number(world, place, top_k, THOMPSON_MAX, "top of Thompson sampling"),
        prior=(shapes[0], shapes[1]) if shapes else (1.0, 1.0),
        successes=_count(world, place, successes),
        failures=_count(world, place, failures),
    )


def _shape(world: World, place: Place, constant: Constant) -> float:
    value = float(cast("float", constant.value))
    if not SHAPE_LEAST <= value <= SHAPE_MOST:
        message = f"a prior is from {SHAPE_LEAST} to {SHAPE_MOST:,.0f}"
        world.report.add(Code.BAD_ARGUMENT, message, place.span(constant.at))
    return value


def _count(world: World, place: Place, path: Path | None) -> FeatureRef | None:
    """The feature that counts; None where there is none or it cannot, which is reported."""
    if path is None:
        return None
    span = place.span(path.at)
    ref = Scope(catalog=world.catalog, views_of=world.views_of).resolve(path.parts, span, world.report)
    if ref is None:
        return None
    if ref.dtype not in NUMBERS:
        world.report.add(Code.TYPE_MISMATCH, f"`{ref.name}` is {type_name(ref.dtype)}, not a count", span)
        return None
    view, _, feature = ref.name.partition(".")
    keys = world.catalog.view_by_name[view].key_names
    missing = [key for key in keys if key != world.customer_key and key not in world.offer_keys]
    if missing:
        message = f"`{ref.name}` needs the join key `{missing[0]}`, which no offer declares"
        hint = f"declare it, as in offer NAME ({missing[0]} = …)"
        world.report.add(Code.UNKNOWN_KEY, message, span, hint)
        return None
    return FeatureRef(view=view, feature=feature)
