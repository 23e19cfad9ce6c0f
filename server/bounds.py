"""Bounds of requests, checked before anything is looked up."""

from __future__ import annotations

from collections.abc import Iterable

from server.errors import InvalidRequestError

NAME_SHOWN = 100
"""Characters of a client's own name that a field path repeats."""


def check_count(field: str, count: int, limit: int) -> None:
    """Refuse a list that is too long.

    Raises:
        InvalidRequestError: It has more than `limit` items.
    """
    if count > limit:
        description = f"has {count} items, send at most {limit}"
        raise InvalidRequestError.of(
            "FIELD_OUT_OF_RANGE", field, description, count=str(count), limit=str(limit)
        )


def check_size(field: str, size: int, limit: int) -> None:
    """Refuse a value that is too large.

    Raises:
        InvalidRequestError: It is larger than `limit` bytes or characters.
    """
    if size > limit:
        description = f"is {size} long, send at most {limit}"
        raise InvalidRequestError.of(
            "FIELD_OUT_OF_RANGE", field, description, size=str(size), limit=str(limit)
        )


def check_names(field: str, names: Iterable[str], limit: int) -> None:
    """Refuse names that are too long, naming the first by its index."""
    for index, name in enumerate(names):
        check_size(f"{field}[{index}]", len(name), limit)
