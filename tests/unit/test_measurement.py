"""Measurements as people read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli import app
from server.errors import ServerError
from server.measurement import Bound, Report, Table, markdown, splice

RESULTS: dict[str, Any] = {
    "rows": [
        {
            "n": 1,
            "xgboost_us_p50": 400.0,
            "xgboost_us_p99": 500.0,
            "waypost_us_p50": 5.0,
            "waypost_us_p99": 6.0,
            "treelite_us_p50": None,
            "ratio": 80.0,
            "bit_identical": True,
            "must_reach": 90.0,
        }
    ],
    "workload": {"trees": 200, "depth": 6, "features": 40},
    "environment": {
        "cpu": "a processor",
        "cores": 2,
        "allocator": "glibc",
        "python": "3.11",
        "versions": {"numpy": "2"},
    },
}


@pytest.mark.parametrize(
    ("value", "at_most", "holds"),
    [(1.0, True, True), (3.0, True, False), (1.0, False, False), (2.0, False, True), (None, True, False)],
)
def test_a_bound_holds_on_its_side(value: float | None, at_most: bool, holds: bool) -> None:
    """A bound holds at and within its limit; what was not measured does not hold."""
    assert Bound("x", value, 2.0, at_most=at_most).holds is holds


def test_a_page_keeps_what_stands_around_the_tables() -> None:
    """Only what lies between the measurement's own two lines is replaced, and doing it again changes nothing."""
    page = "a\n<!-- begin bench x -->old<!-- end bench x -->\n<!-- begin bench y --><!-- end bench y -->\nb\n"
    report = Report(tables=(Table("T", ("what", "µs"), (("a|b", "1"),)),), notes=("A note.",))
    section = markdown(report, RESULTS)
    spliced = splice(page, "x", section)
    assert spliced.startswith("a\n<!-- begin bench x -->\n\nMeasured on a processor, 2 cores,")
    assert r"| a\|b | 1 |" in spliced
    assert spliced.endswith(
        "A note.\n\n<!-- end bench x -->\n<!-- begin bench y --><!-- end bench y -->\nb\n"
    )
    assert splice(spliced, "x", section) == spliced


def test_a_page_without_a_place_is_an_error() -> None:
    """A page that does not hold the two lines is refused with what to add."""
    with pytest.raises(ServerError, match="begin bench x"):
        splice("nothing", "x", "section")


def test_results_are_shown_again_from_their_file(tmp_path: Path) -> None:
    """`--from` shows kept results without measuring; a missed bound is exit code 1 only where that is asked for."""
    kept = tmp_path / "forest.json"
    kept.write_text(json.dumps(RESULTS), encoding="utf-8")
    shown = CliRunner().invoke(app, ["bench", "forest", "--from", str(kept)])
    assert (shown.exit_code, "a processor" in shown.stdout) == (0, True)
    checked = CliRunner().invoke(app, ["bench", "forest", "--from", str(kept), "--check"])
    assert checked.exit_code == 1
    assert "is 80 ×, must be ≥ 90 ×" in checked.stderr.replace("\n", " ")
