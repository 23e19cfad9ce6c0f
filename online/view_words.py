"""Many entities' values of one view at once, as the words that write them into Feast's hash.

The bytes are those of `online.values`, one value after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from decision.schema import Value, ValueType, View
from online.errors import ValueEncodeError
from online.keys import US_PER_SECOND, feature_field, timestamp_field
from online.values import encoder
from online.word_kernels import DOUBLE, FLOAT, MAX_NUMBER_BYTES, NUMBER, SHORT, TEXT, digest_rows, put_rows
from online.words import Runs

AnyArray = npt.NDArray[Any]

_FORMS = {
    ValueType.INT64: NUMBER,
    ValueType.UNIX_TIMESTAMP: NUMBER,
    ValueType.BOOL: NUMBER,
    ValueType.INT32: SHORT,
    ValueType.DOUBLE: DOUBLE,
    ValueType.FLOAT: FLOAT,
}
_WIRES = {NUMBER: 0, SHORT: 0, DOUBLE: 1, FLOAT: 5}
_INT32 = np.iinfo(np.int32)
_WORD_BYTES = 16


NumberColumn = tuple[AnyArray, npt.NDArray[np.bool_]]
"""Values as float64, int64 or bool (timestamps in microseconds), and where they are NULL."""
ValueColumns = Mapping[str, "NumberColumn | list[Value]"]
"""By feature: the values themselves, None for NULL, or, of numbers, a `NumberColumn`, which is faster."""


def is_number(value_type: ValueType) -> bool:
    """Whether a column of this type may be a `NumberColumn`."""
    return value_type in _FORMS


class ViewWords:
    """Writes rows of one view as the words that `online.write` takes: the timestamp's, then the features'."""

    def __init__(self, view: View) -> None:
        self._view = view
        stored = view.stored_name
        fields = [feature_field(stored, feature.name) for feature in view.features]
        words = [b"$%d\r\n%b\r\n" % (len(field), field) for field in (timestamp_field(stored), *fields)]
        self._names = np.frombuffer(b"".join(words), dtype=np.uint8)
        self._name_at = np.cumsum([0, *map(len, words)])
        self._forms = np.array(
            [_FORMS.get(feature.value_type, TEXT) for feature in view.features], dtype=np.int64
        )
        self._tags = np.array(
            [
                feature.value_type << 3 | _WIRES.get(int(form), 2)
                for feature, form in zip(view.features, self._forms, strict=True)
            ],
            dtype=np.int64,
        )
        self.count = 2 + 2 * len(view.features)

    def rows(self, columns: ValueColumns, time_us: npt.NDArray[np.int64]) -> Runs:
        """The words of each row; `count` of them.

        Args:
            columns: By feature.
            time_us: Timestamp of each row in microseconds.

        Raises:
            ValueEncodeError: A value does not fit its feature's type.
        """
        count, features = len(time_us), self._view.features
        payload = np.empty((len(features), count), dtype=np.int64)
        null = np.empty((len(features), count), dtype=np.uint8)
        forms = self._forms
        texts: list[bytes] = []
        text_at = [np.zeros(count + 1, dtype=np.int64)]
        for number, feature in enumerate(features):
            column = columns[feature.name]
            try:
                if isinstance(column, tuple):
                    payload[number] = _payload(feature.value_type, *column)
                    null[number] = column[1]
                    continue
                encode = encoder(feature.value_type)
                encoded = [encode(value) for value in column]
            except (ValueEncodeError, OverflowError, UnicodeEncodeError) as error:
                raise ValueEncodeError(f"feature {self._view.name}.{feature.name}: {error}") from error
            if forms[number] != TEXT:
                forms = forms.copy()
                forms[number] = TEXT
            null[number] = 0
            starts = np.full(count + 1, text_at[-1][-1])
            starts[1:] += np.cumsum([len(data) for data in encoded], dtype=np.int64)
            payload[number] = len(text_at)
            text_at.append(starts)
            texts += encoded
        blob = np.frombuffer(b"".join(texts) or b"-", dtype=np.uint8)
        room = len(self._names) + self.count * (MAX_NUMBER_BYTES + _WORD_BYTES)
        out = np.empty(count * room + len(blob), dtype=np.uint8)
        row_at = np.empty(count + 1, dtype=np.int64)
        length = put_rows(
            self._names, self._name_at, self._tags, forms, payload, null, blob, np.array(text_at), time_us, out,
            row_at,
        )  # fmt: skip
        return Runs(out[:length].copy(), row_at[:-1], row_at[1:], np.full(count, self.count, dtype=np.int64))


def _payload(value_type: ValueType, values: AnyArray, null: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    if value_type is ValueType.DOUBLE:
        return np.ascontiguousarray(values, dtype=np.float64).view(np.int64)
    if value_type is ValueType.FLOAT:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).astype(np.int64)
    numbers = values.astype(np.int64, copy=False)
    if value_type is ValueType.UNIX_TIMESTAMP:
        return numbers // US_PER_SECOND
    if value_type is ValueType.INT32:
        wide = ~null & ((numbers < _INT32.min) | (numbers > _INT32.max))
        if wide.any():
            raise ValueEncodeError(f"{int(numbers[wide.argmax()])} does not fit int32")
    return numbers


def digests(words: Runs) -> npt.NDArray[np.int64]:
    """A positive number that stands for each row's words; rows that differ have different ones, but for 2⁻⁶³."""
    out = np.empty(len(words.first), dtype=np.int64)
    digest_rows(words.data, words.first, words.stop, out)
    return out
