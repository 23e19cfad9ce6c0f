"""Feast's Redis keys and hash fields, and the key of Waypost's own state beside them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import mmh3
import numpy as np
import numpy.typing as npt

from decision.schema import JoinKey, Value, ValueType
from online.errors import KeyEncodingError, MissingJoinKeyError
from online.key_kernels import split_keys
from online.shown import short
from online.slots import TAG_BYTES, slot_of, slot_tags

__all__ = [
    "STATE_MARK",
    "EntityKeys",
    "StoredKey",
    "encode_value",
    "entity_key_of",
    "feature_field",
    "key_pattern",
    "parse_key",
    "slot_of",
    "state_key",
    "timestamp_field",
]

IntArray = npt.NDArray[np.int64]

US_PER_SECOND = 1_000_000
MAX_KEY_VALUE_BYTES = 65_536
MAX_JOIN_KEYS = 255
STATE_MARK = b"}wp:"
_GLOB = re.compile(rb"[*?\[\]\\]")
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

    __slots__ = ("_columns", "_packers", "_prefix", "_suffix", "join_keys", "project")

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
        self._packers = tuple(_packer(key) for key in self.join_keys)
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

    @property
    def prefix(self) -> bytes:
        """What every key begins with."""
        return self._prefix

    @property
    def suffix(self) -> bytes:
        """What every key ends with."""
        return self._suffix

    def payloads(self, columns: Sequence[Sequence[Value]], count: int) -> list[bytes | None]:
        """As `encode`, of many rows: what stands between `prefix` and `suffix`, None where a join key is missing.

        Args:
            columns: The values of each of `join_keys`.
            count: How many rows there are.

        Raises:
            KeyEncodingError: A value does not fit the join key's type.
        """
        if not columns:
            return [b""] * count
        packed = [pack(values) for pack, values in zip(self._packers, columns, strict=True)]
        plain = [column for column in packed if column is not None]
        if len(plain) < len(packed):
            return [self._payload(values) for values in zip(*columns, strict=True)]
        return list(plain[0]) if len(plain) == 1 else [b"".join(row) for row in zip(*plain, strict=True)]

    def _payload(self, values: Sequence[Value]) -> bytes | None:
        parts = []
        for (_, encode), value in zip(self._columns, values, strict=True):
            if value is None:
                return None
            parts.append(encode(value))
        return b"".join(parts)

    def encode_many(self, columns: Mapping[str, tuple[Sequence[Value], Sequence[int]]]) -> list[bytes]:
        """As `encode`, of many rows.

        Args:
            columns: By join key, none of them missing: distinct values, and for each row the number of its own.

        Raises:
            KeyEncodingError: A value does not fit the join key's type.
        """
        parts = []
        for (name, encode), pack in zip(self._columns, self._packers, strict=True):
            values, places = columns[name]
            packed = pack(values)
            encoded = [encode(value) for value in values] if packed is None else packed
            parts.append([encoded[place] for place in places])
        prefix, suffix = self._prefix, self._suffix
        if len(parts) == 1:
            return [prefix + value + suffix for value in parts[0]]
        return [b"".join((prefix, *row, suffix)) for row in zip(*parts, strict=True)]

    def decode(self, key: bytes) -> dict[str, Value]:
        """Read the join keys' values back from a key that `encode` made; timestamps are whole seconds in microseconds.

        Raises:
            KeyEncodingError: The key is of another entity or project.
        """
        stored = parse_key(key)
        columns = self.join_keys or (_ENTITYLESS,)
        if (stored.project, stored.names, stored.types) != (
            self.project,
            tuple(column.name for column in columns),
            tuple(column.value_type for column in columns),
        ):
            raise KeyEncodingError(f"{short(key)} is no key of ({', '.join(k.name for k in self.join_keys)})")
        return dict(zip(stored.names, stored.values, strict=True)) if self.join_keys else {}

    def split(self, data: bytes, at: IntArray) -> tuple[IntArray, IntArray]:
        """Find the join keys' values in keys that lie one after another.

        Args:
            data: The keys.
            at: Where each begins; one more at the end.

        Returns:
            Where each value begins and ends in `data`, shape (keys, join keys): text in UTF-8, bytes, or a
            little-endian integer; timestamps are seconds.

        Raises:
            KeyEncodingError: A key is of another entity or project.
        """
        kinds = np.array([key.value_type for key in self.join_keys], dtype=np.int64)
        first, stop = np.empty((2, len(at) - 1, len(kinds)), dtype=np.int64)
        arrays = [np.frombuffer(part, dtype=np.uint8) for part in (data, self._prefix, self._suffix)]
        bad = split_keys(arrays[0], at, arrays[1], arrays[2], kinds, first, stop)
        if bad >= 0:
            key = data[at[bad] : at[bad + 1]]
            raise KeyEncodingError(f"{short(key)} is no key of ({', '.join(k.name for k in self.join_keys)})")
        return first, stop


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What an entity key says, of whatever entity and project.

    Attributes:
        names: Join keys, sorted; `__dummy_id` for an entityless view.
        types: Their types.
        values: Their values; timestamps are whole seconds in microseconds.
    """

    project: str
    names: tuple[str, ...]
    types: tuple[ValueType, ...]
    values: tuple[Value, ...]


