"""Marks the functions that turn events into rows.

Such a function takes the frame of events (event_id, event_type, customer_id, event_time and one column for each
property that `events.yaml` declares; an absent property is NULL) and returns the rows that its view aggregates:
event_id, event_time, the join keys and the aggregated columns. It must work row by row: no row may depend on
another, for a stream has no other rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Transform = TypeVar("Transform", bound=Callable[..., object])


def portable(function: Transform) -> Transform:
    """Make Feast store the function by value, so that a registry can be read without this repo on the path."""
    function.__module__ = "__main__"
    return function


def source_of(function: Callable[..., object]) -> str:
    """The text that Feast shows and compares."""
    return inspect.getsource(function)
