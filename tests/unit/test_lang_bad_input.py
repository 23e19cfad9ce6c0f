"""Hostile and hopeless input is answered with findings, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.lang.compiler import compile_policy
from decision.lang.findings import Code, Finding, Severity, finding, render
from decision.lang.interpreter import evaluate
from decision.lang.limits import FINDINGS_MAX
from decision.lang.syntax import Span
from tests.support.hostile import HOSTILE
from tests.support.lang_world import CATALOG, SHOP, expression


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(20)
def test_hostile_text_is_refused(name: str) -> None:
    """A clear error, at once, whatever the text; printing it stays short too."""
    sources = {"bad.policy": HOSTILE[name]}
    compiled = compile_policy(sources, CATALOG)
    assert compiled.policy is None
    assert 1 <= len(compiled.findings) <= FINDINGS_MAX + 1
    assert len(render(compiled.findings, sources)) < 100_000


LONG = {
    "or": " OR ".join(f"orders_30d > {n}" for n in range(6_000)),
    "and": " AND ".join(f"orders_30d > {n}" for n in range(6_000)),
    "both": " AND ".join(f"(orders_30d > {n} OR views_30m < {n})" for n in range(2_000)),
    "in": f"orders_30d IN ({', '.join(map(str, range(9_999)))}) AND orders_30d NOT IN (1, 2)",
    "case": "CASE " + " ".join(f"WHEN orders_30d > {n} THEN TRUE" for n in range(2_000, 0, -1)) + " END",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.timeout(20)
def test_long_condition_within_bounds_compiles(name: str) -> None:
    """What the bounds let through is also analysed in a moment."""
    rule = f"rule r on home_hero: IF {LONG[name]} THEN show(fluid_milk)\n"
    segment = "segment big_spender: last_month_total > 1\n"
    assert compile_policy({"a.policy": segment + SHOP + rule}, CATALOG).policy is not None


def test_pattern_of_many_wildcards_matches_in_linear_time() -> None:
    """LIKE does not search backwards."""
    condition = expression("s LIKE '" + "%a" * 1_000 + "'")
    assert evaluate(condition, {"v.s": "a" * 20_000 + "b"}, 0) is False


def test_findings_beyond_the_bound_are_counted() -> None:
    """A hundred are kept, one more says how many there are."""
    text = "".join(f"rule r{n} on nowhere: IF x{n} > 1 THEN show(o{n})\n" for n in range(200))
    findings = compile_policy({"a.policy": text}, CATALOG).findings
    assert len(findings) == FINDINGS_MAX + 1
    assert "300 more findings" in findings[-1].message


PIECES = [*SHOP.split(), *'rule IF THEN ( ) segment cap counted by at most now() "'.split(), "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join))
def test_shuffled_policy_is_answered(text: str) -> None:
    """Any arrangement of a policy's words compiles or is refused, and nothing raises."""
    compiled = compile_policy({"a.policy": text}, CATALOG)
    errors = [item for item in compiled.findings if item.severity is Severity.ERROR]
    assert (compiled.policy is None) == bool(errors)
    render(compiled.findings, {"a.policy": text})


def test_rendering_puts_the_caret_under_the_text() -> None:
    """Tabs and positions in long lines keep the caret in its place."""
    item = finding(Code.SYNTAX, "wrong", Span("a.policy", 2, 2, 2, 5), "mend it")
    assert render([item], {"a.policy": "one\n\ttwo three\r\n"}) == (
        "a.policy:2:2: error[syntax]: wrong\n    2 | \ttwo three\n      | \t^^^\n  help: mend it\n"
    )
    far = Finding(
        severity=Severity.WARNING, code="x", message="m", suggestion="", span=Span("a", 1, 901, 1, 903)
    )
    line = "y" * 900 + "ab" + "z" * 900
    _, shown, carets = render([far], {"a": line}).splitlines()
    assert shown[carets.index("^") :].startswith("abz")
    assert carets.count("^") == 2
    assert len(shown) < 200


def test_rendering_without_the_source_still_says_where() -> None:
    """A finding about a file that is not at hand has no excerpt."""
    item = finding(Code.SYNTAX, "wrong", Span("gone.policy", 9, 1, 9, 2))
    assert render([item], {}) == "gone.policy:9:1: error[syntax]: wrong\n"
