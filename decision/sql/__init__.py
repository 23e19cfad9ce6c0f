"""Conditions as DuckDB SQL: the evaluator for history. Text generation only; who runs it brings the connection."""

from decision.sql.errors import SqlError
from decision.sql.writer import SETTINGS, to_sql

__all__ = ["SETTINGS", "SqlError", "to_sql"]
