"""Broken policies and what the compiler says about them, as files.

`WAYPOST_UPDATE_GOLDEN=1 pytest tests/golden/test_lang_findings.py` writes the answers anew, to be read in review.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decision.lang.compiler import compile_policy
from decision.lang.findings import WARNINGS, Code, Severity, render
from tests.support.lang_world import CATALOG

FOLDER = Path(__file__).parent / "lang" / "findings"
POLICIES = sorted(FOLDER.glob("*.policy"))
MODELS = frozenset({"category_affinity"})
LABELS = {"shop_intent": ("browsers", "high intent", "loyal")}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_findings_are_as_recorded(path: Path) -> None:
    """Every finding has its place, caret and suggestion, all at once, and errors keep the policy back."""
    sources = {path.name: path.read_text("utf-8")}
    compiled = compile_policy(sources, CATALOG, MODELS, labels=LABELS)
    answer = render(compiled.findings, sources)
    expected = path.with_suffix(".txt")
    if os.environ.get("WAYPOST_UPDATE_GOLDEN"):
        expected.write_text(answer, "utf-8")
    assert answer == expected.read_text("utf-8")
    assert (compiled.policy is None) == any(item.severity is Severity.ERROR for item in compiled.findings)


@pytest.mark.parametrize("code", list(Code))
def test_findings_have_a_golden_file_per_code(code: Code) -> None:
    """Each kind of finding is shown by the file of its name, and warnings leave the policy whole."""
    path = FOLDER / f"{code}.policy"
    compiled = compile_policy({path.name: path.read_text("utf-8")}, CATALOG, MODELS, labels=LABELS)
    assert code in {item.code for item in compiled.findings}
    if code in WARNINGS:
        assert compiled.policy is not None
