"""The page on the rule language tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from decision.lang import limits
from decision.lang.compiler import compile_policy
from decision.lang.findings import WARNINGS, Code, render
from decision.lang.functions import FUNCTIONS
from decision.lang.tokens import RESERVED
from tests.support.lang_cases import check_case, split_case
from tests.support.lang_world import CATALOG

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    """Fenced blocks of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_page_policies_compile_without_findings() -> None:
    """The policy on the page is right."""
    sources = {f"{index}.policy": text for index, text in enumerate(blocks("policy"))}
    compiled = compile_policy(sources, CATALOG, frozenset({"category_affinity"}))
    assert sources
    assert compiled.findings == (), render(compiled.findings, sources)


@pytest.mark.parametrize("line", [line for block in blocks("cases") for line in block.splitlines()])
def test_page_example_has_value(line: str) -> None:
    """Each example has the value that the page gives it."""
    check_case(*split_case(line))


def test_page_names_every_finding_and_its_severity() -> None:
    """Each code is in the table, as an error or a warning."""
    rows = re.findall(r"^\| (`.*?) \| (error|warning) \|", PAGE, re.MULTILINE)
    told = {code: severity for codes, severity in rows for code in re.findall(r"`([a-z-]+)`", codes)}
    assert told == {code.value: "warning" if code in WARNINGS else "error" for code in Code}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_page_names_every_function(name: str) -> None:
    """No function is left out."""
    assert re.search(rf"\b{name}\b", PAGE)


def test_page_lists_reserved_words_and_bounds() -> None:
    """Reserved words and limits are the compiler's."""
    assert set(re.search(r"`(AND OR .*?)`", PAGE)[1].split()) == RESERVED  # type: ignore[index]
    for bound in (
        limits.SOURCES_MAX,
        limits.DECLARATIONS_MAX,
        limits.DECLARATION_TOKENS_MAX,
        limits.IN_ITEMS_MAX,
    ):
        assert f"{bound:,}" in PAGE
    assert limits.SOURCE_CHARS_MAX == 4 * 2**20
    assert f"nest at most {limits.NESTING_MAX} deep, JSON {limits.JSON_NESTING_MAX}" in PAGE.replace(
        "\n", " "
    )
    assert f"After {limits.SYNTAX_ERRORS_MAX} declarations" in PAGE
    assert f"or {limits.SYNTAX_ERROR_CHARS_MAX:,}\ncharacters of them" in PAGE
