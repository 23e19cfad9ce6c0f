"""Conditions kept between compilations never outlive what they depend on."""

from __future__ import annotations

from decision.lang.compiler import Compiled, compile_policy
from decision.lang.findings import Code
from decision.schema import DType
from tests.support.lang_world import CATALOG

POLICY = """\
placement p:
  context kind {kind}
  candidates a
offer a:
  set margin = {margin}
segment big_spender: v.i > 1
rule one on p: IF kind = {value} THEN boost(a, 2)
rule two on p: IF offer.margin > 0.5 AND {second} THEN boost(a, 2)
"""
PARTS = {"kind": "int64", "margin": "1", "value": "3", "second": "v.i > 2"}


def compiled(**changes: str) -> Compiled:
    return compile_policy({"a.policy": POLICY.format(**(PARTS | changes))}, CATALOG)


def test_kept_conditions_are_what_binding_gives() -> None:
    """Compiling twice gives the same policy, with the same places."""
    first, second = compiled(), compiled()
    assert first.policy is not None
    assert first == second
    assert second.policy is not None
    assert [rule.condition.span for rule in first.policy.rules] == [
        rule.condition.span for rule in second.policy.rules
    ]


def test_changed_context_binds_again() -> None:
    """A rule whose text stayed is checked against the placement's new context."""
    compiled()
    assert [finding.code for finding in compiled(kind="string").findings] == [Code.TYPE_MISMATCH]
    changed = compiled(kind="float64").policy
    assert changed is not None
    dtypes = {node.dtype for node in (changed.rules[0].condition.left,)}  # type: ignore[union-attr]
    assert dtypes == {DType.FLOAT64}


def test_changed_attribute_binds_again() -> None:
    """A rule whose text stayed is checked against the offers' new attributes."""
    compiled()
    assert [finding.code for finding in compiled(margin='"high"').findings] == [Code.TYPE_MISMATCH]


def test_findings_of_unchanged_rules_are_found_again() -> None:
    """What does not bind is never kept."""
    for _ in range(2):
        codes = [finding.code for finding in compiled(second="v.nothing > 2").findings]
        assert codes == [Code.UNKNOWN_FEATURE]


def test_moved_rules_know_their_new_place() -> None:
    """A rule that moved down has its spans there."""
    before = compiled().policy
    after = compile_policy({"a.policy": "\n\n" + POLICY.format(**PARTS)}, CATALOG).policy
    assert before is not None
    assert after is not None
    for old, new in zip(before.rules, after.rules, strict=True):
        assert new.condition.span.line == old.condition.span.line + 2
