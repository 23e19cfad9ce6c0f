"""What each production of the grammar becomes: a node of the untyped tree, from tokens and nodes below it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, cast

from lark import Transformer

from decision.lang.calendar import UNITS_US
from decision.lang.limits import IN_ITEMS_MAX, NESTING_MAX
from decision.lang.tokens import Token, TokenError
from decision.lang.tree import (
    ActionCall,
    At,
    CapDecl,
    Choice,
    Clause,
    Constant,
    Duration,
    Invoke,
    Node,
    OfferDecl,
    Operation,
    Path,
    PlacementDecl,
    RuleDecl,
    SegmentDecl,
    Target,
    Word,
    deeper_than,
)
from decision.lang.values import INT64_MAX


def _word(token: Token) -> Word:
    return Word(str(token), token.at)


def _number(token: Token, sign: int = 1, start: int | None = None) -> Constant:
    """Digits alone are int64, with a point or exponent float64."""
    at = (token.at[0] if start is None else start, token.at[1])
    if token.isdigit():
        return Constant(_int(token, sign, at), at)
    value = sign * float(token)
    if value in (float("inf"), float("-inf")):
        raise TokenError("this number is out of float64's range", *at)
    return Constant(value, at)


INT64_DIGITS: Final = 19


def _int(token: Token, sign: int, at: At) -> int:
    digits = token.lstrip("0") or "0"
    value = sign * int(digits) if len(digits) <= INT64_DIGITS else 2**64
    if not -INT64_MAX - 1 <= value <= INT64_MAX + 1:
        raise TokenError("this number is out of int64's range", *at, "write it with a decimal point")
    return value


def _duration(number: Token, unit: Token) -> Duration:
    at = (number.at[0], unit.at[1])
    if len(number) > 2 * INT64_DIGITS or "e" in number.lower():
        raise TokenError(
            "this interval is out of range", *at, "write it in plain digits, at most 292,000 years"
        )
    value_us = Decimal(str(number)) * UNITS_US[unit.lower().removesuffix("s")]
    if value_us != int(value_us) or value_us > INT64_MAX:
        raise TokenError("an interval is a whole number of microseconds below 292,000 years", *at)
    return Duration(int(value_us), at)


Children = list[Any]


class Builder(Transformer[Any, object]):
    """Builds the tree while a text is parsed; parts are tokens and what other methods returned."""

    def segment(self, parts: Children) -> SegmentDecl:
        _, name, description, dwell, condition = parts
        return SegmentDecl(_word(name), str(description or ""), bounded(condition), dwell)

    def dwell(self, parts: Children) -> Duration:
        return cast("Duration", parts[-1])

    def placement(self, parts: Children) -> PlacementDecl:
        return PlacementDecl(_word(parts[1]), tuple(parts[2:]))

    def context(self, parts: Children) -> Clause:
        return _clause(parts, parts[1:])

    def context_item(self, parts: Children) -> tuple[Word, Word]:
        return _word(parts[0]), _word(parts[1])

    def candidates(self, parts: Children) -> Clause:
        return _clause(parts, parts[1:])

    def selector(self, parts: Children) -> Target:
        return Target(_word(parts[-1]), is_tag=len(parts) > 1)

    selector_tag = selector

    def model(self, parts: Children) -> Clause:
        return _clause(parts, [_word(parts[1])])

    def limit(self, parts: Children) -> Clause:
        return _clause(parts, parts[1:])

    def at_most(self, parts: Children) -> Clause:
        return _clause(parts, [parts[2], _word(parts[4])])

    def minimum(self, parts: Children) -> Clause:
        return _clause(parts, parts[2:])

    def explore(self, parts: Children) -> Clause:
        numbers = [part for part in parts if isinstance(part, Constant)]
        return _clause(parts, [_word(parts[1]), *numbers])

    def thompson(self, parts: Children) -> Clause:
        _, _, _, successes, _, failures, prior, _, _, top_k = parts
        return Clause("explore", (successes, failures, prior, top_k), _clause(parts[:2], []).at)

    def prior(self, parts: Children) -> tuple[Constant, Constant]:
        return parts[1], parts[2]

    def fallback(self, parts: Children) -> Clause:
        return _clause(parts, [_word(name) for name in parts[1:]])

    def changeable(self, parts: Children) -> Clause:
        return _clause(parts, parts[1:])

    def offer(self, parts: Children) -> OfferDecl:
        return OfferDecl(_word(parts[1]), parts[2] or (), tuple(parts[3:]))

    def keys(self, parts: Children) -> tuple[tuple[Word, Constant], ...]:
        return tuple(parts[:-1])

    def key(self, parts: Children) -> tuple[Word, Constant]:
        return _word(parts[0]), _constant(parts[2])

    def content(self, parts: Children) -> Clause:
        return _clause(parts, [_word(parts[1])])

    def value(self, parts: Children) -> Clause:
        return _clause(parts, parts[1:])

    weight = value

    def tags(self, parts: Children) -> Clause:
        return _clause(parts, [_word(tag) for tag in parts[1:]])

    def set(self, parts: Children) -> Clause:
        return _clause(parts, [_word(parts[1]), _constant(parts[3])])

    def when(self, parts: Children) -> Clause:
        return _clause(parts, [bounded(parts[1])])

    def cap(self, parts: Children) -> CapDecl:
        _, name, on, placement, _, _, limit, _, window, customer, target, _, _, counter = parts
        per_customer = customer is not None
        return CapDecl(
            _word(name), _word(placement) if on else None, limit, window, per_customer, target, counter
        )

    def per_customer(self, parts: Children) -> bool:
        """Of a cap: it says so."""
        return bool(parts)

    def per(self, parts: Children) -> Target | None:
        return (
            Target(_word(parts[2]), is_tag=parts[1].type in ("TAG", "TAGGED"))
            if parts[2] is not None
            else None
        )

    def duration(self, parts: Children) -> Duration:
        return _duration(parts[0], parts[1])

    def rule(self, parts: Children) -> RuleDecl:
        _, name, _, placement, priority, active, _, condition, _, actions, _, otherwise = parts
        since, until = active or (None, None)
        return RuleDecl(
            _word(name),
            _word(placement),
            priority,
            since,
            until,
            bounded(condition),
            actions,
            otherwise or (),
        )

    def priority(self, parts: Children) -> Constant:
        return cast("Constant", parts[1])

    def active_from(self, parts: Children) -> tuple[Word | None, Word | None]:
        return _word(parts[3]), None

    def active_until(self, parts: Children) -> tuple[Word | None, Word | None]:
        return None, _word(parts[3])

    def active_between(self, parts: Children) -> tuple[Word | None, Word | None]:
        return _word(parts[3]), _word(parts[5])

    def actions(self, parts: Children) -> tuple[ActionCall, ...]:
        return tuple(parts)

    def action(self, parts: Children) -> ActionCall:
        name, *args, closing = parts
        words = tuple(
            _word(cast("Token", arg)) if isinstance(arg, str) else arg for arg in args if arg is not None
        )
        return ActionCall(_word(name), words, (name.at[0], closing.at[1]))

    def number(self, parts: Children) -> Constant:
        return _number(parts[-1]) if len(parts) == 1 else _number(parts[1], -1, parts[0].at[0])

    def any_of(self, parts: Children) -> Operation:
        return _operation("OR", [part for part in parts if not isinstance(part, str)])

    def all_of(self, parts: Children) -> Operation:
        return _operation("AND", [part for part in parts if not isinstance(part, str)])

    def inversion(self, parts: Children) -> Operation:
        return Operation("NOT", (parts[1],), (parts[0].at[0], parts[1].at[1]))

    def compare(self, parts: Children) -> Operation:
        left, op, right = parts
        return _operation(str(op), [left, right])

    arithmetic = compare

    def member(self, parts: Children) -> Operation:
        items, end = parts[-1]
        return Operation("IN", (parts[0], *items), (parts[0].at[0], end))

    def not_member(self, parts: Children) -> Operation:
        return _inverted(self.member(parts))

    def items(self, parts: Children) -> tuple[tuple[Node, ...], int]:
        *items, closing = parts
        if len(items) > IN_ITEMS_MAX:
            message = f"IN lists hold at most {IN_ITEMS_MAX} items"
            raise TokenError(message, closing.at[0], closing.at[1], bound=True)
        return tuple(items), closing.at[1]

    def like(self, parts: Children) -> Operation:
        return _operation("LIKE", [parts[0], parts[-1]])

    def not_like(self, parts: Children) -> Operation:
        return _inverted(self.like(parts))

    def between(self, parts: Children) -> Operation:
        return _operation("BETWEEN", [parts[0], parts[-3], parts[-1]])

    def not_between(self, parts: Children) -> Operation:
        return _inverted(self.between(parts))

    def is_null(self, parts: Children) -> Operation:
        return Operation("IS NULL", (parts[0],), (parts[0].at[0], parts[-1].at[1]))

    def is_not_null(self, parts: Children) -> Operation:
        return _inverted(self.is_null(parts))

    def negative(self, parts: Children) -> Node:
        sign, operand = parts
        at = (sign.at[0], operand.at[1])
        if isinstance(operand, Constant) and isinstance(operand.value, int | float) and operand.value > 0:
            return Constant(-operand.value, at)
        return Operation("NEG", (operand,), at)

    def number_literal(self, parts: Children) -> Constant:
        return _number(parts[0])

    def string_literal(self, parts: Children) -> Constant:
        return Constant(str(parts[0]), parts[0].at)

    def constant_literal(self, parts: Children) -> Constant:
        return _constant(parts[0])

    def call(self, parts: Children) -> Invoke:
        name, *args, closing = parts
        return Invoke(_word(name), tuple(arg for arg in args if arg is not None), (name.at[0], closing.at[1]))

    def parentheses(self, parts: Children) -> Node:
        return cast("Node", parts[0])

    def path(self, parts: Children) -> Path:
        return Path(tuple(map(str, parts)), (parts[0].at[0], parts[-1].at[1]))

    def case(self, parts: Children) -> Choice:
        nodes = [part for part in parts if part is not None and not isinstance(part, str)]
        default = nodes.pop() if len(nodes) % 2 else None
        branches = tuple(zip(nodes[::2], nodes[1::2], strict=True))
        return Choice(branches, default, (parts[0].at[0], parts[-1].at[1]))


def _clause(parts: Children, held: list[Any]) -> Clause:
    """A clause is named by its first word; its place is that word."""
    return Clause(parts[0].type.lower(), tuple(held), parts[0].at)


def _constant(part: Token | Constant) -> Constant:
    if isinstance(part, Constant):
        return part
    values = {"TRUE": True, "FALSE": False, "NULL": None}
    return Constant(values.get(part.type, str(part)), part.at)


def _operation(op: str, operands: list[Any]) -> Operation:
    return Operation(op, tuple(operands), (operands[0].at[0], operands[-1].at[1]))


def _inverted(operation: Operation) -> Operation:
    return Operation("NOT", (operation,), operation.at)


def bounded(node: Any) -> Any:
    """The condition, if it is not nested too deep."""
    if deeper_than(node, NESTING_MAX):
        message = f"a condition nests at most {NESTING_MAX} levels deep"
        raise TokenError(message, node.at[0], node.at[1], "split it", bound=True)
    return node
