"""Event columns as the kernels take them: validity bytes, int64 lanes, and typed values that first and last carry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from online.shown import shown
from streaming.windows.batch import Batch, RawColumn, naive_times
from streaming.windows.distinct import hashes
from streaming.windows.errors import ValueRefused
from streaming.windows.kernels import fixed_from_floats
from streaming.windows.order import EventIds
from streaming.windows.plan import Carrier, Encoding, WindowPlan

AnyArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]

_FIXED_UNIT = 1_000_000
_WHOLE_LIMIT = np.iinfo(np.int64).max // _FIXED_UNIT
_SIGN_FREE = np.int64(np.iinfo(np.int64).max)
_FLOAT_WHOLE_LIMIT = 2.0**63
_FLOAT_EXACT = 2**53
"""A whole number up to here is itself as a float."""
_NOT_WHOLE = "is not a whole number of 64 bits, as the feature's type says"
_NUMBER_KINDS = "fiub"
_FLOATS = (float, np.floating)
_NUMBERS = (int, np.integer, np.bool_, *_FLOATS)


class Inputs(NamedTuple):
    """A batch, prepared for a plan.

    Attributes:
        valid: Shape (rows, columns): 1 where the column is not NULL.
        lanes: Shape (rows, lanes): the numbers that are added and compared; 0 where NULL.
        carried: By (column number, carrier): the values, typed; filler where NULL.
        hashes: By column number: what tells the values apart; filler where NULL.
    """

    valid: ByteArray
    lanes: IntArray
    carried: dict[tuple[int, Carrier], AnyArray]
    hashes: dict[int, IntArray]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of a view for a group of entities, in any order, prepared for its plan.

    Attributes:
        entity: Group index of each row's entity, from 0.
        event_us: Event time in microseconds.
        event_ids: As in `Batch`.
        inputs: The values.
    """

    entity: IntArray
    event_us: IntArray
    event_ids: EventIds
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.event_us)

    def take(self, rows: IntArray, first_entity: int = 0) -> Prepared:
        """Some of the rows, with entities counted from another."""
        ids, inputs = self.event_ids, self.inputs
        return Prepared(
            entity=self.entity[rows] - first_entity,
            event_us=self.event_us[rows],
            event_ids=[ids[row] for row in rows.tolist()] if len(ids) else (),
            inputs=Inputs(
                valid=inputs.valid[rows],
                lanes=inputs.lanes[rows],
                carried={key: values[rows] for key, values in inputs.carried.items()},
                hashes={column: values[rows] for column, values in inputs.hashes.items()},
            ),
        )


def prepared(plan: WindowPlan, batch: Batch) -> Prepared:
    """Rows with their columns converted.

    Raises:
        ValueRefused: Where a value does not fit the aggregation that reads it.
    """
    return Prepared(batch.entity, batch.event_us, batch.event_ids, prepare(plan, batch))


def prepare(plan: WindowPlan, batch: Batch) -> Inputs:
    """Convert the columns of a batch.

    Raises:
        ValueRefused: Where a value does not fit the aggregation that reads it.
    """
    rows = len(batch)
    valid = np.empty((rows, len(plan.columns)), dtype=np.uint8)
    lanes = np.zeros((rows, len(plan.lanes)), dtype=np.int64)
    data: list[AnyArray] = []
    for number, name in enumerate(plan.columns):
        try:
            column, present = split_nulls(batch.columns[name])
        except Exception as error:
            # Whatever cells do when they are looked at; who looks for the one asks for fewer rows.
            raise ValueRefused(name, 0, f"cannot be read: {shown(error)}") from error
        data.append(column)
        valid[:, number] = present
    for number, (name, encoding) in enumerate(plan.lanes):
        at = plan.columns.index(name)
        lanes[:, number] = _LANES[encoding](name, data[at], valid[:, at])
    carried: dict[tuple[int, Carrier], AnyArray] = {}
    for key in plan.carried:
        carried[key] = _carry(plan.columns[key[0]], data[key[0]], valid[:, key[0]], key[1])
    told = {
        each.column: hashes(plan.columns[each.column], data[each.column], valid[:, each.column])
        for each in plan.distincts
    }
    return Inputs(valid, lanes, carried, told)


