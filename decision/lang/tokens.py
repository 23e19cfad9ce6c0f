"""Text of one declaration to tokens, with bounds that hold before anything is parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, Self, cast

from decision.lang.limits import (
    DECLARATION_TOKENS_MAX,
    JSON_CHARS_MAX,
    JSON_NESTING_MAX,
    NAME_CHARS_MAX,
    NESTING_MAX,
    STRING_CHARS_MAX,
)
from decision.lang.tree import At

RESERVED: Final = frozenset(
    "AND OR NOT IN IS NULL BETWEEN LIKE CASE WHEN THEN ELSE END IF TRUE FALSE".split()
)
"""Words that are names only in backticks, in either case."""

SOFT: Final = frozenset(
    """SEGMENT PLACEMENT OFFER CAP RULE ON PRIORITY ACTIVE FROM UNTIL CONTEXT CANDIDATES TAGGED TAG MODEL LIMIT AT MOST
    LEAST EXPLORE EPSILON SOFTMAX TEMPERATURE OVER TOP FALLBACK MINIMUM SCORE CONTENT VALUE TAGS SET PER COUNTED
    BY CHANGEABLE THOMPSON SUCCESSES FAILURES PRIOR WEIGHT CUSTOMER""".split()
)
"""Words with a meaning in their place, names everywhere else."""

UNITS: Final = frozenset("SECOND SECONDS MINUTE MINUTES HOUR HOURS DAY DAYS WEEK WEEKS".split())

KEYWORDS: Final = {word: word for word in RESERVED | SOFT} | dict.fromkeys(UNITS, "UNIT")

PUNCTUATION: Final = {
    "(": "_LPAR",
    ")": "RPAR",
    ",": "_COMMA",
    ":": "_COLON",
    ".": "_DOT",
    "+": "PLUS",
    "-": "MINUS",
    "*": "STAR",
    "/": "SLASH",
    "%": "PERCENT",
    "=": "EQUAL",
    "<>": "COMPARE",
    "!=": "COMPARE",
    "<": "COMPARE",
    "<=": "COMPARE",
    ">": "COMPARE",
    ">=": "COMPARE",
}

TOKEN: Final = re.compile(
    r"""(?:[ \t\r\n\f\ufeff]+|--[^\n]*|\#[^\n]*)*+
      (?: (?P<word>[^\W\d]\w*)
      | (?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<string>"(?:[^"\n]|"")*+"|'(?:[^'\n]|'')*+')
      | (?P<quoted>`[^`\n]+`)
      | (?P<mark><>|!=|<=|>=|[=<>+\-*/%(),:.]))?""",
    re.VERBOSE,
)
"""What is skipped, then a token, or nothing where none starts."""


class Token(str):
    """The content of a word or sign, with its terminal in the grammar and its place in the text."""

    __slots__ = ("at", "type")

    type: str
    at: At

    def __new__(cls, terminal: str, content: str, at: At) -> Self:
        """Put one together."""
        token = super().__new__(cls, content)
        token.type = terminal
        token.at = at
        return token


class TokenError(Exception):
    """Text that is no token, or too much of it."""

    def __init__(self, message: str, start: int, end: int, suggestion: str = "", bound: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
        self.suggestion = suggestion
        self.bound = bound


def tokenize(text: str) -> Iterator[Token]:
    """Tokens with offsets into the text; strings and names carry their content, JSON its text.

    Raises:
        TokenError: At the first character that starts no token, or where a bound is exceeded.
    """
    at = count = depth = prefixes = 0
    terminal = ""
    while (token := _next(text, at, after_content=terminal == "CONTENT")) is not None:
        terminal = token.type
        at = token.at[1]
        count += 1
        depth += DEEPER.get(terminal, 0)
        prefixes = prefixes + 1 if terminal in PREFIXES else 0
        _check_bounds(token, count, depth + prefixes)
        yield token


DEEPER: Final = {"_LPAR": 1, "RPAR": -1, "CASE": 1, "END": -1}
"""How much deeper what follows a token lies."""

PREFIXES: Final = frozenset({"NOT", "MINUS"})
"""Each of several in a row takes what follows it as its operand."""

CHARS_MAX: Final = {"STRING": STRING_CHARS_MAX, "JSON": JSON_CHARS_MAX}


def _check_bounds(token: Token, count: int, depth: int) -> None:
    start, end = token.at
    if count > DECLARATION_TOKENS_MAX:
        message = f"a declaration has at most {DECLARATION_TOKENS_MAX} words and signs"
        raise TokenError(message, start, end, "split it", bound=True)
    chars = CHARS_MAX.get(token.type, NAME_CHARS_MAX)
    if end - start > chars:
        raise TokenError(f"this is longer than {chars} characters", start, start + NAME_CHARS_MAX, bound=True)
    if depth > NESTING_MAX:
        raise TokenError(
            f"parentheses, CASE, NOT and signs nest at most {NESTING_MAX} deep", start, end, bound=True
        )


def _next(text: str, at: int, *, after_content: bool) -> Token | None:
    """The first token from there on, or None at the end."""
    found = cast("re.Match[str]", TOKEN.match(text, at))
    if found.lastindex is None:
        return _irregular(text, found.end(), after_content=after_content)
    place = found.span(found.lastindex)
    raw = found[found.lastindex]
    match found.lastgroup:
        case "word":
            return Token(KEYWORDS.get(raw.upper(), "NAME"), raw, place)
        case "mark":
            return Token(PUNCTUATION[raw], "<>" if raw == "!=" else raw, place)
        case "number":
            return Token("NUMBER", raw, place)
        case "string":
            return Token("STRING", raw[1:-1].replace(raw[0] * 2, raw[0]), place)
        case _:
            return Token("NAME", raw[1:-1], place)


def _irregular(text: str, at: int, *, after_content: bool) -> Token | None:
    """What no regular token is: JSON, the end, a fault."""
    if at == len(text):
        return None
    if after_content and text[at] == "{":
        return _json(text, at)
    raise _no_token(text, at)


def _no_token(text: str, at: int) -> TokenError:
    mark = text[at]
    if mark in "\"'`":
        end = text.find("\n", at)
        return TokenError(
            "this quote is not closed on its line", at, len(text) if end < 0 else end, f"add {mark}"
        )
    hint = "content is a JSON object after the word `content`" if mark in "{}[]" else ""
    return TokenError(f"unexpected character {mark!r}", at, at + 1, hint)


def _json(text: str, at: int) -> Token:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise TokenError(f"not JSON: {error.msg}", error.pos, error.pos + 1) from error
    except (RecursionError, ValueError) as error:
        raise TokenError(f"not JSON that can be read: {error}", at, at + 1) from error
    if _nesting(value) > JSON_NESTING_MAX:
        raise TokenError(f"JSON nests at most {JSON_NESTING_MAX} deep", at, end, bound=True)
    return Token("JSON", text[at:end], (at, end))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _nesting(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [item for node in level for item in _items(node)]
    return depth


def _items(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
