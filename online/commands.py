"""The commands that read entities, packed to the byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from sys import getsizeof
from typing import Any, Final, cast, final, overload

import numpy as np

from decision.schema import ValueType
from online.keys import EntityKeys
from online.rows import Rows, key_columns

_MANY: Final = 8
_MOST_STARTS: Final = 256
_KNOWN_BYTES: Final = 4 << 20
_LONGEST_KNOWN: Final = 64
"""Characters of a text that is remembered."""
_ENTRY_BYTES: Final = 128
"""What remembering a text costs beside the text and its command."""

_KINDS: Final[Mapping[ValueType, np.dtype[Any]]] = {
    ValueType.INT32: np.dtype("<i4"),
    ValueType.INT64: np.dtype("<i8"),
}

Commands = Sequence[bytes | None]

WHOLE: Final = b"*2\r\n$7\r\nHGETALL\r\n"
DUMP: Final = b"*2\r\n$4\r\nDUMP\r\n"
"""Heads of the two commands that read a hash whole."""


@final
class Packed(Sequence[bytes]):
    """Distinct commands of one size, one behind the other: taken apart only where they do not leave together.

    Told by its type: to ask whether something is an instance of an abstract class takes ten times as long.

    Args:
        data: The commands.
        size_bytes: Of each.
    """

    __slots__ = ("_size_bytes", "data")

    def __init__(self, data: bytes, size_bytes: int) -> None:
        self.data = data
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return len(self.data) // self._size_bytes

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        at = self._size_bytes * range(len(self))[place]
        return self.data[at : at + self._size_bytes]


def joined(commands: Sequence[bytes]) -> bytes:
    """Commands as they are sent."""
    return commands.data if type(commands) is Packed else b"".join(commands)


class Packer:
    """Packs the command that reads one entity: its key between what all such commands have in common.

    Commands by a single text key are remembered, up to `_KNOWN_BYTES` with what surrounds them, since the same offers
    and categories are asked for over and over.

    Args:
        keys: The keys.
        head: The packed command up to its key.
        tail: The packed command behind its key.

    Attributes:
        kind: What tells these commands from those of others: the same for two that may pack the same command.
    """

    def __init__(self, keys: EntityKeys, head: bytes, tail: bytes) -> None:
        self._keys = keys
        self._names = tuple(key.name for key in keys.join_keys)
        self._starts = _Starts(head, keys)
        self._end = keys.suffix + b"\r\n" + tail
        self.kind = b"\0".join((head, keys.prefix, self._end))
        self._known: dict[str, bytes] = {}
        self._known_bytes = 0
        self._numbers = _numbers_of(keys, self._starts, self._end)
        self._remembers = [key.value_type for key in keys.join_keys] == [ValueType.STRING]

    def commands(self, rows: Rows) -> Commands:
        """One command per row; None where a row lacks a join key.

        Raises:
            KeyEncodingError: A join key's value does not fit its type.
        """
        columns = key_columns(rows, self._names)
        if self._remembers:
            return self._known_or_packed(columns)
        return self._packed(columns, len(rows))

    def _known_or_packed(self, columns: Sequence[Sequence[Any]]) -> Commands:
        (values,) = columns
        find = cast("Callable[[Any], bytes | None]", self._known.get)
        try:
            commands = [*map(find, values)]
        except TypeError:  # a value that has no hash is no text
            return self._packed(columns, len(values))
        if None not in commands:
            return commands
        packed = self._packed(columns, len(values))
        for value, command in zip(values, packed, strict=True):
            if type(value) is str and command is not None and len(value) <= _LONGEST_KNOWN:
                self._remember(value, command)
        return packed

    def _remember(self, text: str, command: bytes) -> None:
        if text in self._known:
            return
        self._known_bytes += getsizeof(text) + getsizeof(command) + _ENTRY_BYTES
        if self._known_bytes > _KNOWN_BYTES:
            self._known.clear()
            self._known_bytes = getsizeof(text) + getsizeof(command) + _ENTRY_BYTES
        self._known[text] = command

    def _packed(self, columns: Sequence[Sequence[Any]], count: int) -> Commands:
        if count >= _MANY and self._numbers is not None:
            packed = self._numbers.commands(columns[0])
            if packed is not None:
                return packed
        starts, end = self._starts, self._end
        return [
            None if payload is None else starts[len(payload)] + payload + end
            for payload in self._keys.payloads(columns, count)
        ]


class _Numbers:
    """Packs many commands by one whole number in one go.

    Args:
        command: The command by 0.
        at: Where in it the number stands.
        kind: How it stands there.
    """

    def __init__(self, command: bytes, at: int, kind: np.dtype[Any]) -> None:
        self._template = np.frombuffer(command, np.uint8)
        self._kind = kind
        self._place = slice(at, at + kind.itemsize)

    def commands(self, values: Sequence[Any]) -> Packed | None:
        """One command per value; None where one is no number of the kind, or comes twice."""
        if set(map(type, values)) != {int} or len(set(values)) < len(values):
            return None
        try:
            numbers = np.array(values, self._kind)
        except OverflowError:
            return None
        size = len(self._template)
        packed = np.empty((len(numbers), size), np.uint8)
        packed[:] = self._template
        packed[:, self._place] = numbers.view(np.uint8).reshape(len(numbers), -1)
        return Packed(packed.tobytes(), size)


def _numbers_of(keys: EntityKeys, starts: _Starts, end: bytes) -> _Numbers | None:
    """How to pack commands by the one key, or None where it is no whole number."""
    kind = _KINDS.get(keys.join_keys[0].value_type) if len(keys.join_keys) == 1 else None
    if kind is None:
        return None
    (payload,) = keys.payloads([[0]], 1)
    assert payload is not None
    head = starts[len(payload)] + payload
    return _Numbers(head + end, len(head) - kind.itemsize, kind)


class _Starts(dict[int, bytes]):
    """How a command starts, by the size of what is the entity's own in its key."""

    def __init__(self, head: bytes, keys: EntityKeys) -> None:
        super().__init__()
        self._head = head
        self._prefix = keys.prefix
        self._around = len(keys.prefix) + len(keys.suffix)

    def __missing__(self, size: int) -> bytes:
        start = b"%b$%d\r\n%b" % (self._head, self._around + size, self._prefix)
        if size <= _MOST_STARTS:
            self[size] = start
        return start


def undumped(command: bytes) -> bytes:
    """The command that reads by HGETALL what one reads by DUMP."""
    return WHOLE + command.removeprefix(DUMP)
