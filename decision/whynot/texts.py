"""Texts that match some patterns and not others, found by walking through all patterns at once.

A pattern is a machine that reads a text and is then in one of its states; several are one machine whose state is all
of theirs. Characters that no pattern names are alike, so one stands for them all, and a walk that visits every state
once finds a shortest text for every way in which the patterns can come out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from decision.lang.values import like

WORK_MAX: Final = 1_000_000
"""Marks of patterns looked at, after which a walk ends; more ways may be left. About a third of a second."""
PLAIN: Final = "other"
"""The text proposed where any will do."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """One pattern; state is a set of places in it, as bits."""

    marks: str

    def start(self) -> int:
        return self._rest(1)

    def step(self, state: int, char: str) -> int:
        after = 0
        for place, mark in enumerate(self.marks):
            if state >> place & 1:
                if mark == "%":
                    after |= 1 << place
                elif mark in ("_", char):
                    after |= 1 << place + 1
        return self._rest(after)

    def _rest(self, state: int) -> int:
        """A % may also stand for nothing."""
        for place, mark in enumerate(self.marks):
            if mark == "%" and state >> place & 1:
                state |= 1 << place + 1
        return state


def texts_for(patterns: Sequence[str], taken: Collection[str]) -> tuple[list[str], bool]:
    """A text for every way in which the patterns can match, and whether no way is left out.

    Args:
        patterns: LIKE patterns.
        taken: Texts that may not be given.
    """
    plain = next(text for text in _plain() if text not in taken)
    found = {_matches(plain, patterns): plain}
    whole = True
    for text in _walk(patterns, taken):
        if text is None:
            whole = False
        else:
            found.setdefault(_matches(text, patterns), text)
    return list(found.values()), whole


def _plain() -> Iterator[str]:
    yield PLAIN
    number = 2
    while True:
        yield f"{PLAIN} {number}"
        number += 1


def _matches(text: str, patterns: Sequence[str]) -> tuple[bool, ...]:
    return tuple(like(text, pattern) for pattern in patterns)


def _other_char(used: Collection[str]) -> str:
    """A character that stands for all that no pattern names; none of a taken text, or it could spell that text only."""
    return next(char for char in map(chr, range(ord("a"), 0x110000)) if char not in used)


def _walk(patterns: Sequence[str], taken: Collection[str]) -> Iterator[str | None]:
    """A shortest text that is not taken for every state; None at the end where the bound was reached."""
    machines = [_Machine(pattern) for pattern in patterns]
    alphabet = sorted({char for pattern in patterns for char in pattern} - {"%", "_"})
    alphabet.append(_other_char({*alphabet, *(char for text in taken for char in text)}))
    work = len(alphabet) * sum(map(len, patterns))
    seen: set[tuple[int, ...]] = set()
    queue = deque([("", tuple(machine.start() for machine in machines))])
    while queue and patterns:
        text, state = queue.popleft()
        if state in seen:
            continue
        if text not in taken:
            seen.add(state)
            yield text
        if work * len(seen) > WORK_MAX:
            yield None
            return
        for char in alphabet:
            after = tuple(machine.step(part, char) for machine, part in zip(machines, state, strict=True))
            queue.append((text + char, after))
