"""How many different values a window holds: exactly while they are few, then by a sketch.

Of each value a hash is remembered with the latest tile that it occurred in. As every window ends at the present, a
window holds the values whose latest tile it covers. Beyond a bound of k values the number follows from how small the
k-th smallest hash is (k minimum values: Bar-Yossef et al., "Counting distinct elements in a data stream", 2002): the
relative standard error is 1/√(k − 2), 6.3 % for k = 256.

What must be remembered for that is the same whatever the order of the events, as it must be: a hash goes only where k
smaller ones have a tile at least as late, so that it is among the k smallest of no window, now or later. Of n values
about k · (1 + ln(n / k)) stay; whatever the values are, k for each tile of the widest window and k from before it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from online.shown import shown
from streaming.windows.distinct_kernels import mix, step_set, sweep_set
from streaming.windows.errors import ValueRefused

if TYPE_CHECKING:  # they hash by this module, and keep sets
    from streaming.windows.inputs import Inputs
    from streaming.windows.plan import WindowPlan
    from streaming.windows.state import TileState

AnyArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Rows = tuple[IntArray, IntArray, IntArray]
"""Where each entity's rows begin; rows by entity and time; their times, in that order."""

_ENTRY_BYTES = 16
_WHOLE_LIMIT = 2.0**63
_FLOATS = np.int64(0x5851F42D4C957F2D)
"""Keeps the bits of a float apart from the whole number of the same bits."""


def hashes(name: str, data: AnyArray, valid: AnyArray) -> IntArray:
    """64 bits for each value, the same for equal values; whole numbers, bools and times of different value differ.

    Args:
        name: Of the column, for errors.
        data: As `inputs.split_nulls` gives it. A float that is a whole number equals that number, −0.0 equals 0.0.
        valid: What is not NULL; filler comes of the rest.

    Raises:
        ValueRefused: A value is neither a number, a bool, a time, a text nor bytes.
    """
    if data.dtype.kind != "O":
        return _of_numbers(data)
    out = np.zeros(len(data), dtype=np.int64)
    known: dict[object, int] = {}
    for row in np.flatnonzero(valid).tolist():
        value = data[row]
        key = (type(value), value) if isinstance(value, _KINDS) else None
        if key is None:
            raise ValueRefused(name, row, f"{shown(value)} is neither a number, a text, a time nor bytes")
        found = known.get(key)
        if found is None:
            try:
                found = known[key] = _of_object(value)
            except OverflowError as error:
                raise ValueRefused(name, row, f"{shown(value)} does not fit int64") from error
        out[row] = found
    return out


def step_sets(
    plan: WindowPlan, states: Sequence[TileState], rows: Rows, inputs: Inputs, now_us: int, out: IntArray
) -> list[tuple[bytes, ...]]:
    """Bring the sets of entities to a logical time; their features go to `out`.

    Returns:
        What each entity keeps, as `TileState.sets`.
    """
    if not plan.distincts:
        return [()] * len(states)
    row_start, row_order, row_us = rows
    kept = []
    for number, each in enumerate(plan.distincts):
        start, held = _held(states, number)
        new = np.empty((len(held) + len(row_order) + 1, 2), dtype=np.int64)
        new_start = np.empty(len(start), dtype=np.int64)
        step_set(
            plan.hop_us, now_us, each.tiles, int(each.forever), plan.distinct_exact_below,
            start, held, row_start, row_order, row_us,
            inputs.hashes[each.column], np.ascontiguousarray(inputs.valid[:, each.column]), each.reads, plan.windows,
            new, new_start, out,
        )  # fmt: skip
        data = new[: new_start[-1]].tobytes()
        places = (_ENTRY_BYTES * new_start).tolist()
        kept.append([data[first:stop] for first, stop in itertools.pairwise(places)])
    return list(zip(*kept, strict=True))


def sweep_sets(
    plan: WindowPlan,
    states: Sequence[TileState],
    rows: Rows,
    inputs: Inputs,
    at: tuple[IntArray, IntArray],
    out: IntArray,
) -> None:
    """Write the features of sets at the instants (entities, times) of a sweep, by entity and time, into `out`.

    Args:
        plan: The view's plan.
        states: What each entity holds from before all rows.
        rows: Of the sweep.
        inputs: The rows' values.
        at: The instants.
        out: Takes the features.
    """
    for number, each in enumerate(plan.distincts):
        sweep_set(
            plan.hop_us, each.tiles, int(each.forever), plan.distinct_exact_below, *_held(states, number), *rows,
            inputs.hashes[each.column], np.ascontiguousarray(inputs.valid[:, each.column]), *at, each.reads,
            plan.windows, out,
        )  # fmt: skip


def _held(states: Sequence[TileState], number: int) -> tuple[IntArray, IntArray]:
    """One set of each state: where each entity's entries begin, one more at the end; and the entries."""
    parts = [state.sets[number] for state in states]
    start = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) // _ENTRY_BYTES, out=start[1:])
    return start, np.frombuffer(b"".join(parts), np.int64).reshape(-1, 2).copy()


def _of_numbers(data: AnyArray) -> IntArray:
    out = np.empty(len(data), dtype=np.int64)
    if data.dtype.kind != "f":
        mix(data.astype(np.int64), out)
        return out
    floats = data.astype(np.float64)
    whole = (np.rint(floats) == floats) & (floats >= -_WHOLE_LIMIT) & (floats < _WHOLE_LIMIT)
    words = np.where(whole, np.where(whole, floats, 0.0).astype(np.int64), floats.view(np.int64) ^ _FLOATS)
    mix(words, out)
    return out


def _of_object(value: Any) -> int:
    for kind, of in _OBJECTS.items():
        if isinstance(value, kind):
            return of(value)
    number = float(value) if isinstance(value, float | np.floating) else np.int64(value)
    return int(_of_numbers(np.array([number]))[0])


def _digest(letter: bytes, data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(letter + data, digest_size=8).digest(), "little", signed=True)


_OBJECTS: dict[type, Callable[[Any], int]] = {
    str: lambda text: _digest(b"s", text.encode("utf-8", "surrogatepass")),
    bytes: lambda data: _digest(b"b", data),
}
_KINDS = (str, bytes, int, float, np.number, np.bool_)
