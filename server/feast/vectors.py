"""`FeatureVector` messages as bytes: columns that are not stored, and the taking apart of those that are."""

from __future__ import annotations

from collections.abc import Sequence

from online.wire import encode_varint, read_varint

PRESENT, NULL_VALUE = b"\x01", b"\x02"
RESULT_TAG = b"\x12"


def vector(values: Sequence[bytes], statuses: bytes) -> bytes:
    """One result of serialized values, with a status byte each and no event times.

    Args:
        values: Serialized `feast.types.Value`; no bytes is an unset one.
        statuses: One `FieldStatus` per value.
    """
    return vector_of(values_field(values), statuses)


def values_field(values: Sequence[bytes]) -> bytes:
    """Serialized values as `repeated feast.types.Value values = 1`."""
    return b"".join([b"\x0a" + encode_varint(len(value)) + value for value in values])


def vector_of(values: bytes, statuses: bytes) -> bytes:
    """One result of a serialized `values` field, with a status byte each and no event times."""
    count = len(statuses)
    body = values + (b"\x12" + encode_varint(count) + statuses if count else b"") + b"\x1a\x00" * count
    return RESULT_TAG + encode_varint(len(body)) + body


def split(results: memoryview) -> list[memoryview]:
    """The single results of a serialized `repeated FeatureVector results`, each with its tag and length."""
    found = []
    offset = 0
    while offset < len(results):
        length, body = read_varint(results, offset + 1)
        found.append(results[offset : body + length])
        offset = body + length
    return found