def split_nulls(raw: RawColumn) -> tuple[AnyArray, AnyArray]:
    """A column as a plain array and which of its rows are not NULL; times become int64 microseconds."""
    if not isinstance(raw, np.ndarray):
        if not isinstance(raw, pd.api.extensions.ExtensionArray):
            raw = _objects(raw)
        elif isinstance(raw.dtype, pd.StringDtype | pd.CategoricalDtype):
            raw = np.asarray(raw, dtype=object)
        else:
            return _split_nullable(raw)
    kind = raw.dtype.kind
    if kind == "f":
        return raw.astype(np.float64, copy=False), ~np.isnan(raw)
    if kind == "O":
        return _split_objects(raw)
    if kind == "M":
        return raw.astype("datetime64[us]").view(np.int64), ~np.isnat(raw)
    if kind in "SUc":
        return raw.astype(object), np.ones(len(raw), dtype=np.bool_)
    return raw, np.ones(len(raw), dtype=np.bool_)


def _split_nullable(raw: pd.api.extensions.ExtensionArray) -> tuple[AnyArray, AnyArray]:
    missing = np.asarray(raw.isna(), dtype=np.bool_)
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        return naive_times(raw).astype("datetime64[us]").view(np.int64), ~missing
    numpy_dtype = getattr(raw.dtype, "numpy_dtype", np.dtype(object))
    if numpy_dtype.kind not in _NUMBER_KINDS:
        return split_nulls(np.asarray(raw, dtype=object))
    data = raw.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0))
    return (
        (data, ~missing) if numpy_dtype.kind != "f" else (data.astype(np.float64), ~missing & ~np.isnan(data))
    )