def parse_key(key: bytes) -> StoredKey:
    """Read a key whole: the project is what stands behind the last value, so a longer name is another project.

    Raises:
        KeyEncodingError: It is no entity key.
    """
    try:
        (count,) = struct.unpack_from("<I", key)
        if not 0 < count <= MAX_JOIN_KEYS:
            raise KeyEncodingError(f"{short(key)} is no entity key: {count} join keys")
        offset = 4
        names, values = [], []
        for _ in range(count):
            name, offset = _sized_part(key, offset)
            names.append(name[1].decode())
        for _ in range(count):
            value, offset = _sized_part(key, offset)
            values.append(value)
        types = tuple(ValueType(kind) for kind, _ in values)
        return StoredKey(
            project=key[offset:].decode(),
            names=tuple(names),
            types=types,
            values=tuple(_payload_value(ValueType(kind), payload) for kind, payload in values),
        )
    except (struct.error, ValueError) as error:
        raise KeyEncodingError(f"{short(key)} is no entity key") from error


def _sized_part(key: bytes, offset: int) -> tuple[tuple[int, bytes], int]:
    kind, size = _HEADER.unpack_from(key, offset)
    end = offset + _HEADER.size + size
    if end > len(key):
        raise KeyEncodingError(f"{short(key)} is no entity key: it is cut short")
    return (kind, key[end - size : end]), end


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


@lru_cache(65_536)
def state_key(entity_key: bytes) -> bytes:
    """Return the key of Waypost's state of an entity, in the same Cluster slot as the entity key."""
    return b"{" + slot_tags()[slot_of(entity_key)] + STATE_MARK + entity_key


def entity_key_of(key: bytes) -> bytes:
    """Return the entity that a key is of, whether it is the entity's own or that of its state."""
    opening = len(b"{") + TAG_BYTES
    is_state = key.startswith(b"{") and key.startswith(STATE_MARK, opening)
    return key[opening + len(STATE_MARK) :] if is_state else key


def key_pattern(project: str, names: Sequence[str], value: bytes = b"") -> bytes:
    """Return a glob that finds the keys, and state keys, of a project's entities with these join keys, and others.

    What it finds is to be checked by `parse_key`.

    Args:
        project: Feast project.
        names: All join keys, sorted; with a value, the one whose value it is.
        value: An encoded value (`encode_value`), for entities of whatever join keys that hold it.
    """
    columns = [JoinKey(name=name, value_type=ValueType.STRING) for name in names]
    head = _prefix(columns)[4:] if value else _prefix(columns)
    inside = b"*" + escaped(value) if value else b""
    return b"*" + escaped(head) + inside + b"*" + escaped(project.encode())


def encode_value(join_key: JoinKey, value: Value) -> bytes:
    """Return a join key's value as it stands in a key.

    Raises:
        KeyEncodingError: The value does not fit the type.
    """
    return _payload_encoder(join_key)(value)


def escaped(text: bytes) -> bytes:
    """Return a glob that matches the text alone."""
    return _GLOB.sub(rb"\\\g<0>", text)


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


# Columns of plain values, packed in one go; None where a value is of another kind, and is left to the encoders above.

_Packer = Callable[[Sequence[Value]], "list[bytes] | None"]


def _packer(key: JoinKey) -> _Packer:
    match key.value_type:
        case ValueType.INT32:
            return _integer_packer(key, "<i", 4)
        case ValueType.INT64:
            return _integer_packer(key, "<q", 8)
        case ValueType.STRING:
            return _pack_texts
        case _:
            return lambda _: None


def _integer_packer(key: JoinKey, layout: str, width: int) -> _Packer:
    head = _HEADER.pack(key.value_type, width)
    pack = struct.Struct(layout).pack

    def pack_all(values: Sequence[Value]) -> list[bytes] | None:
        if set(map(type, values)) != {int}:
            return None
        try:
            return [head + pack(value) for value in values]
        except struct.error:
            return None

    return pack_all


def _pack_texts(values: Sequence[Value]) -> list[bytes] | None:
    if set(map(type, values)) != {str}:
        return None
    try:
        texts = [value.encode() for value in values]  # type: ignore[union-attr]
    except UnicodeEncodeError:
        return None
    if max(map(len, texts)) > MAX_KEY_VALUE_BYTES:
        return None
    pack, kind = _HEADER.pack, int(ValueType.STRING)
    return [pack(kind, len(text)) + text for text in texts]


_ENCODERS: dict[ValueType, Callable[[JoinKey], _PayloadEncoder]] = {
    ValueType.INT32: lambda key: _integer_encoder(key, "<IIi", 4),
    ValueType.INT64: lambda key: _integer_encoder(key, "<IIq", 8),
    ValueType.UNIX_TIMESTAMP: _timestamp_encoder,
    ValueType.STRING: _text_encoder,
    ValueType.BYTES: _bytes_encoder,
}
