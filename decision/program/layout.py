"""Registers for a graph's values, and the graph as the kernel's arrays.

Operations of one level and kind become one group with neighbouring results; those that read only what all rows have in
common come first, in groups of their own. Registers of numbers are int64 first, then
float64. Registers of bytes are the NULLs of the int64 ones first; then truth, where the conditions' results lead: what
AND, OR and the like give for a condition lies there from the start, other results are copied there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from decision.program import opcodes
from decision.program.graph import CONSTANT, NOW, SLOT, Graph, Operation, Pool, Space, Word
from decision.program.thresholds import of_bits

WORD: Final = 64
EIGHT: Final = 8
"""Constants that the kernel compares with at once; the truths of groups that do so start and end at such places."""
_FLOAT_ORDER: Final = frozenset({opcodes.LE_F, opcodes.GE_F, opcodes.EQ_F, opcodes.NE_F})
_COMMUTES: Final = frozenset({opcodes.AND, opcodes.OR})
GroupKey = tuple[bool, int, int, int, int]
"""Whether rows differ in it, level, kind, compared value (-1 in kinds that compare none), words per operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A graph laid out.

    Attributes:
        code: The kernel's program, int64.
        numbers: int64[r], what registers of numbers hold before a row is written: constants, and NULL.
        truths: uint8[v], the same for bytes.
        int_count: Registers of numbers that are int64.
        row_bytes: Bytes that a row's registers take in use.
        truth_base: First register of truth; the result of condition i is in the i-th after it.
        words: Masks of 64 that the registers of truth fill.
        register: Register of every value of the graph.
    """

    code: NDArray[np.int64]
    numbers: NDArray[np.int64]
    truths: NDArray[np.uint8]
    int_count: int
    row_bytes: int
    truth_base: int
    words: int
    register: tuple[int, ...]


def lay_out(graph: Graph, results: list[int], common: Collection[str] = ()) -> Layout:
    """Lay a graph out.

    Args:
        graph: The operations.
        results: Values of the conditions, in their order.
        common: Names of what all rows of a block may have in common.
    """
    groups = _grouped(graph, _common(graph, common))
    registers = _Registers(graph, groups, results)
    code = _Writer(graph, registers.register).write(groups, registers)
    truths = registers.truth_template()
    return Layout(
        code=code,
        numbers=registers.number_template(),
        truths=truths,
        int_count=registers.ints,
        row_bytes=max(1, 9 * registers.ints + 8 * registers.floats + len(results) + registers.parts),
        truth_base=registers.truth_base,
        words=(len(truths) - registers.truth_base) // WORD,
        register=tuple(registers.register),
    )


def _common(graph: Graph, names: Collection[str]) -> list[bool]:
    """Whether each value is the same in all rows where those of that name are."""
    scalars, lists = ([name in names for name, _ in given] for given in (graph.slots, graph.lists))
    common: list[bool] = []
    for operation in graph.operations:
        if operation.kind == SLOT:
            common.append(scalars[cast("int", operation.words[0])])
        else:
            common.append(
                all(common[arg] for arg in operation.args)
                and all(lists[cast("int", place)] for place in operation.leading)
            )
    return common


def _grouped(graph: Graph, common: list[bool]) -> dict[GroupKey, list[int]]:
    groups: dict[GroupKey, list[int]] = {}
    for value, operation in enumerate(graph.operations):
        if operation.kind >= 0:
            key = (not common[value], *_key(graph.levels[value], operation))
            groups.setdefault(key, []).append(value)
    for (_, _, kind, _, _), values in groups.items():
        if kind <= opcodes.LIKE:
            values.sort(key=lambda value: _limit(graph.operations[value]))
    return dict(sorted(groups.items()))


def _key(level: int, operation: Operation) -> tuple[int, int, int, int]:
    if operation.kind <= opcodes.SPREAD_LAST:
        return level, operation.kind, operation.args[0], len(operation.words)
    stride = len(operation.leading) + len(operation.args) + len(operation.words)
    return level, operation.kind, -1, stride + _is_logic(operation.kind)


def _is_logic(kind: int) -> bool:
    return opcodes.SPREAD_LAST < kind <= opcodes.LOGIC_LAST


def _limit(operation: Operation) -> float:
    """What an operation compares with, for order."""
    word = cast("int", operation.words[0])
    return of_bits(word) if operation.kind in _FLOAT_ORDER else word


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


class _Registers:
    """Gives every value a register: leaves first, then group by group."""

    def __init__(self, graph: Graph, groups: dict[GroupKey, list[int]], results: list[int]) -> None:
        self._graph = graph
        operations = graph.operations
        leaves = [value for value, operation in enumerate(operations) if operation.kind < 0]
        self.register = [0] * len(operations)
        order = [*leaves, *(value for values in groups.values() for value in values)]
        self.ints = self._assign(self._of("int", order), 0)
        self.floats = self._assign(self._of("float", order), self.ints) - self.ints
        self.truth_base = _up(self.ints, EIGHT)
        self.copies: list[tuple[int, int]] = []
        """Results that are computed elsewhere: where they go, and which value they are."""
        self.result_count = len(results)
        placed = self._place_results(results)
        first = self.truth_base + _up(len(results), WORD)
        end = self._assign(self._of("truth", leaves), first)
        for key, values in groups.items():
            end = self._assign_group(
                key, [value for value in self._of("truth", values) if value not in placed], end
            )
        self.parts = end - first
        self.truths = _up(end - self.truth_base, WORD)

    def _of(self, space: Space, values: Iterable[int]) -> list[int]:
        return [value for value in values if self._graph.operations[value].space == space]

    def _assign(self, values: list[int], start: int) -> int:
        for register, value in enumerate(values, start):
            self.register[value] = register
        return start + len(values)

    def _assign_group(self, key: GroupKey, values: list[int], start: int) -> int:
        if key[2] > opcodes.SPREAD_LAST:
            return self._assign(values, start)
        return _up(self._assign(values, _up(start, EIGHT)), EIGHT)

    def _place_results(self, results: list[int]) -> set[int]:
        """Put results of logic where results are read; the others are copied."""
        placed: set[int] = set()
        for place, value in enumerate(results, self.truth_base):
            if value not in placed and _is_logic(self._graph.operations[value].kind):
                placed.add(value)
                self.register[value] = place
            else:
                self.copies.append((place, value))
        return placed

    def _constants(self) -> list[tuple[int, Operation]]:
        return [
            (self.register[value], operation)
            for value, operation in enumerate(self._graph.operations)
            if operation.kind == CONSTANT
        ]

    def number_template(self) -> NDArray[np.int64]:
        template = np.zeros(max(1, self.ints + self.floats), np.int64)
        template[self.ints :].view(np.float64)[:] = np.nan
        for register, operation in self._constants():
            if operation.space == "int" or (operation.space == "float" and not operation.words[1]):
                template[register] = cast("int", operation.words[0])
        return template

    def truth_template(self) -> NDArray[np.uint8]:
        template = np.zeros(self.truth_base + max(WORD, self.truths), np.uint8)
        for value, operation in enumerate(self._graph.operations):
            if operation.kind == SLOT and operation.space != "float":
                template[self.register[value]] = 1
        for register, operation in self._constants():
            if operation.space != "float":
                template[register] = cast("int", operation.words[0 if operation.space == "truth" else 1])
        return template


@dataclass(slots=True)
class _Writer:
    """Writes the kernel's program: a prologue, the pools, the groups."""

    graph: Graph
    register: list[int]
    _pools: dict[Pool, int] = field(default_factory=dict)
    _words: list[int] = field(default_factory=list)

    def write(self, groups: dict[GroupKey, list[int]], registers: _Registers) -> NDArray[np.int64]:
        self._words = [0] * opcodes.PROLOGUE
        self._write_pools()
        at_common = len(self._words)
        self._write_common(groups)
        begin = len(self._words)
        common = {key: values for key, values in groups.items() if not key[0]}
        for key, values in common.items():
            self._write_group(key, values)
        each = len(self._words)
        for key, values in groups.items():
            if key not in common:
                self._write_group(key, values)
        if registers.copies:
            copies = [[self.register[value], place] for place, value in registers.copies]
            self._close((opcodes.COPY, len(copies), 0, 2, 0), _halves(copies))
        now = [self.register[v] for v, operation in enumerate(self.graph.operations) if operation.kind == NOW]
        self._words[: opcodes.PROLOGUE] = [
            begin,
            len(self._words),
            max(1, registers.ints + registers.floats),
            registers.truth_base + max(WORD, registers.truths),
            registers.truth_base,
            max(1, registers.truths // WORD),
            now[0] if now else -1,
            registers.result_count,
            registers.parts,
            each,
            at_common,
        ]
        behind = [0] * EIGHT  # a vector of constants may reach behind the last one
        code = np.array(self._words + behind, np.int64)
        code.setflags(write=False)
        return code

    def _write_pools(self) -> None:
        for operation in self.graph.operations:
            for word in operation.words:
                if isinstance(word, Pool) and word not in self._pools:
                    self._pools[word] = len(self._words)
                    self._words += word.words

    def _write_common(self, groups: dict[GroupKey, list[int]]) -> None:
        common = [value for key, values in groups.items() if not key[0] for value in values]
        spaces = [self.graph.operations[value].space for value in common]
        for absent in ("truth", "float"):
            kept = [
                self.register[value] for value, space in zip(common, spaces, strict=True) if space != absent
            ]
            self._words += [len(kept), *kept]

    def _write_group(self, key: GroupKey, values: list[int]) -> None:
        _, _, kind, compared, stride = key
        header = (kind, len(values), self.register[values[0]], stride)
        if _is_logic(kind):
            self._close((*header, 0), _halves(sorted(self._logic(value) for value in values)))
        elif compared < 0:
            self._close((*header, 0), [word for value in values for word in self._operands(value)])
        else:
            words = [word for value in values for word in self._constants(value)]
            self._close((*header, self.register[compared]), words + self._index(kind, values))

    def _close(self, header: tuple[int, int, int, int, int], words: list[int]) -> None:
        self._words += header
        self._words.append(len(self._words) + 1 + len(words))
        self._words += words

    def _logic(self, value: int) -> list[int]:
        """Operands first, so that sorting brings neighbouring operands together; `_halves` turns the result ahead."""
        operation = self.graph.operations[value]
        operands = [self.register[arg] for arg in operation.args]
        if operation.kind in _COMMUTES:
            operands.sort()
        return [*operands, self.register[value]]

    def _operands(self, value: int) -> list[int]:
        operation = self.graph.operations[value]
        registers = [self.register[arg] for arg in operation.args]
        return [*map(self._word, operation.leading), *registers, *map(self._word, operation.words)]

    def _constants(self, value: int) -> list[int]:
        return [self._word(word) for word in self.graph.operations[value].words]

    def _index(self, kind: int, values: list[int]) -> list[int]:
        """All items of IN with the operations that hold each, by their place in the group."""
        if kind not in (opcodes.IN_I, opcodes.IN_F):
            return []
        holders: dict[int, list[int]] = {}
        for place, value in enumerate(values):
            for item in cast("Pool", self.graph.operations[value].words[0]).words:
                holders.setdefault(item, []).append(place)
        items = sorted(holders, key=of_bits if kind == opcodes.IN_F else None)
        ends = np.cumsum([0, *(len(holders[item]) for item in items)]).tolist()
        return [len(items), *items, *ends, *(place for item in items for place in holders[item])]

    def _word(self, word: Word) -> int:
        return self._pools[word] if isinstance(word, Pool) else word


def _halves(operations: Iterable[list[int]]) -> list[int]:
    """Operations given as operands and then result, as int32 two to a word, the result ahead."""
    flat = [word for operation in operations for word in (operation[-1], *operation[:-1])]
    if len(flat) % 2:
        flat.append(0)
    words: list[int] = np.array(flat, np.int32).view(np.int64).tolist()
    return words
