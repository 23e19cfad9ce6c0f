"""What compilations keep from one another never shows: a warm compiler says what a cold one says, place by place."""

from __future__ import annotations

import copy
import pickle

from hypothesis import given
from hypothesis import strategies as st

from decision.lang.compiler import Compiled, compile_policy, forget
from decision.lang.findings import render
from decision.lang.format import format_expr
from decision.lang.syntax import Expr, moved, walk
from decision.schema import DType
from tests.support.lang_exprs import expressions
from tests.support.lang_world import CATALOG

HEAD = (
    "placement p: context kind int64 candidates a\n",
    "placement p:\n  context kind string\n  candidates a\n",
    "offer a:\n  set margin = 1\n",
    "offer a: set margin = 0.5 tags 'hot'\n",
    "segment big: v.i > 1\n",
    "segment big: purchase_history.orders_30d > 1 -- another view\n",
)
BODY = (
    "IF v.i > 2 THEN boost(a, 2)\n",
    "IF v.i > 2\n  THEN exclude(a)\n",
    "IF v.i > 3 AND offer.margin > 0.2 THEN include(a)\n",
    "IF kind = 3 OR v.nothing = 1\n  THEN boost(a, 2)\n",
    "IF kind = 'x' AND (v.s LIKE 'a%'\n    OR v.x IN (1, 2.5)) THEN boost(a, 2)\n",
    "IF v.b OR (v.i > 3 AND\n    v.i < 2) THEN tag('odd')\n",
    "IF in_segment(big) AND CASE WHEN v.i > 1 THEN TRUE\n  WHEN v.i > 5 THEN FALSE ELSE v.b END THEN pin(a, 1)\n",
    "IF day(v.t, 'Europe/Berlin') = 40 THEN show(a) ELSE boost(a, 3)\n",
    "IF v.t < now() - 30 minutes AND NOT v.s IN ('a', 'b') THEN show(a)\n",
    "IF customer_category.spend_30d > 1 THEN boost(2)\n",
    "IF v.i >\n",
)
RULES = st.builds(
    "rule r{} on p priority {}: {}".format, st.integers(0, 9), st.integers(0, 2), st.sampled_from(BODY)
)
FILLER = st.sampled_from(["\n", "\n\n\n", "-- a word\n", "  # another\n", "\r\n", "\t\n"])
PIECES = st.one_of(st.sampled_from(HEAD), RULES, RULES, RULES, FILLER)
FILES = st.lists(PIECES, max_size=12)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "drop", "move", "alter"]), st.integers(0, 99), st.integers(0, 99), PIECES
    ),
    max_size=6,
)


def edited(pieces: list[str], edit: tuple[str, int, int, str]) -> list[str]:
    """The pieces after one edit."""
    kind, at, to, piece = edit
    after = list(pieces)
    at %= len(after) + 1
    if kind == "insert":
        after.insert(at, piece)
    elif at < len(after):
        taken = after.pop(at)
        if kind == "move":
            after.insert(to % (len(after) + 1), taken)
        elif kind == "alter":
            after.insert(at, taken.replace("i > ", "i >= ") if to % 2 else piece)
    return after


def compiled(pieces: list[str], split: int) -> tuple[Compiled, str]:
    """The pieces as two files, compiled, and the findings in words."""
    sources = {"a.policy": "".join(pieces[:split]), "b.policy": "".join(pieces[split:])}
    result = compile_policy(sources, CATALOG)
    return result, render(result.findings, sources)


@given(FILES, EDITS, st.integers(0, 12))
def test_edits_compile_as_if_for_the_first_time(
    pieces: list[str], edits: list[tuple[str, int, int, str]], split: int
) -> None:
    """After any edits policy, findings and every node's place are those of a cold compilation."""
    pieces = [*HEAD[::2], *pieces]
    states = [pieces]
    for edit in edits:
        states.append(edited(states[-1], edit))
    forget()
    warm = [compiled(state, split) for state in states]
    for state, (result, words) in zip(states, warm, strict=True):
        forget()
        cold, cold_words = compiled(state, split)
        assert words == cold_words
        assert repr(result) == repr(cold)


@given(expressions(DType.BOOL), st.integers(-3, 3))
def test_moved_trees_are_equal_and_elsewhere(expr: Expr, lines: int) -> None:
    """Moving changes places alone, whether or not the hash was asked for before, and can be undone."""
    fresh = pickle.loads(pickle.dumps(expr))  # noqa: S301 - pickled in the line
    for tree in (fresh, expr):
        away = moved(tree, "away", lines)
        assert hash(away) == hash(expr)
        assert away == tree == copy.copy(away)
        assert format_expr(away) == format_expr(expr)
        for before, after in zip(walk(tree), walk(away), strict=True):
            assert after.span == before.span.moved("away", lines)
        hash(tree)
    assert repr(moved(moved(expr, "away", lines), "", -lines)) == repr(moved(expr, "", 0))
