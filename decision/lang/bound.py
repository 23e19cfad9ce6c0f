"""Bound conditions kept from one compilation to the next, so that a changed rule does not bind all others again.

Binding depends on the declaration's text and place, on the names it may read, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from decision.lang.syntax import Expr, Ref

KEPT_MAX: Final = 32_768
"""Conditions kept; at one more, all are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A condition that bound without a finding.

    Attributes:
        condition: Simplified.
        refs: What the condition reads as it was written, in order and with repeats.
    """

    condition: Expr
    refs: tuple[Ref, ...]


class Kept:
    """Bound conditions by what they depend on."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Bound] = {}

    def get(self, key: Hashable) -> Bound | None:
        return self._by_key.get(key)

    def put(self, key: Hashable, bound: Bound) -> None:
        if len(self._by_key) >= KEPT_MAX:
            self.clear()
        self._by_key[key] = bound

    def clear(self) -> None:
        self._by_key.clear()


KEPT: Final = Kept()
"""Shared by all compilations, as the parser's declarations are."""
