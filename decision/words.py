"""Conditions in words: the text of a typed tree, and which part of it failed for which values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from decision.lang.format import format_expr, format_literal, format_string
from decision.lang.instants import format_instant
from decision.lang.interpreter import evaluate
from decision.lang.syntax import And, Expr, Ref, walk
from decision.lang.types import ELEMENTS
from decision.policy import Action, Boost, Exclude, Include, Pin, Selector, Show, TagDecision
from decision.schema import DType, Value

_MOST: Final = 5
"""Most list items and values that a sentence spells out."""
_TEXT_MAX: Final = 300
"""Most characters of a condition's text."""


def failures(condition: Expr, row: Mapping[str, Value], now_us: int) -> tuple[str, ...]:
    """Each part of a conjunction that is not TRUE, as a sentence with the values it read.

    Args:
        condition: A typed tree of type bool.
        row: Values by canonical name; an absent one is NULL.
        now_us: The value of `now()`, microseconds since the epoch.
    """
    return tuple(
        f"{spell(part)} is {truth(value)}{_where(part, row)}"
        for part in _conjuncts(condition)
        if (value := evaluate(part, row, now_us)) is not True
    )


def truth(value: Value) -> str:
    """TRUE, FALSE or NULL."""
    return "NULL" if value is None else str(value).upper()


def spell(expr: Expr) -> str:
    """The text of a tree, cut where it is long; not always the text it was parsed from, but of the same meaning."""
    text = format_expr(expr)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def spell_value(value: Value, dtype: DType) -> str:
    """A value as a condition would write it, with an instant as a clock shows it."""
    if isinstance(value, tuple):
        element = ELEMENTS.get(dtype, dtype)
        items = [spell_value(item, element) for item in value[:_MOST]]
        return f"[{', '.join(items)}{', …' if len(value) > _MOST else ''}]"
    if dtype is DType.TIMESTAMP and isinstance(value, int):
        return format_instant(value) or f"{value} µs"
    return format_literal(value, dtype)


def spell_action(action: Action) -> str:
    """An action as a policy would write it."""
    match action:
        case Show(offer=name):
            return f"show({format_string(name)})"
        case Pin(offer=name, position=position):
            return f"pin({format_string(name)}, {position})"
        case TagDecision(name=name):
            return f"tag({format_string(name)})"
        case Boost(selector=selector, factor=factor):
            arguments = (*_selected(selector), f"{factor:g}")
            return f"{'boost' if factor >= 1 else 'bury'}({', '.join(arguments)})"
        case Include(selector=selector):
            return f"include({', '.join(_selected(selector))})"
        case Exclude(selector=selector):
            return f"exclude({', '.join(_selected(selector))})"
        case _:
            assert_never(action)


def _selected(selector: Selector) -> tuple[str, ...]:
    if selector.tag is not None:
        return (f"tag {format_string(selector.tag)}",)
    return () if selector.offer is None else (format_string(selector.offer),)


def _conjuncts(condition: Expr) -> Iterator[Expr]:
    if not isinstance(condition, And):
        yield condition
        return
    for operand in condition.operands:
        yield from _conjuncts(operand)


def _where(part: Expr, row: Mapping[str, Value]) -> str:
    types = dict(sorted((node.name, node.dtype) for node in walk(part) if isinstance(node, Ref)))
    texts = [f"{name} is {spell_value(row.get(name), dtype)}" for name, dtype in types.items()]
    return f" ({', '.join(texts[:_MOST])})" if texts else ""
