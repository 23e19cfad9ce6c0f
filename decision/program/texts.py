"""Texts as codes, with what the program asks of each text worked out once.

Codes of the program's constants are fixed. Other texts get codes as rows bring them, and keep them until there are too
many; then a new generation starts from the constants. So two texts are equal exactly if their codes of one generation
are, whether or not any rule names them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.program.kernels import match_patterns

TEXTS_MAX: Final = 16_384
"""Texts after which rows start a new generation."""
TABLE_BYTES_MAX: Final = 32 * 1024 * 1024
"""The same, by the size of the table."""
_FIRST_ROOM: Final = 256


class Patterns:
    """LIKE patterns and salts of one program, ready to be asked about a text."""

    def __init__(self, patterns: Sequence[str], salts: Sequence[str]) -> None:
        chars = [_code_points(pattern) for pattern in patterns]
        self._chars = np.concatenate([np.zeros(0, np.uint32), *chars])
        self._bounds = np.array([0, *np.cumsum([len(part) for part in chars])], np.int64)
        self._salts = [salt.encode(errors="surrogatepass") + b"\0" for salt in salts]
        self.pattern_words = -(-len(patterns) // 64)
        self.width = max(1, self.pattern_words + len(salts))
        for part in (self._chars, self._bounds):
            part.setflags(write=False)

    def fill(self, text: str, row: NDArray[np.uint64]) -> None:
        """Write a text's bits, from the front, and hashes, from the back, over zeros."""
        if self.pattern_words:
            match_patterns(_code_points(text), self._chars, self._bounds, row)
        if self._salts:
            data = text.encode(errors="surrogatepass")
            for place, salt in enumerate(self._salts, 1):
                row[-place] = int.from_bytes(hashlib.sha256(salt + data).digest()[:8], "big")


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Generation:
    """Codes of texts, and a table with a row of uint64 per code, which only grows."""

    def __init__(self, patterns: Patterns, constants: Iterable[str]) -> None:
        self._patterns = patterns
        self._lock = threading.Lock()
        self._codes: dict[str, int] = {}
        self.table = np.zeros((_FIRST_ROOM, patterns.width), np.uint64)
        for text in constants:
            self._add(text)

    def __len__(self) -> int:
        return len(self._codes)

    def code(self, text: str) -> int:
        """The text's code."""
        known = self._codes.get(text)
        if known is not None:
            return known
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
        with self._lock:
            known = self._codes.get(text)
            return self._add(text) if known is None else known

    def _add(self, text: str) -> int:
        code = len(self._codes)
        if code == len(self.table):
            table = np.zeros((2 * code, self._patterns.width), np.uint64)
            table[:code] = self.table
            self.table = table
        self._patterns.fill(text, self.table[code])
        self._codes[text] = code
        return code


class Texts:
    """The generation that new rows use."""

    def __init__(self, patterns: Patterns, constants: Sequence[str]) -> None:
        self._patterns = patterns
        self._constants = constants
        self._bound = len(constants) + max(1, min(TEXTS_MAX, TABLE_BYTES_MAX // (8 * patterns.width)))
        self._current = Generation(patterns, constants)

    def generation(self) -> Generation:
        """The generation for one set of rows; a full one is left to whoever still holds it."""
        current = self._current
        if len(current) > self._bound:
            current = self._current = Generation(self._patterns, self._constants)
        return current