def _objects(values: Any) -> AnyArray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _split_objects(raw: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Objects: None, NaN, NaT and NA are NULL; all numbers become a number array, anything else stays objects.

    Numbers stay objects too where no array has all of them as they are: what becomes of one must not hang on others.
    """
    values = raw.tolist()
    present = np.array([not _is_null(value) for value in values], dtype=np.bool_)
    kinds = {type(value) for value, ok in zip(values, present.tolist(), strict=True) if ok}
    if kinds and all(issubclass(kind, _NUMBERS) for kind in kinds):
        numbers = _number_array(
            [value if ok else 0 for value, ok in zip(values, present.tolist(), strict=True)]
        )
        return (raw, present) if numbers is None else (numbers, present)
    if kinds and all(issubclass(kind, pd.Timestamp) for kind in kinds):
        return np.array(
            [v.value // 1000 if ok else 0 for v, ok in zip(values, present.tolist(), strict=True)]
        ), present
    return raw, present


def _is_null(value: object) -> bool:
    if value is None or value is pd.NA:
        return True
    if isinstance(value, (str, int)):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT
    except Exception:  # noqa: BLE001 - whatever a value does when it is compared: it is there
        return False


def _number_array(numbers: list[Any]) -> AnyArray | None:
    """Numbers as an array that has each as it is; None where there is none."""
    with suppress(OverflowError):
        if any(isinstance(number, _FLOATS) for number in numbers):
            are_exact = all(
                isinstance(number, _FLOATS) or -_FLOAT_EXACT <= number <= _FLOAT_EXACT for number in numbers
            )
            return np.array(numbers, dtype=np.float64) if are_exact else None
        return np.array(numbers, dtype=np.int64)
    return None


def _refuse(name: str, bad: AnyArray, data: AnyArray, what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueRefused(name, row, f"{shown(data[row])} {what}")


def _numbers(name: str, data: AnyArray, valid: AnyArray) -> AnyArray:
    if data.dtype.kind == "O":
        return np.array(_each(name, data, valid, _float, "is too large for a double"), dtype=np.float64)
    if data.dtype == np.uint64:
        _refuse(name, (valid != 0) & (data > _SIGN_FREE), data, "does not fit int64")
    return data if data.dtype.kind == "f" else data.astype(np.int64, copy=False)


def _each(name: str, data: AnyArray, valid: AnyArray, convert: Callable[[Any], Any], what: str) -> list[Any]:
    """Numbers converted one by one, 0 for NULL; `convert` gives None for what is refused."""
    others = [not isinstance(value, _NUMBERS) for value in data]
    _refuse(name, (valid != 0) & np.array(others, dtype=np.bool_), data, "is not a number")
    made = [convert(value) if ok else 0 for value, ok in zip(data, valid.tolist(), strict=True)]
    _refuse(name, np.array([value is None for value in made], dtype=np.bool_), data, what)
    return made


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _int64(value: Any) -> int | None:
    if isinstance(value, _FLOATS) and not float(value).is_integer():
        return None
    number = int(value)
    return number if -_FLOAT_WHOLE_LIMIT <= number < _FLOAT_WHOLE_LIMIT else None


def _fixed(name: str, data: AnyArray, valid: AnyArray) -> IntArray:
    numbers = _numbers(name, data, valid)
    if numbers.dtype.kind == "f":
        out = np.empty(len(numbers), dtype=np.int64)
        row = fixed_from_floats(np.array(numbers, dtype=np.float64), np.array(valid, dtype=np.uint8), out)
        if row >= 0:
            raise ValueRefused(name, int(row), f"{numbers[row]!r} is past ±9.2e12, the range of a sum")
        return out
    wide = (valid != 0) & ((numbers > _WHOLE_LIMIT) | (numbers < -_WHOLE_LIMIT))
    _refuse(name, wide, numbers, "is past ±9.2e12, the range of a sum")
    return np.where(valid != 0, numbers, 0) * _FIXED_UNIT


def _whole(name: str, data: AnyArray, valid: AnyArray) -> IntArray:
    if data.dtype.kind == "O":
        return np.array(_each(name, data, valid, _int64, _NOT_WHOLE), dtype=np.int64)
    numbers = _numbers(name, data, valid)
    if numbers.dtype.kind != "f":
        return numbers
    filled = np.where(valid != 0, numbers, 0.0)
    fits = (filled >= -_FLOAT_WHOLE_LIMIT) & (filled < _FLOAT_WHOLE_LIMIT) & (filled == np.rint(filled))
    _refuse(name, ~fits, filled, _NOT_WHOLE)
    return filled.astype(np.int64)


def _ordered(name: str, data: AnyArray, valid: AnyArray) -> IntArray:
    return ordered_from_floats(_numbers(name, data, valid).astype(np.float64))


def ordered_from_floats(x: npt.NDArray[np.float64]) -> IntArray:
    """float64 as int64 of the same order (−0.0 before 0.0)."""
    bits = x.view(np.int64)
    return bits ^ ((bits >> 63) & _SIGN_FREE)


def floats_from_ordered(x: IntArray) -> npt.NDArray[np.float64]:
    """The inverse of `ordered_from_floats`."""
    return (x ^ ((x >> 63) & _SIGN_FREE)).view(np.float64)


_LANES: dict[Encoding, Callable[[str, AnyArray, AnyArray], IntArray]] = {
    Encoding.FIXED: _fixed,
    Encoding.WHOLE: _whole,
    Encoding.ORDERED: _ordered,
}


def _carry(name: str, data: AnyArray, valid: AnyArray, carrier: Carrier) -> AnyArray:
    match carrier:
        case Carrier.FLOAT:
            return _numbers(name, data, valid).astype(np.float64)
        case Carrier.INT | Carrier.TIME:
            return _whole(name, data, valid)
        case Carrier.BOOL:
            numbers = _whole(name, data, valid)
            _refuse(name, (valid != 0) & (numbers != 0) & (numbers != 1), numbers, "is not a bool")
            return numbers.astype(np.bool_)
        case Carrier.STRING | Carrier.BYTES:
            wanted = str if carrier == Carrier.STRING else bytes
            objects = data if data.dtype.kind == "O" else data.astype(object)
            fits = np.fromiter((isinstance(value, wanted) for value in objects), np.bool_, len(objects))
            _refuse(name, (valid != 0) & ~fits, objects, f"is not a {wanted.__name__}")
            if carrier == Carrier.STRING:
                _check_texts(name, objects, valid)
            return objects


def _check_texts(name: str, texts: AnyArray, valid: AnyArray) -> None:
    """See that they can be written as UTF-8, which has no bytes for half a character."""
    try:
        "".join(texts[valid != 0].tolist()).encode()
    except UnicodeEncodeError:
        halves = np.fromiter(
            (ok and _has_halves(text) for text, ok in zip(texts, valid, strict=True)), np.bool_
        )
        _refuse(name, halves, texts, "has half a character, which UTF-8 cannot hold")


def _has_halves(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
