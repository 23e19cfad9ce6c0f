"""The small repo that `waypost init` writes."""

from __future__ import annotations

import re
from pathlib import Path

from server.errors import ServerError

FOLDER = Path(__file__).parent / "templates" / "repo"
SUFFIX = ".tmpl"
_HIDDEN = {"feastignore": ".feastignore", "gitignore": ".gitignore"}


class InitError(ServerError):
    """The repo cannot be written there."""


def write_repo(target: Path) -> list[Path]:
    """Write the repo into `target`, which must be new or empty; returns the files.

    Raises:
        InitError: The folder holds something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InitError(f"{target} is not an empty folder: choose another or empty it")
    return [_write(template, target) for template in sorted(FOLDER.rglob(f"*{SUFFIX}"))]


def project_name(target: Path) -> str:
    """A name that Feast takes for a project, made from the folder's: letters, digits and underscores."""
    name = re.sub(r"\W+", "_", target.resolve().name, flags=re.ASCII).strip("_").lower()
    return name if name and not name[0].isdigit() else f"project_{name}".rstrip("_")


def _write(template: Path, target: Path) -> Path:
    place = template.relative_to(FOLDER).with_suffix("")
    path = target / place.with_name(_HIDDEN.get(place.name, place.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        template.read_text(encoding="utf-8").replace("{project}", project_name(target)), encoding="utf-8"
    )
    return path
