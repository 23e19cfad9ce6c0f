"""Registers for a graph's values, and the graph as the kernel's arrays.

Operations of one level and kind become one group with neighbouring results. Registers of numbers are int64 first, then
float64. Registers of bytes are the NULLs of the int64 ones first; then truth, where the conditions' results lead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from decision.program import opcodes
from decision.program.graph import CONSTANT, NOW, SLOT, Graph, Operation, Pool, Space, Word

WORD: Final = 64
GroupKey = tuple[int, int, int, int]
"""Level, kind, compared value (-1 in kinds that compare none), words per operation."""


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
        register: Register of every value of the graph.
    """

    code: NDArray[np.int64]
    numbers: NDArray[np.int64]
    truths: NDArray[np.uint8]
    int_count: int
    row_bytes: int
    truth_base: int
    register: tuple[int, ...]


def lay_out(graph: Graph, results: list[int]) -> Layout:
    """Lay a graph out.

    Args:
        graph: The operations.
        results: Values of the conditions, in their order.
    """
    groups = _grouped(graph)
    registers = _Registers(graph, groups, len(results))
    code = _Writer(graph, registers.register).write(groups, results, registers)
    return Layout(
        code=code,
        numbers=registers.number_template(),
        truths=registers.truth_template(),
        int_count=registers.ints,
        row_bytes=max(1, 9 * registers.ints + 8 * registers.floats + len(results) + registers.parts),
        truth_base=registers.truth_base,
        register=tuple(registers.register),
    )


def _grouped(graph: Graph) -> dict[GroupKey, list[int]]:
    groups: dict[GroupKey, list[int]] = {}
    for value, operation in enumerate(graph.operations):
        if operation.kind >= 0:
            groups.setdefault(_key(graph.levels[value], operation), []).append(value)
    return dict(sorted(groups.items()))


def _key(level: int, operation: Operation) -> GroupKey:
    if operation.kind in opcodes.SPREAD:
        return level, operation.kind, operation.args[0], len(operation.words)
    stride = len(operation.leading) + len(operation.args) + len(operation.words)
    return level, operation.kind, -1, stride


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


class _Registers:
    """Gives every value a register: leaves first, then group by group."""

    def __init__(self, graph: Graph, groups: dict[GroupKey, list[int]], result_count: int) -> None:
        self._graph = graph
        leaves = [value for value, operation in enumerate(graph.operations) if operation.kind < 0]
        order = [*leaves, *(value for values in groups.values() for value in values)]
        by_space: dict[Space, list[int]] = {"int": [], "float": [], "truth": []}
        for value in order:
            by_space[graph.operations[value].space].append(value)
        self.ints, self.floats = len(by_space["int"]), len(by_space["float"])
        self.truth_base = _up(self.ints, 8)
        first_truth = _up(result_count, WORD)
        self.parts = len(by_space["truth"])
        self.truths = _up(first_truth + len(by_space["truth"]), WORD)
        self.register = [0] * len(graph.operations)
        self._assign(by_space["int"], 0)
        self._assign(by_space["float"], self.ints)
        self._assign(by_space["truth"], self.truth_base + first_truth)

    def _assign(self, values: list[int], start: int) -> None:
        for register, value in enumerate(values, start):
            self.register[value] = register

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

    def write(
        self, groups: dict[GroupKey, list[int]], results: list[int], registers: _Registers
    ) -> NDArray[np.int64]:
        pooled = self._write_pools()
        program = [word for key, values in groups.items() for word in self._group(key, values)]
        if results:
            program += [opcodes.COPY, len(results), registers.truth_base, 1, 0]
            program += [self.register[value] for value in results]
        begin = opcodes.PROLOGUE + len(pooled)
        now = [self.register[v] for v, operation in enumerate(self.graph.operations) if operation.kind == NOW]
        prologue = [
            begin,
            begin + len(program),
            registers.truth_base,
            max(1, registers.truths // WORD),
            now[0] if now else -1,
            len(results),
            registers.parts,
        ]
        code = np.array([*prologue, *pooled, *program], np.int64)
        code.setflags(write=False)
        return code

    def _write_pools(self) -> list[int]:
        words: list[int] = []
        for operation in self.graph.operations:
            for word in operation.words:
                if isinstance(word, Pool) and word not in self._pools:
                    self._pools[word] = opcodes.PROLOGUE + len(words)
                    words += word.words
        return words

    def _group(self, key: GroupKey, values: list[int]) -> list[int]:
        _, kind, compared, stride = key
        register = self.register[compared] if compared >= 0 else 0
        words = [kind, len(values), self.register[values[0]], stride, register]
        for value in values:
            operation = self.graph.operations[value]
            words += [self._word(word) for word in operation.leading]
            if compared < 0:
                words += [self.register[arg] for arg in operation.args]
            words += [self._word(word) for word in operation.words]
        return words

    def _word(self, word: Word) -> int:
        return self._pools[word] if isinstance(word, Pool) else word
