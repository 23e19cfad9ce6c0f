"""Bound conditions kept from one compilation to the next, so that a changed rule does not bind all others again.

Binding depends on the declaration's text, on the names it may read, and on nothing else. Where the declaration stands
only shows in the places of the nodes, which are moved when it has moved.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from decision.lang.syntax import Expr, Ref, moved

KEPT_MAX: Final = 32_768
"""Conditions kept; at one more, all are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A condition that bound without a finding.

    Attributes:
        condition: Simplified.
        refs: What the condition reads as it was written, in order and with repeats.
        file: File of the declaration.
        lines_before: Lines of the file before the declaration.
    """

    condition: Expr
    refs: tuple[Ref, ...]
    file: str
    lines_before: int

    def at(self, file: str, lines_before: int) -> Bound:
        """The same where the declaration stands now."""
        lines = lines_before - self.lines_before
        if not lines and file == self.file:
            return self
        return Bound(
            condition=moved(self.condition, file, lines),
            refs=tuple(moved(ref, file, lines) for ref in self.refs),
            file=file,
            lines_before=lines_before,
        )


class Kept:
    """Bound conditions by what they depend on, each where it stood last."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Bound] = {}

    def get(self, key: Hashable, file: str, lines_before: int) -> Bound | None:
        """The condition kept under a key, at that place."""
        kept = self._by_key.get(key)
        if kept is None:
            return None
        bound = kept.at(file, lines_before)
        if bound is not kept:
            self._by_key[key] = bound
        return bound

    def put(self, key: Hashable, bound: Bound) -> None:
        if len(self._by_key) >= KEPT_MAX:
            self.clear()
        self._by_key[key] = bound

    def clear(self) -> None:
        self._by_key.clear()


KEPT: Final = Kept()
"""Shared by all compilations, as the parser's declarations are."""
