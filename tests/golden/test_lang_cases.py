"""`expression ; row ; value` files: what every operator means, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from decision.schema import DType
from tests.support.lang_cases import check_case, split_case
from tests.support.lang_world import CONTEXT

FOLDER = Path(__file__).parent / "lang" / "cases"


def cases() -> list[object]:
    """Every line of every file, named by file and line."""
    return [
        pytest.param(*split_case(line), id=f"{path.stem}:{number}")
        for path in sorted(FOLDER.glob("*.cases"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if line and not line.startswith("#")
    ]


@pytest.mark.parametrize(("text", "row", "value"), cases())
def test_expression_has_value(text: str, row: str, value: str) -> None:
    """The expression has the value on the row, walked or prepared."""
    check_case(text, row, value)


def test_case_files_read_every_context_name_as_text() -> None:
    """The reader types what no view has as text, which holds for the context that the cases use."""
    assert {CONTEXT["device"], CONTEXT["browsing_category"]} == {DType.STRING}
