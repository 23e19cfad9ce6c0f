"""Policies derived from the grammar, and good ones damaged: each is compiled or refused with findings, and at once.

What is derived always parses; what is damaged and still accepted becomes a bundle and decides.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib import resources
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark, UnexpectedToken
from lark.lexer import Lexer, LexerState, Token

from decision.bundle import Bundle
from decision.engine import Request, decide
from decision.errors import BundleError
from decision.frame import Block, Frame
from decision.lang.compiler import Compiled, compile_policy
from decision.lang.findings import Code, Severity, render
from decision.lang.lalr import UnexpectedTokenError, make_parser, parse
from decision.lang.limits import FINDINGS_MAX
from decision.lang.tokens import TokenError, tokenize
from tests.support.decision_catalog import CATALOG, KEY, LABELS, NOW_US
from tests.support.decision_models import handles, predictors
from tests.support.decision_policies import Policies
from tests.support.policy_text import sources

LIMIT_S = 1.0  # of processor time: a busy machine may stall any process
FUZZ = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

SPELT: Final[dict[str, tuple[str, ...]]] = {
    "NAME": ("a", "spend", "affinity", "profile", "zzz", "`IF`", "`ä b`"),
    "UNIT": ("minutes", "day", "week"),
    "NUMBER": ("0", "1", "2.5", "10", "0.1"),
    "STRING": ('"a"', "'x'", '""', '"é%"', "'2026-01-01T00:00:00Z'", "'all'"),
    "JSON": ("{}", '{"a": [1, null]}'),
    "COMPARE": ("<>", "!=", "<", "<=", ">", ">="),
    "EQUAL": ("=",),
    "PLUS": ("+",),
    "MINUS": ("-",),
    "STAR": ("*",),
    "SLASH": ("/",),
    "PERCENT": ("%",),
    "RPAR": (")",),
    "_LPAR": ("(",),
    "_COMMA": (",",),
    "_COLON": (":",),
    "_DOT": (".",),
}
"""How tokens that are no keywords may be written; keywords are written in either case."""


class NoLexer(Lexer):
    """Tokens are written by this test; Lark only reads the rules."""

    def __init__(self, lexer_conf: object) -> None:
        """Lark hands over what it declares."""

    def lex(self, lexer_state: LexerState, parser_state: object) -> Iterator[Token]:  # noqa: ARG002
        """Nothing is read."""
        yield from ()


def declarations() -> st.SearchStrategy[str]:
    """Declarations as the grammar file derives them."""
    text = resources.files("decision.lang").joinpath("grammar.lark").read_text(encoding="utf-8")
    rules = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("//"))
    terminals = set(re.findall(r"\b_?[A-Z]+\b", rules))
    written = {name: SPELT.get(name, (name, name.lower())) for name in terminals}
    spelt = {name: st.sampled_from([f"{text} " for text in texts]) for name, texts in written.items()}
    return from_lark(Lark(text, start="declaration", parser="lalr", lexer=NoLexer), explicit=spelt)


def compiled(texts: dict[str, str]) -> Compiled:
    """The compiler's answer, checked to be one: in time, with findings that lie in the text and can be printed."""
    models, labels = frozenset([*predictors(), "gone"]), {"personas": LABELS, "ghosts": LABELS}
    started = time.thread_time()
    answer = compile_policy(texts, CATALOG, models, labels=labels, customer_key=KEY)
    assert time.thread_time() - started < LIMIT_S
    errors = [item for item in answer.findings if item.severity is Severity.ERROR]
    assert (answer.policy is None) == bool(errors)
    assert len(answer.findings) <= FINDINGS_MAX + 1
    for item in answer.findings:
        lines = texts[item.span.file].split("\n")
        assert 1 <= item.span.line <= item.span.end_line <= len(lines) + 1
        assert item.span.column >= 1
        assert item.message
    assert render(answer.findings, texts) or not answer.findings
    return answer


@FUZZ
@given(declarations())
def test_what_the_grammar_derives_parses(text: str) -> None:
    """Whatever else is wrong with it, a declaration of the grammar's own is no error of syntax."""
    answer = compiled({"a.policy": text})
    assert Code.SYNTAX.value not in [item.code for item in answer.findings]


