"""Errors of writing SQL."""

from __future__ import annotations

from decision.errors import WaypostDecisionError


class SqlError(WaypostDecisionError):
    """An expression that cannot be said in SQL: a name without a column, or text that is no Unicode."""
