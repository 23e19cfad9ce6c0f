"""The parser's tables, made by lark from the grammar, and the loop that runs them.

Half of all productions only rename: an atom is a unary is a product is a sum, up to an expression. Their effect on the
stack is known without calling anything, so this loop reads a text in two thirds of the time that lark's own takes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from itertools import chain
from typing import Any, Final, NamedTuple

from lark import Lark
from lark import Token as LarkToken
from lark.lexer import Lexer
from lark.parse_tree_builder import ExpandSingleChild
from lark.parsers.lalr_analysis import Shift

from decision.lang.builder import Builder
from decision.lang.tokens import Token, tokenize

END: Final = "$END"


class Step(NamedTuple):
    """What to do in a state before a terminal.

    Attributes:
        shift: The state to go to with the terminal; None where a production ends before it.
        width: How many values the production is made of.
        produced: The production's name.
        build: Makes its value; None where it is that of its only part.
    """

    shift: int | None
    width: int = 0
    produced: str = ""
    build: Callable[[list[Any]], Any] | None = None


class Tables(NamedTuple):
    """Steps by state and terminal, next states by state and production, first and last states by start production."""

    steps: Mapping[int, Mapping[str, Step]]
    gotos: Mapping[int, Mapping[str, int]]
    starts: Mapping[str, int]
    ends: Mapping[str, int]


class _NoLexer(Lexer):
    """Stands where lark wants one: it makes the tables, and reads nothing."""

    def __init__(self, lexer_conf: object) -> None:
        """Nothing of what lark hands over is needed."""

    def lex(self, *_state: object) -> Iterator[LarkToken]:
        """Nothing."""
        yield from ()


def make_parser(lexer: type[Lexer]) -> Lark:
    """The parser as lark has it, over tokens of our kind."""
    grammar = resources.files("decision.lang").joinpath("grammar.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer=lexer,
        start=["declaration", "expression"],
        transformer=Builder(),
        maybe_placeholders=True,
    )


@functools.cache
def load_tables() -> Tables:
    """The parser as this loop has it, made once per process."""
    lalr = make_parser(_NoLexer).parser.parser.parser
    table = lalr.parse_table

    def step(action: object, argument: Any) -> Step:
        if action is Shift:
            return Step(argument)
        build = lalr.callbacks[argument]
        width = len(argument.expansion)
        renames = width == 1 and isinstance(build, ExpandSingleChild)
        return Step(None, width, _plain(argument.origin.name), None if renames else build)

    steps, gotos = {}, {}
    for state, row in table.states.items():
        steps[state] = {_plain(name): step(*act) for name, act in row.items()}
        gotos[state] = {_plain(name): to for name, (action, to) in row.items() if action is Shift}
    return Tables(steps, gotos, table.start_states, table.end_states)


def _plain(name: str) -> str:
    """Lark's names are tokens of its own, which are slow to look up."""
    return sys.intern(str(name))


class UnexpectedTokenError(Exception):
    """Tokens that do not parse.

    Attributes:
        token: The first that cannot come where it comes; None is the end of the text.
        accepted: Terminals that could.
    """

    def __init__(self, token: Token | None, accepted: frozenset[str]) -> None:
        super().__init__()
        self.token = token
        self.accepted = accepted


def parse(text: str, start: str) -> Any:
    """What the builder makes of a text.

    Raises:
        TokenError: For a text that cannot be tokens, is out of bounds, or has a constant that is out of its range.
        UnexpectedTokenError: For one that does not parse.
    """
    return run(load_tables(), tokenize(text), start)


def run(tables: Tables, tokens: Iterable[Token], start: str) -> Any:
    """What the builder makes of tokens.

    Raises:
        UnexpectedTokenError: For tokens that do not parse.
    """
    steps, gotos, end = tables.steps, tables.gotos, tables.ends[start]
    states: list[int] = [tables.starts[start]]
    values: list[Any] = []
    for token in chain(tokens, (None,)):
        terminal = END if token is None else token.type
        while True:
            try:
                shift, width, produced, build = steps[states[-1]][terminal]
            except KeyError:
                raise UnexpectedTokenError(token, _accepted(tables, states, end)) from None
            if shift is not None:
                states.append(shift)
                values.append(token)
                break
            if build is None:
                states[-1] = gotos[states[-2]][produced]
            else:
                value = build(values[len(values) - width :])
                del states[len(states) - width :], values[len(values) - width :]
                states.append(gotos[states[-1]][produced])
                values.append(value)
            if token is None and states[-1] == end:
                return values[-1]
    raise AssertionError("the end of a text is never shifted")


def _accepted(tables: Tables, states: list[int], end: int) -> frozenset[str]:
    """Terminals that parse after what these states stand for."""
    return frozenset(name for name in tables.steps[states[-1]] if _takes(tables, states.copy(), name, end))


def _takes(tables: Tables, states: list[int], terminal: str, end: int) -> bool:
    """Whether a terminal is shifted in the end, and not only stands behind productions that end before it."""
    while (step := tables.steps[states[-1]].get(terminal)) is not None:
        if step.shift is not None:
            return terminal.isupper()
        del states[len(states) - step.width :]
        states.append(tables.gotos[states[-1]][step.produced])
        if terminal == END and states[-1] == end:
            return True
    return False
