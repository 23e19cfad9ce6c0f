"""What makes a view one that must be built anew, and what does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.definitions import definitions
from server.repo import load_repo
from tests.support.clinic import CLINIC


def _digests(tmp_path: Path, name: str, *changes: tuple[str, str]) -> dict[str, str]:
    repo = tmp_path / name
    shutil.copytree(CLINIC, repo)
    views = repo / "views.py"
    text = views.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    views.write_text(text)
    return {view: definition.digest for view, definition in definitions(load_repo(repo)).items()}


FILTER = 'events[events["event_type"] == "visit"]'


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ([], set()),
        ([("    visits = events[", "    # those that took place\n    visits = events[")], set()),
        ([("Aggregation(column", "Aggregation( column")], set()),
        ([('    source=parquet("profile"),', '    source=parquet("profiles"),')], set()),
        ([("time_window=timedelta(days=30)", "time_window=timedelta(days=31)")], {"visits"}),
        ([('function="sum"', 'function="max"')], {"visits"}),
        ([(FILTER, 'events[events["fee"] > 3]')], {"visits", "department_load"}),
        (
            [
                ("def as_visits", "KIND = 'visit'\n\n\ndef as_visits"),
                (FILTER, 'events[events["event_type"] == KIND]'),
            ],
            {"visits", "department_load"},
        ),
    ],
)
def test_a_digest_follows_what_values_depend_on(
    tmp_path: Path, changes: list[tuple[str, str]], changed: set[str]
) -> None:
    before, after = _digests(tmp_path, "before"), _digests(tmp_path, "after", *changes)
    assert set(before) == {"visits", "department_load"}
    assert {view for view in before if before[view] != after[view]} == changed


def test_what_a_function_calls_belongs_to_it(tmp_path: Path) -> None:
    """A helper, a constant, and a module of the repo."""
    calls = (
        (
            "def as_visits",
            "LEAST = {}\n\n\ndef big(rows):\n    return rows[rows['fee'] > LEAST]\n\n\ndef as_visits",
        ),
        (FILTER, f"big({FILTER})"),
    )
    (head, text), call = calls
    found = {
        _digests(tmp_path, str(least), (head, text.format(least)), call)["visits"] for least in (3, 4, 3.5)
    }
    assert len(found) == 3


def test_a_digest_is_the_same_at_each_start(tmp_path: Path) -> None:
    """An object that a function names has another address each time, and that must not mean another definition."""
    change = (
        ("def as_visits", "THINGS = {'a': [object(), {1, 2}]}\n\n\ndef as_visits"),
        (FILTER, f"{FILTER}[:len(THINGS)]"),
    )
    assert _digests(tmp_path, "one", *change) == _digests(tmp_path, "two", *change)


def _told_by_another_process(code: str) -> str:
    """What a lambda within an expression, of which there is no text, is told by."""
    program = (
        "from pathlib import Path\nfrom server.definitions import _text\n"
        f"function = {code}\nprint(_text(function))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_function_without_a_text_is_told_by_its_code_alone() -> None:
    """Functions within it have other addresses, and sets another order, in each process."""
    code = "lambda df: df.assign(x=df['a'].apply(lambda v: v in {'p', 'q', 'r', 's'}))"
    told = {_told_by_another_process(code) for _ in range(3)}
    assert len(told) == 1
    assert told != {_told_by_another_process(code.replace("'p'", "'o'"))}
