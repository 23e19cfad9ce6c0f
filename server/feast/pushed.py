"""Rows that a client pushes: columns of cells, each cell encoded by the type that its view declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from decision.schema import ValueType, View
from server.bounds import NAME_SHOWN
from server.feast.encoding import encode, encode_message, from_base64
from server.feast.entities import plain_key

_BYTES = frozenset({ValueType.BYTES, ValueType.BYTES_LIST, ValueType.BYTES_SET})


class Pushed(Protocol):
    """Columns of one push by name, as one of the two doors brought them; also a `Given` of join keys."""

    def names(self) -> Iterable[str]:
        """The columns there are."""

    def count(self, name: str) -> int:
        """How many rows a column has."""

    def plain(self, name: str) -> list[Any]:
        """A column's values in Python; None is NULL."""

    def place(self, name: str, row: int | None = None) -> str:
        """The field path of a column or of one value, for messages."""

    def encoded(self, name: str, value_type: ValueType) -> list[bytes]:
        """A column's values as they are stored.

        Raises:
            ValueEncodeError: A value does not fit the type.
        """


class MappedPush:
    """A push whose columns may go by the names of the view's source, as Feast takes them too."""

    def __init__(self, rows: Pushed, view: View) -> None:
        self._rows = rows
        sent = set(rows.names())
        self._sent = {name: column for name, column in view.source_columns if column in sent - {name}}
        self._names = [*sent.difference(self._sent.values()), *self._sent]

    def names(self) -> Iterable[str]:
        return self._names

    def count(self, name: str) -> int:
        return self._rows.count(self._sent.get(name, name))

    def plain(self, name: str) -> list[Any]:
        return self._rows.plain(self._sent.get(name, name))

    def place(self, name: str, row: int | None = None) -> str:
        return self._rows.place(self._sent.get(name, name), row)

    def encoded(self, name: str, value_type: ValueType) -> list[bytes]:
        return self._rows.encoded(self._sent.get(name, name), value_type)


class PushedMessages:
    """One row of `typed_features`."""

    def __init__(self, cells: Mapping[str, Any]) -> None:
        self._cells = cells

    def names(self) -> Iterable[str]:
        return self._cells

    def count(self, name: str) -> int:  # noqa: ARG002 - one row
        return 1

    def plain(self, name: str) -> list[Any]:
        return [plain_key(self._cells[name])]

    def place(self, name: str, row: int | None = None) -> str:  # noqa: ARG002 - one row
        return f"typed_features.{name[:NAME_SHOWN]}"

    def encoded(self, name: str, value_type: ValueType) -> list[bytes]:
        return [encode_message(value_type, self._cells[name])]


class PushedTexts:
    """One row of `features`: every value is text, cast by the schema."""

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells

    def names(self) -> Iterable[str]:
        return self._cells

    def count(self, name: str) -> int:  # noqa: ARG002 - one row
        return 1

    def plain(self, name: str) -> list[Any]:
        return [self._cells[name]]

    def place(self, name: str, row: int | None = None) -> str:  # noqa: ARG002 - one row
        return f"features.{name[:NAME_SHOWN]}"

    def encoded(self, name: str, value_type: ValueType) -> list[bytes]:
        return [encode(value_type, self._cells[name])]


class PushedJson:
    """Rows of an HTTP push: lists of JSON values, bytes in base64."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = columns

    def names(self) -> Iterable[str]:
        return self._columns

    def count(self, name: str) -> int:
        return len(self._columns[name])

    def plain(self, name: str) -> list[Any]:
        return list(self._columns[name])

    def place(self, name: str, row: int | None = None) -> str:
        path = f"df.{name[:NAME_SHOWN]}"
        return path if row is None else f"{path}[{row}]"

    def encoded(self, name: str, value_type: ValueType) -> list[bytes]:
        column = self._columns[name]
        if value_type in _BYTES:
            column = [from_base64(value) for value in column]
        return [encode(value_type, value) for value in column]
