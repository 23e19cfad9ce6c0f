"""Text to untyped declarations.

A file is cut where a line starts with a declaration's keyword and a name, and every piece is parsed by itself: one
broken declaration does not hide the others, and an unchanged one is parsed once per process, wherever it moves.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

from decision.lang.builder import bounded
from decision.lang.findings import Code, nearest
from decision.lang.lalr import UnexpectedTokenError, parse
from decision.lang.tokens import SOFT, Token, TokenError, tokenize
from decision.lang.tree import At, Decl, Node

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
    return Failure(Code.SYNTAX, message, hint, token.at)


@functools.lru_cache(maxsize=32_768)
def parse_declaration(text: str) -> Decl | Failure:
    """Parse one declaration. Kept by text."""
    return cast("Decl | Failure", _parse(text, "declaration"))


def parse_expression(text: str) -> Node | Failure:
    """Parse one expression that stands by itself, such as a golden case."""
    return cast("Node | Failure", _parse(text, "expression"))


def _parse(text: str, start: str) -> object:
    try:
        tree = parse(text, start)
        return bounded(tree) if start == "expression" else tree
    except TokenError as error:
        return _token_failure(error)
    except UnexpectedTokenError as error:
        return _unexpected(error, text)


def _token_failure(error: TokenError) -> Failure:
    code = Code.BOUND_EXCEEDED if error.bound else Code.SYNTAX
    return Failure(code, error.message, error.suggestion, (error.start, error.end))


def _unexpected(error: UnexpectedTokenError, text: str) -> Failure:
    expected = sorted(map(_readable, error.accepted))
    listed = _listed(expected)
    hint = f"expected {listed}" if listed else ""
    if error.token is None:
        end = len(text.rstrip())
        return Failure(Code.SYNTAX, "the declaration ends too early", hint, (max(0, end - 1), max(end, 1)))
    hint = _spelling(error.token, expected) or hint
    return Failure(Code.SYNTAX, f"unexpected `{_clip(error.token)}`", hint, error.token.at)


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
