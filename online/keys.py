"""Feast's Redis keys and hash fields, and the key of Waypost's own state beside them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from reprlib import repr as short

import mmh3

from decision.schema import JoinKey, Value, ValueType
from online.errors import KeyEncodingError, MissingJoinKeyError
from online.slots import slot_of, slot_tags

__all__ = ["EntityKeys", "feature_field", "slot_of", "state_key", "timestamp_field"]

US_PER_SECOND = 1_000_000
MAX_KEY_VALUE_BYTES = 65_536
_ENTITYLESS = JoinKey(name="__dummy_id", value_type=ValueType.STRING)
_HEADER = struct.Struct("<II")


class EntityKeys:
    """Encodes rows of one join-key set as Feast entity keys (serialization version 3, project as suffix).

    Args:
        project: Feast project.
        join_keys: In any order; empty for an entityless view.

    Raises:
        KeyEncodingError: A join key appears twice or has a type that Feast cannot encode.
    """

    __slots__ = ("_columns", "_prefix", "_suffix", "join_keys", "project")

    def __init__(self, project: str, join_keys: Sequence[JoinKey]) -> None:
        self.project = project
        self.join_keys = tuple(sorted(join_keys, key=lambda key: key.name))
        names = [key.name for key in self.join_keys]
        for name, following in pairwise(names):
            if name == following:
                raise KeyEncodingError(f"join key {name!r} appears twice; name each join key once")
        columns = self.join_keys or (_ENTITYLESS,)
        self._prefix = _prefix(columns)
        self._suffix = project.encode()
        self._columns = tuple((key.name, _payload_encoder(key)) for key in self.join_keys)
        if not self.join_keys:
            self._suffix = _HEADER.pack(ValueType.STRING, 0) + self._suffix

    def encode(self, row: Mapping[str, Value]) -> bytes:
        """Return the key of the entity that a row names; other columns of the row are ignored.

        Integers are checked against the join key's width, text is taken for an integer where it is its canonical
        decimal form, and timestamps in microseconds are floored to seconds.

        Raises:
            MissingJoinKeyError: A join key is absent or None.
            KeyEncodingError: A value does not fit the join key's type.
        """
        key = self._prefix
        for name, encode in self._columns:
            value = row.get(name)
            if value is None:
                raise MissingJoinKeyError(f"join key {name!r} is missing; give it a value")
            key += encode(value)
        return key + self._suffix

    def decode(self, key: bytes) -> dict[str, Value]:
        """Read the join keys' values back from a key that `encode` made; timestamps are whole seconds in microseconds.

        Raises:
            KeyEncodingError: The key is of another entity or project.
        """
        if not (key.startswith(self._prefix) and key.endswith(self._suffix)):
            raise KeyEncodingError(f"{short(key)} is no key of ({', '.join(k.name for k in self.join_keys)})")
        row: dict[str, Value] = {}
        offset = len(self._prefix)
        for join_key in self.join_keys:
            value_type, size = _HEADER.unpack_from(key, offset)
            offset += _HEADER.size
            row[join_key.name] = _payload_value(ValueType(value_type), key[offset : offset + size])
            offset += size
        return row


def _payload_value(value_type: ValueType, payload: bytes) -> Value:
    if value_type is ValueType.STRING:
        return payload.decode()
    if value_type is ValueType.BYTES:
        return payload
    number = int.from_bytes(payload, "little", signed=True)
    return number * US_PER_SECOND if value_type is ValueType.UNIX_TIMESTAMP else number


def feature_field(view: str, feature: str) -> bytes:
    """Return the hash field of a feature: murmur3_32 of `view:feature`, four bytes, little-endian."""
    return mmh3.hash(f"{view}:{feature}", signed=False).to_bytes(4, "little")


def timestamp_field(view: str) -> bytes:
    """Return the hash field of a view's event timestamp."""
    return b"_ts:" + view.encode()


def state_key(entity_key: bytes) -> bytes:
    """Return the key of Waypost's state of an entity, in the same Cluster slot as the entity key."""
    return b"{" + slot_tags()[slot_of(entity_key)] + b"}wp:" + entity_key


def _prefix(columns: Sequence[JoinKey]) -> bytes:
    parts = [struct.pack("<I", len(columns))]
    for key in columns:
        name = key.name.encode()
        parts += (_HEADER.pack(ValueType.STRING, len(name)), name)
    return b"".join(parts)


_PayloadEncoder = Callable[[Value], bytes]


def _payload_encoder(key: JoinKey) -> _PayloadEncoder:
    make = _ENCODERS.get(key.value_type)
    if make is None:
        raise KeyEncodingError(
            f"join key {key.name!r} is {key.value_type.name}, which Feast cannot encode in a key; "
            "use STRING, INT32, INT64, BYTES or UNIX_TIMESTAMP"
        )
    return make(key)


def _integer_encoder(key: JoinKey, layout: str, width: int) -> _PayloadEncoder:
    packed = struct.Struct(layout)

    def encode(value: Value) -> bytes:
        number = value if type(value) is int else _integer(key, value)
        try:
            return packed.pack(key.value_type, width, number)
        except struct.error as error:
            raise KeyEncodingError(
                f"join key {key.name!r} = {number!r} is out of range for {key.value_type.name}"
            ) from error

    return encode


def _timestamp_encoder(key: JoinKey) -> _PayloadEncoder:
    seconds = _integer_encoder(key, "<IIq", 8)
    return lambda value: seconds((value if type(value) is int else _integer(key, value)) // US_PER_SECOND)


def _integer(key: JoinKey, value: Value) -> int:
    """Read an integer from canonical decimal text, so that `007` and `7` cannot name one entity twice."""
    if isinstance(value, str) and len(value) <= 20:
        digits = value.removeprefix("-")
        canonical = digits.isascii() and digits.isdigit() and (digits[0] != "0" or value == "0")
        if canonical:
            return int(value)
    raise KeyEncodingError(
        f"join key {key.name!r} = {short(value)} is not an integer; send {key.value_type.name} as a whole number"
    )


def _text_encoder(key: JoinKey) -> _PayloadEncoder:
    def encode(value: Value) -> bytes:
        if not isinstance(value, str):
            raise KeyEncodingError(f"join key {key.name!r} = {short(value)} is not text; send STRING as text")
        try:
            return _sized(key, value.encode())
        except UnicodeEncodeError as error:
            raise KeyEncodingError(
                f"join key {key.name!r} = {short(value)} is not valid Unicode text"
            ) from error

    return encode


def _bytes_encoder(key: JoinKey) -> _PayloadEncoder:
    def encode(value: Value) -> bytes:
        if not isinstance(value, bytes):
            raise KeyEncodingError(
                f"join key {key.name!r} = {short(value)} is not bytes; send BYTES as bytes"
            )
        return _sized(key, value)

    return encode


def _sized(key: JoinKey, payload: bytes) -> bytes:
    if len(payload) > MAX_KEY_VALUE_BYTES:
        raise KeyEncodingError(
            f"join key {key.name!r} has {len(payload)} bytes; at most {MAX_KEY_VALUE_BYTES} are taken"
        )
    return _HEADER.pack(key.value_type, len(payload)) + payload


_ENCODERS: dict[ValueType, Callable[[JoinKey], _PayloadEncoder]] = {
    ValueType.INT32: lambda key: _integer_encoder(key, "<IIi", 4),
    ValueType.INT64: lambda key: _integer_encoder(key, "<IIq", 8),
    ValueType.UNIX_TIMESTAMP: _timestamp_encoder,
    ValueType.STRING: _text_encoder,
    ValueType.BYTES: _bytes_encoder,
}
