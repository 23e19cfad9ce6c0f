"""Rules and caps: conditions bound to their placement, and the level on which they are evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from decision.lang.actions import Acting, build_action
from decision.lang.binder import Binder
from decision.lang.bound import KEPT, Bound
from decision.lang.findings import Code
from decision.lang.fold import simplify
from decision.lang.instants import parse_instant
from decision.lang.names import CUSTOMER, Scope
from decision.lang.placements import select
from decision.lang.report import Place
from decision.lang.syntax import Ref, walk
from decision.lang.tree import ActionCall, CapDecl, RuleDecl, Word
from decision.lang.types import NUMBERS
from decision.lang.world import Located, World
from decision.policy import Action, Cap, Rule
from decision.schema import DType, FeatureRef, View

PRIORITY_MAX = 1_000_000
CAP_LIMIT_MAX = 1_000_000
SECOND_US = 1_000_000


def build_rule(world: World, rule: Located[RuleDecl]) -> Rule | None:
    """Check one rule and put it together; None where anything in it is wrong."""
    decl, place = rule.decl, rule.place
    errors_before = world.report.error_count
    known = world.known(world.placements, decl.placement, place, Code.UNKNOWN_PLACEMENT, "placement")
    context = world.contexts.get(decl.placement.text, {CUSTOMER: DType.STRING})
    bound = _condition(world, rule, context) if known else None
    per_candidate = None if bound is None else reads_candidate(world, bound.refs)
    actions = _actions(world, place, decl.actions, per_candidate)
    otherwise = _actions(world, place, decl.otherwise, per_candidate)
    priority = _priority(world, rule)
    active_from_us = _instant(world, place, decl.active_from)
    active_until_us = _instant(world, place, decl.active_until)
    if bound is None or per_candidate is None or world.report.error_count > errors_before:
        return None
    return Rule(
        name=rule.name,
        placement=decl.placement.text,
        condition=bound.condition,
        actions=actions,
        otherwise=otherwise,
        priority=priority,
        active_from_us=active_from_us,
        active_until_us=active_until_us,
        per_candidate=per_candidate,
        span=rule.span,
    )


def _condition(world: World, rule: Located[RuleDecl], context: Mapping[str, DType]) -> Bound | None:
    place = rule.place
    key = (place.text, frozenset(context.items()), world.names_hash)
    bound = KEPT.get(key, place.file, place.lines_before)
    if bound is None:
        findings_before = world.report.count
        bound = _bind(world, rule, context)
        if bound is not None and world.report.count == findings_before:
            KEPT.put(key, bound)
    if bound is not None:
        check_keys(world, bound.refs)
    return bound


def _bind(world: World, rule: Located[RuleDecl], context: Mapping[str, DType]) -> Bound | None:
    scope = Scope(
        catalog=world.catalog,
        views_of=world.views_of,
        context=context,
        attributes=world.attributes,
        labels=world.labels,
        segment_view=world.segment_view,
    )
    condition = Binder(scope, rule.place, world.report).condition(rule.decl.condition)
    if condition is None:
        return None
    refs = tuple(node for node in walk(condition) if isinstance(node, Ref))
    place = rule.place
    return Bound(condition=simplify(condition), refs=refs, file=place.file, lines_before=place.lines_before)


def reads_candidate(world: World, refs: Iterable[Ref]) -> bool:
    """Whether the value of a condition that reads these depends on the offer."""
    return any(ref.name.startswith("offer.") or world.keys_of(ref.name) for ref in refs)


def check_keys(world: World, refs: Iterable[Ref]) -> None:
    """A feature whose key no offer declares would be NULL for ever."""
    for ref in refs:
        missing = [key for key in world.keys_of(ref.name) if key not in world.offer_keys]
        if missing:
            message = f"`{ref.name}` needs the join key `{missing[0]}`, which no offer declares"
            hint = f"declare it, as in offer NAME ({missing[0]} = …)"
            world.report.add(Code.UNKNOWN_KEY, message, ref.span, hint)


def _actions(
    world: World, place: Place, calls: Iterable[ActionCall], per_candidate: bool | None
) -> tuple[Action, ...]:
    built = (build_action(Acting(world, place, call, per_candidate)) for call in calls)
    return tuple(action for action in built if action is not None)


def _priority(world: World, rule: Located[RuleDecl]) -> int:
    constant = rule.decl.priority
    if constant is None:
        return 0
    if isinstance(constant.value, int) and abs(constant.value) <= PRIORITY_MAX:
        return constant.value
    message = f"a priority is a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
    world.report.add(Code.BAD_ARGUMENT, message, rule.place.span(constant.at))
    return 0


def _instant(world: World, place: Place, word: Word | None) -> int | None:
    if word is None:
        return None
    instant_us = parse_instant(word.text)
    if instant_us is None:
        hint = 'write "2026-11-23T00:00:00Z"'
        world.report.add(Code.BAD_ARGUMENT, "this is no RFC 3339 time with a zone", place.span(word.at), hint)
    return instant_us


def build_cap(world: World, cap: Located[CapDecl]) -> Cap | None:
    """Check one cap and put it together; None where its counter is wrong."""
    decl, place = cap.decl, cap.place
    placement = decl.placement
    if placement is not None:
        world.known(world.placements, placement, place, Code.UNKNOWN_PLACEMENT, "placement")
    counter = _counter(world, cap)
    selector = None if decl.target is None else select(world, place, decl.target)
    if not isinstance(decl.limit.value, int) or not 0 <= decl.limit.value <= CAP_LIMIT_MAX:
        message = f"a cap is a whole number from 0 to {CAP_LIMIT_MAX}"
        world.report.add(Code.BAD_ARGUMENT, message, place.span(decl.limit.at))
        return None
    if counter is None:
        return None
    return Cap(
        name=cap.name,
        placement=None if placement is None else placement.text,
        limit=decl.limit.value,
        window_s=(decl.window.value_us or 0) // SECOND_US,
        selector=selector,
        counter=counter,
        span=cap.span,
    )


def _counter(world: World, cap: Located[CapDecl]) -> FeatureRef | None:
    path = cap.decl.counter
    span = cap.place.span(path.at)
    scope = Scope(catalog=world.catalog, views_of=world.views_of)
    ref = scope.resolve(path.parts, span, world.report)
    if ref is None:
        return None
    view, feature = ref.name.split(".", 1)
    problem = _counter_problem(world, cap, world.catalog.view_by_name[view], feature, ref.dtype)
    if problem:
        world.report.add(Code.BAD_CAP_COUNTER, problem[0], span, problem[1])
        return None
    return FeatureRef(view=view, feature=feature)


def _counter_problem(
    world: World, cap: Located[CapDecl], view: View, feature: str, dtype: DType
) -> tuple[str, str] | None:
    """What keeps a feature from counting for the cap, and what to do about it."""
    if dtype not in NUMBERS:
        return f"`{view.name}.{feature}` is no number", "count with a count or sum feature"
    window_s = (cap.decl.window.value_us or 0) // SECOND_US
    counted = next((item for item in view.aggregations if item.feature == feature), None)
    if counted is not None and counted.window_s != window_s:
        has = "all time" if counted.window_s is None else f"{counted.window_s} s"
        return f"`{view.name}.{feature}` counts over {has}, the cap over {window_s} s", "use the same window"
    if cap.decl.per_customer and world.customer_key not in view.key_names:
        hint = f"count with a feature that is keyed by {world.customer_key}"
        return f"`{view.name}.{feature}` does not count by customer", hint
    missing = [key for key in world.candidate_keys[view.name] if key not in world.offer_keys]
    if missing:
        hint = f"declare it, as in offer NAME ({missing[0]} = …)"
        return f"`{view.name}.{feature}` needs the join key `{missing[0]}`, which no offer declares", hint
    return None
