"""Text to untyped declarations.

A file is cut where a line starts with a declaration's keyword and a name, and every piece is parsed by itself: one
broken declaration does not hide the others, and an unchanged one is parsed once per process, wherever it moves.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from itertools import pairwise
from typing import Any, Final, cast

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError
from lark.lexer import Lexer

from decision.lang.calendar import UNITS_US
from decision.lang.findings import Code, nearest
from decision.lang.limits import IN_ITEMS_MAX, NESTING_MAX
from decision.lang.tokens import SOFT, TokenError, tokenize
from decision.lang.tree import (
    ActionCall,
    At,
    CapDecl,
    Choice,
    Clause,
    Constant,
    Decl,
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

START: Final = re.compile(
    r"^[ \t]*(?=(?:segment|placement|offer|cap|rule)[ \t]+[\w`])", re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one declaration and where it starts; `declares` is false for what precedes the first one."""

    text: str
    offset: int
    declares: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a text did not parse."""

    code: Code
    message: str
    suggestion: str
    at: At


def pieces(text: str) -> Iterator[Piece]:
    """Cut a file into declarations; joined, the pieces are the file."""
    starts = [found.start() for found in START.finditer(text)]
    if not starts or starts[0] > 0:
        yield Piece(text[: starts[0] if starts else len(text)], 0, declares=False)
    for start, end in pairwise([*starts, len(text)]):
        yield Piece(text[start:end], start, declares=True)


def parse_preamble(text: str) -> Failure | None:
    """What stands before the first declaration may only be comments."""
    try:
        token = next(tokenize(text), None)
    except TokenError as error:
        return _token_failure(error)
    if token is None:
        return None
    known = ("segment", "placement", "offer", "cap", "rule")
    message = f"expected a declaration, found `{_clip(token)}`"
    hint = nearest(token.lower(), known) or f"a declaration starts with one of {', '.join(known)} and a name"
    return Failure(Code.SYNTAX, message, hint, _at(token))


@functools.lru_cache(maxsize=32_768)
def parse_declaration(text: str) -> Decl | Failure:
    """Parse one declaration. Kept by text."""
    return cast("Decl | Failure", _parse(text, "declaration"))


def parse_expression(text: str) -> Node | Failure:
    """Parse one expression that stands by itself, such as a golden case."""
    return cast("Node | Failure", _parse(text, "expression"))


def _parse(text: str, start: str) -> object:
    try:
        tree = load_grammar().parse(text, start=start)
        return _bounded(tree) if start == "expression" else tree
    except TokenError as error:
        return _token_failure(error)
    except UnexpectedInput as error:
        return _unexpected(error, text)
    except VisitError as error:
        if isinstance(error.orig_exc, TokenError):
            return _token_failure(error.orig_exc)
        raise


def _token_failure(error: TokenError) -> Failure:
    code = Code.BOUND_EXCEEDED if error.bound else Code.SYNTAX
    return Failure(code, error.message, error.suggestion, (error.start, error.end))


def _unexpected(error: UnexpectedInput, text: str) -> Failure:
    if not isinstance(error, UnexpectedToken):
        return Failure(Code.SYNTAX, "this does not parse", "", (0, 1))
    expected = sorted(map(_readable, error.accepts or error.expected))
    listed = _listed(expected)
    hint = _spelling(error.token, expected) or (f"expected {listed}" if listed else "")
    if error.token.type == "$END":
        end = len(text.rstrip())
        return Failure(Code.SYNTAX, "the declaration ends too early", hint, (max(0, end - 1), max(end, 1)))
    return Failure(Code.SYNTAX, f"unexpected `{_clip(error.token)}`", hint, _at(error.token))


def _spelling(token: Token, expected: list[str]) -> str:
    if token.type == "EQUAL":
        return "write one = to compare"
    if token.type == "IF":
        return "a rule starts with `rule NAME on PLACEMENT:`"
    return nearest(token.upper(), expected) if token.type == "NAME" else ""


def _clip(token: Token) -> str:
    return token if len(token) <= 40 else token[:37] + "..."


READABLE: Final = {
    "_LPAR": "(",
    "RPAR": ")",
    "_COMMA": ",",
    "_COLON": ":",
    "_DOT": ".",
    "PLUS": "+",
    "MINUS": "-",
    "STAR": "*",
    "SLASH": "/",
    "PERCENT": "%",
    "EQUAL": "=",
    "COMPARE": "a comparison",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "UNIT": "a unit such as minutes",
    "JSON": "a JSON object",
    "$END": "the end",
}


def _readable(terminal: str) -> str:
    return READABLE.get(terminal, terminal)


ARITHMETIC: Final = frozenset("+-*/%.")


def _listed(expected: list[str]) -> str:
    """The expected in words; where a name fits, keywords that may serve as names are not listed."""
    if "a name" in expected:
        expected = [word for word in expected if word not in SOFT and word != READABLE["UNIT"]]
    telling = [word for word in expected if word not in ARITHMETIC] or expected
    return " or ".join(filter(None, [", ".join(telling[:-1]), *telling[-1:]]))


def _at(token: Token) -> At:
    return token.start_pos or 0, token.end_pos or 0


class _Lexer(Lexer):
    """Hands our tokens to lark."""

    def __init__(self, lexer_conf: object) -> None:
        """Take lark's configuration, of which nothing is needed."""

    def lex(self, data: str) -> Iterator[Token]:  # type: ignore[override]
        return tokenize(data)


