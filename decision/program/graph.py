"""A program before its registers are given out: operations on values, equal ones only once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from decision.program import opcodes
from decision.schema import DType

Space = Literal["int", "float", "truth"]

SLOT: Final = -1
"""A value of the row; `words` is its place in `Graph.slots`."""
CONSTANT: Final = -2
"""`words` is the constant's bits and 1 where it is NULL."""
NOW: Final = -3


class Pool(NamedTuple):
    """Words that lie beside the program; an operation names where they begin."""

    words: tuple[int, ...]


Word = int | Pool


class Operation(NamedTuple):
    """One operation.

    Attributes:
        kind: One of `opcodes`, or a leaf's kind.
        args: Values it reads, in the order of the kernel's words.
        words: What follows the operands.
        leading: A word before the operands, as where a kind names a list first.
        space: Where the result lives.
    """

    kind: int
    args: tuple[int, ...]
    words: tuple[Word, ...]
    space: Space
    leading: tuple[Word, ...] = ()


@dataclass(slots=True)
class Graph:
    """Operations in an order in which operands come first; a value is its operation's place.

    Attributes:
        levels: Per operation 0 for leaves, else one more than the highest operand's.
        slots: Scalars that the rows give, by name and type.
        lists: Lists that the rows give.
        texts: Codes of constant texts.
        patterns: Places of LIKE patterns.
        salts: Places of salts by which texts are hashed.
    """

    operations: list[Operation] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    slots: dict[tuple[str, DType], int] = field(default_factory=dict)
    lists: dict[tuple[str, DType], int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    patterns: dict[str, int] = field(default_factory=dict)
    salts: dict[str, int] = field(default_factory=dict)
    _values: dict[Operation, int] = field(default_factory=dict)

    def add(
        self,
        kind: int,
        space: Space,
        args: tuple[int, ...] = (),
        words: tuple[Word, ...] = (),
        leading: tuple[Word, ...] = (),
    ) -> int:
        """The value of an operation, which is added unless it is there."""
        operation = Operation(kind, args, words, space, leading)
        value = self._values.get(operation)
        if value is None:
            value = self._values[operation] = len(self.operations)
            self.operations.append(operation)
            self.levels.append(1 + max(map(self.levels.__getitem__, args), default=-1))
        return value

    def constant(self, bits: int | None, space: Space) -> int:
        """A constant by its bits; None is NULL."""
        return self.add(CONSTANT, space, words=(bits or 0, int(bits is None)))

    def truth(self, value: bool | None) -> int:
        """TRUE, FALSE or NULL."""
        code = opcodes.NULL if value is None else opcodes.TRUE if value else opcodes.FALSE
        return self.add(CONSTANT, "truth", words=(code, 0))

    def slot(self, name: str, dtype: DType, space: Space) -> int:
        return self.add(SLOT, space, words=(self.slots.setdefault((name, dtype), len(self.slots)),))

    def list(self, name: str, dtype: DType) -> int:
        """The place of a list among the row's lists."""
        return self.lists.setdefault((name, dtype), len(self.lists))

    def text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def pattern(self, pattern: str) -> int:
        return self.patterns.setdefault(pattern, len(self.patterns))

    def salt(self, salt: str) -> int:
        return self.salts.setdefault(salt, len(self.salts))
