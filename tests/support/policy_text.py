"""Policies back to text, so that a policy that was drawn goes through the real compiler."""

from __future__ import annotations

import json
from collections.abc import Iterator

from decision.lang.format import format_expr, format_literal, format_name, format_string
from decision.lang.instants import format_instant
from decision.policy import (
    Action,
    Boost,
    Cap,
    Exclude,
    Exploration,
    Explore,
    Include,
    Offer,
    Pin,
    Placement,
    Policy,
    Rule,
    Segment,
    Selector,
    Show,
    TagDecision,
)
from decision.schema import DType, FeatureRef, Value


def sources(policy: Policy, split: int) -> dict[str, str]:
    """The files of a policy: from the rule and the offer of that number on, what is declared stands in the second."""
    first = [
        *map(_segment, policy.segments),
        *map(_placement, policy.placements),
        *map(_offer, policy.offers[:split]),
        *map(_rule, policy.rules[:split]),
    ]
    second = [
        *map(_offer, policy.offers[split:]),
        *map(_cap, policy.caps),
        *map(_rule, policy.rules[split:]),
    ]
    return {"a.policy": "\n".join(first), "b.policy": "\n".join(second)}


def _segment(segment: Segment) -> str:
    return f"segment {format_name(segment.name)}: {format_expr(segment.condition)}"


def _placement(placement: Placement) -> str:
    return "\n  ".join([f"placement {format_name(placement.name)}:", *_clauses(placement)])


def _clauses(placement: Placement) -> Iterator[str]:
    if placement.context:
        yield "context " + ", ".join(f"{name} {dtype.value}" for name, dtype in placement.context.items())
    if placement.candidates:
        yield "candidates " + ", ".join(map(_selector, placement.candidates))
    if placement.model is not None:
        yield f"model {format_name(placement.model)}"
    yield f"limit {placement.limit}"
    for tag, most in placement.max_per_tag.items():
        yield f"at most {most} tagged {format_string(tag)}"
    if placement.minimum_score is not None:
        yield f"minimum score {placement.minimum_score!r}"
    if placement.explore.kind is not Exploration.NONE:
        yield f"explore {_explore(placement.explore)} over top {placement.explore.top_k}"
    if placement.fallback:
        yield "fallback " + ", ".join(map(format_name, placement.fallback))


def _explore(how: Explore) -> str:
    match how.kind:
        case Exploration.EPSILON_GREEDY:
            return f"epsilon {how.parameter!r}"
        case Exploration.SOFTMAX:
            return f"softmax temperature {how.parameter!r}"
        case _:
            counts = (
                f"successes {_path(how.successes)} failures {_path(how.failures)} " if how.successes else ""
            )
            return f"thompson {counts}prior {how.prior[0]!r}, {how.prior[1]!r}"


def _path(ref: FeatureRef | None) -> str:
    return str(ref)


def _offer(offer: Offer) -> str:
    keys = ", ".join(f"{name} = {_constant(value)}" for name, value in offer.keys.items())
    lines = [
        f"offer {format_name(offer.name)}{f' ({keys})' if keys else ''}:",
        f"content {json.dumps(offer.content)}",
        f"value {offer.value!r}",
        f"weight {offer.weight!r}",
        *([f"tags {', '.join(map(format_string, offer.tags))}"] if offer.tags else []),
        *(f"set {name} = {_constant(value)}" for name, value in offer.attributes.items()),
        *([] if offer.when is None else [f"when {format_expr(offer.when)}"]),
    ]
    return "\n  ".join(lines)


def _constant(value: Value) -> str:
    dtype = {str: DType.STRING, bool: DType.BOOL, int: DType.INT64}.get(type(value), DType.FLOAT64)
    return format_literal(value, dtype)


def _cap(cap: Cap) -> str:
    on = "" if cap.placement is None else f" on {format_name(cap.placement)}"
    per = "" if cap.selector is None else f" per {_per(cap.selector)}"
    days = cap.window_s // 86_400
    return (
        f"cap {format_name(cap.name)}{on}: at most {cap.limit} in {days} days{per} counted by {cap.counter}"
    )


def _per(selector: Selector) -> str:
    if selector.offer is not None:
        return f"offer {format_string(selector.offer)}"
    return _selector(selector)


def _rule(rule: Rule) -> str:
    otherwise = f"\n  ELSE {_actions(rule.otherwise)}" if rule.otherwise else ""
    return (
        f"rule {format_name(rule.name)} on {format_name(rule.placement)} priority {rule.priority}{_life(rule)}:\n"
        f"  IF {format_expr(rule.condition)}\n  THEN {_actions(rule.actions)}{otherwise}"
    )


def _life(rule: Rule) -> str:
    since, until = (
        "" if at_us is None else f' {word} "{format_instant(at_us)}"'
        for word, at_us in (("from", rule.active_from_us), ("until", rule.active_until_us))
    )
    return f" when active{since}{until}" if since or until else ""


def _actions(actions: tuple[Action, ...]) -> str:
    return ", ".join(map(_action, actions))


def _action(action: Action) -> str:
    match action:
        case Show():
            return f"display_recommendation({format_string(action.offer)})"
        case Boost():
            name = "boost" if action.factor >= 1 else "bury"
            return f"{name}({_target(action.selector, f'{action.factor!r}')})"
        case Include():
            return f"include({_target(action.selector)})"
        case Exclude():
            return f"exclude({_target(action.selector)})"
        case Pin():
            return f"pin({format_string(action.offer)}, {action.position})"
        case TagDecision():
            return f"tag({format_string(action.name)})"


def _target(selector: Selector, *more: str) -> str:
    meant = [_selector(selector)] if selector != Selector() else []
    return ", ".join([*meant, *more])


def _selector(selector: Selector) -> str:
    if selector.tag is not None:
        return f"tag {format_string(selector.tag)}"
    return format_string(selector.offer or "")