@functools.cache
def load_grammar() -> Lark:
    """The parser's tables, made once per process."""
    grammar = resources.files("decision.lang").joinpath("grammar.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer=_Lexer,
        start=["declaration", "expression"],
        transformer=_Builder(),
        maybe_placeholders=True,
    )


def _word(token: Token) -> Word:
    return Word(str(token), _at(token))


def _number(token: Token, sign: int = 1, start: int | None = None) -> Constant:
    """Digits alone are int64, with a point or exponent float64."""
    at = (_at(token)[0] if start is None else start, _at(token)[1])
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
    at = (_at(number)[0], _at(unit)[1])
    if len(number) > 2 * INT64_DIGITS or "e" in number.lower():
        raise TokenError(
            "this interval is out of range", *at, "write it in plain digits, at most 292,000 years"
        )
    value_us = Decimal(str(number)) * UNITS_US[unit.lower().removesuffix("s")]
    if value_us != int(value_us) or value_us > INT64_MAX:
        raise TokenError("an interval is a whole number of microseconds below 292,000 years", *at)
    return Duration(int(value_us), at)


Children = list[Any]


class _Builder(Transformer[Token, object]):
    """Builds the tree while lark reduces; children are tokens and what other methods returned."""

    def segment(self, parts: Children) -> SegmentDecl:
        _, name, description, dwell, condition = parts
        return SegmentDecl(_word(name), str(description or ""), _bounded(condition), dwell)

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
        return _clause(parts, [_bounded(parts[1])])

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
            _bounded(condition),
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
        words = tuple(_word(arg) if isinstance(arg, Token) else arg for arg in args if arg is not None)
        return ActionCall(_word(name), words, (_at(name)[0], _at(closing)[1]))

    def number(self, parts: Children) -> Constant:
        return _number(parts[-1]) if len(parts) == 1 else _number(parts[1], -1, _at(parts[0])[0])

    def any_of(self, parts: Children) -> Operation:
        return _operation("OR", [part for part in parts if not isinstance(part, Token)])

    def all_of(self, parts: Children) -> Operation:
        return _operation("AND", [part for part in parts if not isinstance(part, Token)])

    def inversion(self, parts: Children) -> Operation:
        return Operation("NOT", (parts[1],), (_at(parts[0])[0], parts[1].at[1]))

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
            raise TokenError(message, _at(closing)[0], _at(closing)[1], bound=True)
        return tuple(items), _at(closing)[1]

    def like(self, parts: Children) -> Operation:
        return _operation("LIKE", [parts[0], parts[-1]])

    def not_like(self, parts: Children) -> Operation:
        return _inverted(self.like(parts))

    def between(self, parts: Children) -> Operation:
        return _operation("BETWEEN", [parts[0], parts[-3], parts[-1]])

    def not_between(self, parts: Children) -> Operation:
        return _inverted(self.between(parts))

    def is_null(self, parts: Children) -> Operation:
        return Operation("IS NULL", (parts[0],), (parts[0].at[0], _at(parts[-1])[1]))

    def is_not_null(self, parts: Children) -> Operation:
        return _inverted(self.is_null(parts))

    def negative(self, parts: Children) -> Node:
        sign, operand = parts
        at = (_at(sign)[0], operand.at[1])
        if isinstance(operand, Constant) and isinstance(operand.value, int | float) and operand.value > 0:
            return Constant(-operand.value, at)
        return Operation("NEG", (operand,), at)

    def number_literal(self, parts: Children) -> Constant:
        return _number(parts[0])

    def string_literal(self, parts: Children) -> Constant:
        return Constant(str(parts[0]), _at(parts[0]))

    def constant_literal(self, parts: Children) -> Constant:
        return _constant(parts[0])

    def call(self, parts: Children) -> Invoke:
        name, *args, closing = parts
        return Invoke(
            _word(name), tuple(arg for arg in args if arg is not None), (_at(name)[0], _at(closing)[1])
        )

    def parentheses(self, parts: Children) -> Node:
        return cast("Node", parts[0])

    def path(self, parts: Children) -> Path:
        return Path(tuple(map(str, parts)), (_at(parts[0])[0], _at(parts[-1])[1]))

    def case(self, parts: Children) -> Choice:
        nodes = [part for part in parts if part is not None and not isinstance(part, Token)]
        default = nodes.pop() if len(nodes) % 2 else None
        branches = tuple(zip(nodes[::2], nodes[1::2], strict=True))
        return Choice(branches, default, (_at(parts[0])[0], _at(parts[-1])[1]))


def _clause(parts: Children, held: list[Any]) -> Clause:
    """A clause is named by its first word; its place is that word."""
    return Clause(parts[0].type.lower(), tuple(held), _at(parts[0]))


def _constant(part: Token | Constant) -> Constant:
    if isinstance(part, Constant):
        return part
    values = {"TRUE": True, "FALSE": False, "NULL": None}
    return Constant(values.get(part.type, str(part)), _at(part))


def _operation(op: str, operands: list[Any]) -> Operation:
    return Operation(op, tuple(operands), (operands[0].at[0], operands[-1].at[1]))


def _inverted(operation: Operation) -> Operation:
    return Operation("NOT", (operation,), operation.at)


def _bounded(node: Any) -> Any:
    if deeper_than(node, NESTING_MAX):
        message = f"a condition nests at most {NESTING_MAX} levels deep"
        raise TokenError(message, node.at[0], node.at[1], "split it", bound=True)
    return node
