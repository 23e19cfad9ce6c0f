"""Imports what a materializer has imported once it works, for the process that `tests.support.forked` forks from."""

from __future__ import annotations

import os
from pathlib import Path

import server.commands.run
import server.materialize  # noqa: F401
from server.bundles import repo_policy
from server.repo import load_repo
from server.stream_plans import stream_plan

os.environ.setdefault("FEAST_USAGE", "False")
_repo = load_repo(Path(__file__).parents[1] / "fixtures" / "clinic")  # Feast imports much of itself only then
stream_plan(_repo, repo_policy(_repo))
