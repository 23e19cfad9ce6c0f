"""What the documents and the locks promise about this repository is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from streaming.events import EventSchema, EventType, PropertySchema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LOCKS = ("requirements.lock", "requirements-runtime.lock")
MAX_VERBS = 15


def verbs() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a document names a file that exists."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_document_names_verbs_that_exist(document: Path) -> None:
    """Every `make VERB` in a document is one of the Makefile's."""
    assert set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z]+)", document.read_text())) <= verbs()


def test_readme_python_parses() -> None:
    """Every Python block of the README is valid Python."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_events_page_shows_a_file_that_loads() -> None:
    """The example of docs/events.md is a valid events.yaml, and every key that one may have is on the page."""
    page = (ROOT / "docs" / "events.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    EventSchema.parse(example[1])
    for model in (EventSchema, EventType, PropertySchema):
        assert [name for name in model.model_fields if f"`{name}`" not in page] == []


def test_makefile_stays_small() -> None:
    """There are at most fifteen verbs, each with its line of help."""
    described = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(described) == verbs()
    assert len(described) <= MAX_VERBS


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_host(lock: str) -> None:
    """A lock says what is installed and never from where."""
    assert re.findall(r"(?i)https?://|index-url|find-links|extra-index", (ROOT / lock).read_text()) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_a_hash_for_everything(lock: str) -> None:
    """Every requirement is pinned to one version and has at least one hash."""
    requirements = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.match(r"[a-z0-9.\[\]-]+==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_locks_agree() -> None:
    """The runtime's lock has no requirement that the whole lock lacks."""
    whole, runtime = (
        set(re.findall(r"^(\S+==\S+)", (ROOT / lock).read_text(), re.MULTILINE)) for lock in LOCKS
    )
    assert runtime <= whole
