"""Conditions as DuckDB SQL: the evaluator for history."""