class LarkToken(Token):
    """A token of lark's with its place as ours have it."""

    @property
    def at(self) -> tuple[int, int]:
        """Where it begins and ends."""
        return self.start_pos or 0, self.end_pos or 0


class Tokens(Lexer):
    """Our tokens as lark takes them."""

    def __init__(self, lexer_conf: object) -> None:
        """Nothing of what Lark hands over is needed."""

    def lex(self, text: str) -> Iterator[Token]:  # type: ignore[override]
        """Everything."""
        for token in tokenize(text):
            yield LarkToken(token.type, str(token), start_pos=token.at[0], end_pos=token.at[1])


LARK = make_parser(Tokens)


@FUZZ
@given(declarations())
def test_the_quick_loop_reads_what_lark_reads(text: str) -> None:
    """A text becomes the same tree; the exceptions are constants out of range."""
    try:
        expected = LARK.parse(text, start="declaration")
    except TokenError:
        return
    assert parse(text, "declaration") == expected


@FUZZ
@given(declarations(), st.data())
def test_what_would_have_parsed_is_what_lark_accepts(text: str, data: st.DataObject) -> None:
    """A text that is cut off or goes on with another token is refused where and as lark refuses it."""
    tokens = TOKEN.findall(text)
    cut = data.draw(st.integers(0, len(tokens)))
    text = "".join(tokens[:cut]) + data.draw(st.sampled_from(["", " IF ", " , ", " = 1 ", " x ", " ) "]))
    try:
        LARK.parse(text, start="declaration")
    except TokenError:
        return
    except UnexpectedToken as error:
        place = None if error.token.type == "$END" else error.token.at
        accepted = error.accepts or error.expected
    else:
        return
    with pytest.raises(UnexpectedTokenError) as raised:
        parse(text, "declaration")
    assert raised.value.accepted == accepted
    assert (raised.value.token and raised.value.token.at) == place


TOKEN = re.compile(r"\s+|\w+|\"[^\"\n]*\"|.", re.DOTALL)
STRANGE = (
    *"()[]{}\"'`-#:,.%=<>*/\n\0\ufeff\u2028é🥛\ud800",
    *(" IF ", " THEN ", " ELSE ", " NOT ", " NULL ", " OR ", " AND ", " IN (", " CASE WHEN ", " BETWEEN "),
    *(
        "\nrule ",
        "\noffer ",
        "\nsegment s: ",
        "\nplacement ",
        "\ncap ",
        " priority ",
        " tagged ",
        " over top ",
    ),
    *(
        " 0 ",
        " -1 ",
        " 1e400 ",
        " 9223372036854775808 ",
        " 0.0000001 ",
        " now() ",
        " label(personas) ",
        " 'all' ",
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, str]:
    """The text of a good policy with a few tokens dropped, doubled, exchanged or replaced by strange ones."""
    policy = Policies(lambda least, most: draw(st.integers(least, most))).policy()
    texts = sources(policy, draw(st.integers(0, 6)))
    for _ in range(draw(st.integers(1, 4))):
        file = draw(st.sampled_from(sorted(texts)))
        tokens = TOKEN.findall(texts[file])
        if not tokens:
            continue
        at = draw(st.integers(0, len(tokens) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                del tokens[at : at + draw(st.integers(1, 3))]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                other = draw(st.integers(0, len(tokens) - 1))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens[at] = tokens[draw(st.integers(0, len(tokens) - 1))]
            case 4:
                tokens[at] = draw(st.sampled_from(STRANGE))
            case _:
                tokens.insert(at, draw(st.sampled_from(STRANGE)))
        texts[file] = "".join(tokens)
    return texts


@FUZZ
@given(damaged())
def test_a_damaged_policy_is_refused_or_decides(texts: dict[str, str]) -> None:
    """Nothing raises but the bundle's own refusal, and what is accepted answers at every placement."""
    policy = compiled(texts).policy
    if policy is None:
        return
    try:
        bundle = Bundle.build(CATALOG, policy, handles(), KEY)
    except BundleError:
        return
    for placement in bundle.plans:
        decision = decide(
            Request(placement=placement, customer_id="c-1"),
            Frame(customer=Block.empty(("",)), candidates=Block.empty(())),
            bundle,
            now_us=NOW_US,
            seed=1,
        )
        assert sum(ranked.propensity for ranked in decision.offers) <= 1 + 1e-9
