"""The parser's tables, made by lark from the grammar, and the loop that runs them.

Half of all productions only rename: an atom is a unary is a product is a sum, up to an expression. Their effect on the
stack is known without calling anything, so this loop reads a text in two thirds of the time that lark's own takes. It
knows no errors: a text that does not parse is left to lark, which tells what would have.
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
from decision.lang.tree import At

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


class _Token(LarkToken):
    """A token as lark wants it, for the builder like our own."""

    @property
    def at(self) -> At:
        return self.start_pos or 0, self.end_pos or 0


class _Lexer(Lexer):
    """Hands our tokens to lark."""

    def __init__(self, lexer_conf: object) -> None:
        """Take lark's configuration, of which nothing is needed."""

    def lex(self, data: str) -> Iterator[LarkToken]:  # type: ignore[override]
        for token in tokenize(data):
            yield _Token(token.type, str(token), start_pos=token.at[0], end_pos=token.at[1])


@functools.cache
def load_grammar() -> Lark:
    """The parser as lark has it, made once per process."""
    grammar = resources.files("decision.lang").joinpath("grammar.lark").read_text("utf-8")
    return Lark(
        grammar,
        parser="lalr",
        lexer=_Lexer,
        start=["declaration", "expression"],
        transformer=Builder(),
        maybe_placeholders=True,
    )


@functools.cache
def load_tables() -> Tables:
    """The parser as this loop has it, made once per process."""
    lalr = load_grammar().parser.parser.parser
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


def parse(text: str, start: str) -> Any:
    """What the builder makes of a text.

    Raises:
        TokenError: For a text that cannot be tokens, is out of bounds, or has a constant that is out of its range.
        lark.UnexpectedInput: For one that does not parse.
    """
    try:
        return run(load_tables(), tokenize(text), start)
    except UnexpectedStepError:
        return load_grammar().parse(text, start=start)


class UnexpectedStepError(Exception):
    """No step is made for what comes next."""


def run(tables: Tables, tokens: Iterable[Token], start: str) -> Any:
    """What the builder makes of tokens.

    Raises:
        UnexpectedStepError: For tokens that do not parse.
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
                raise UnexpectedStepError from None
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
