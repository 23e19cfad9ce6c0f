"""The answer to one read: a column per feature, as 64-bit words with statuses, beside the bytes as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.frame import Block, Layout, Object, float_of
from decision.schema import FeatureRef, Status, Value, ValueType
from online.column_kernels import (
    MAX_STAMP_BYTES,
    PLACE,
    TTL_US,
    UNANSWERED,
    VIEW,
    VIEW_PLACE,
    decode,
    splice,
    splice_replies,
)
from online.errors import ReadTooLargeError, ValueDecodeError
from online.kernels import END, START
from online.plan import ReadGroup, ReadPlan
from online.replies import Replies, put_together
from online.values import decode_timestamp, decoder

MOST_ROW_BYTES: Final = 64 << 20
"""Most bytes of replies that the rows of one answer are made of, those of an entity counted for each of its rows."""
_PRESENT: Final = int(Status.PRESENT)
_STALE: Final = int(Status.STALE)
_CARRYING: Final = (_PRESENT, _STALE)
_MAX_TEXTS: Final = 4_096
_MAX_TEXT_BYTES: Final = 64
_INTEGERS: Final = frozenset({ValueType.INT32, ValueType.INT64, ValueType.UNIX_TIMESTAMP})
_FLOATS: Final = frozenset({ValueType.DOUBLE, ValueType.FLOAT})

_texts: dict[bytes, str] = {}
"""Short texts that were met, since most come again."""


class GroupReplies(NamedTuple):
    """What came for one group of a plan.

    Attributes:
        rows: int64: the reply of each row, or `online.column_kernels.NO_KEY`, `UNREADABLE` or `UNANSWERED`.
    """

    group: ReadGroup
    replies: Replies
    rows: NDArray[np.int64]


@dataclass(kw_only=True, eq=False)
class Columns:
    """The answer to one request: cell [i, j] is feature i of row j.

    Attributes:
        plan: What was read.
        words: int64[features, rows], as in `decision.frame.Block`: a number by its bits, anything else an index into
            `objects`; 0 unless the status is PRESENT or STALE.
        statuses: uint8[features, rows], the numbers of `Status`. NOT_FOUND where nothing readable is stored (or the
            row lacks a join key), NULL where a null is, STALE where the value is older than its view's TTL or of
            unknown age, TIMEOUT where the store gave no answer in time.
        event_us: int64[views, rows]: event time of the view's last write, microseconds; 0 where unknown.
        objects: Texts, bytes and lists.
        lengths: int32[features, rows]: bytes of the stored value; 0 for NULL, -1 where nothing readable is stored.
        doubtful: (feature, row) of the cells, read as stored, whose bytes may be no `feast.types.Value`; those of all
            others are one that holds a scalar.
        error: Why cells are TIMEOUT, or None.
        malformed: How many cells and timestamps held bytes that are not what the schema says.
    """

    plan: ReadPlan
    words: NDArray[np.int64]
    statuses: NDArray[np.uint8]
    event_us: NDArray[np.int64]
    lengths: NDArray[np.int32]
    objects: list[Object] = field(default_factory=list)
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    error: str | None = None
    malformed: int = 0
    _starts: NDArray[np.int32]
    _parts: list[GroupReplies] = field(default_factory=list)

    @property
    def refs(self) -> tuple[FeatureRef, ...]:
        return self.plan.refs

    @property
    def row_count(self) -> int:
        return int(self.statuses.shape[1])

    @cached_property
    def stored(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Bytes, and where in them each cell's serialized `feast.types.Value` starts: int32[features, rows].

        Raises:
            ReadTooLargeError: There are more bytes than `online.replies.MOST_BYTES`.
        """
        distinct = {id(part.replies.data): part.replies.data for part in self._parts}
        if len(distinct) < 2:
            return next(iter(distinct.values()), np.empty(0, np.uint8)), self._starts
        data, starts = put_together([*distinct.values()]), self._starts.copy()
        before = dict(zip(distinct, accumulate(map(len, distinct.values()), initial=0), strict=False))
        for group, replies, _ in self._parts:
            starts[group.places] += before[id(replies.data)]
        return data, starts

    def values(self, column: int) -> list[Value]:
        """The values of one feature; None unless the status is PRESENT or STALE."""
        read = _reader(self.plan.types[column], self.objects)
        words, statuses = self.words[column].tolist(), self.statuses[column].tolist()
        return [
            read(word) if status in _CARRYING else None for word, status in zip(words, statuses, strict=True)
        ]

    def drop(self, column: int, row: int) -> None:
        """Take a cell for NOT_FOUND, since its bytes are no value."""
        self.malformed += 1
        self.statuses[column, row] = Status.NOT_FOUND
        self.lengths[column, row] = -1
        self.words[column, row] = 0

    def leave_null(self, column: int, row: int) -> None:
        """Take a cell for NULL, whatever its bytes."""
        self.statuses[column, row] = Status.NULL
        self.lengths[column, row] = 0
        self.words[column, row] = 0

    def block(self, layout: Layout, rows: Sequence[str]) -> Block:
        """The answer as the engine takes it; `layout` is that of the plan's features."""
        return Block(layout, tuple(rows), self.words, self.statuses, self.event_us, tuple(self.objects))

    def feature_vectors(self, codes: NDArray[np.uint8], carries: NDArray[np.uint8]) -> memoryview:
        """Serialize all columns as `repeated FeatureVector results = 2` of Feast's `GetOnlineFeaturesResponse`.

        Args:
            codes: uint8 by `Status`: Feast's status.
            carries: uint8 by `Status`: 1 where the stored value is sent, else an unset one.
        """
        data, starts = self.stored
        view_of = self.plan.view_of
        spare = np.empty(self.event_us.size * MAX_STAMP_BYTES, np.uint8)
        out: NDArray[np.uint8] = splice(
            data, self.statuses, self.event_us, starts, self.lengths, view_of, codes, carries, spare
        )
        return out.data


@dataclass(slots=True, eq=False)
class PlanReplies:
    """What came for one request, not read yet.

    Attributes:
        row_count: Rows of the request.
        parts: The replies for each group of the plan.
        now_us: What ages are measured against.
        error: Why cells are TIMEOUT, or None.
    """

    plan: ReadPlan
    row_count: int
    parts: Sequence[GroupReplies]
    now_us: int
    error: str | None

    @property
    def unanswered(self) -> bool:
        """Whether all cells are TIMEOUT."""
        return self.error is not None and all((part.rows == UNANSWERED).all() for part in self.parts)

    def check_size(self) -> None:
        """Refuse an answer that would repeat what came until it is huge: one entity's long values in many rows, say.

        Raises:
            ReadTooLargeError: What was stored, row by row, has more than `MOST_ROW_BYTES`.
        """
        most = MOST_ROW_BYTES // self.plan.most_copies
        if self.row_count * sum(len(replies.data) for _, replies, _ in self.parts) <= most:
            return
        size = 0
        for _, replies, rows in self.parts:
            found = replies.table[rows[rows >= 0]]
            size += int((found[:, END] - found[:, START]).sum())
        if size > most:
            raise ReadTooLargeError(
                f"the values of all rows have more than {MOST_ROW_BYTES >> 20} MiB; ask for fewer rows"
            )

    def columns(self) -> Columns:
        """Read all cells."""
        return read_columns(self.plan, self.row_count, self.parts, self.now_us, self.error)

    def feature_vectors(self, codes: NDArray[np.uint8], carries: NDArray[np.uint8]) -> memoryview | None:
        """As those of `columns`, in one go; None where some cells would be doubtful or the plan has several groups."""
        if len(self.parts) != 1 or not self.parts[0].group.as_stored:
            return None
        group, replies, rows = self.parts[0]
        lookup = group.lookup
        out: NDArray[np.uint8] = splice_replies(
            replies.data, replies.leaves, replies.table, rows, group.whole,
            lookup.fields, lookup.bounds, lookup.table, group.columns, group.views, self.now_us,
            self.plan.view_of, codes, carries,
        )  # fmt: skip
        return out.data if len(out) else None


def read_columns(
    plan: ReadPlan, row_count: int, found: Sequence[GroupReplies], now_us: int, error: str | None
) -> Columns:
    """Read all cells of a request."""
    shape = (len(plan.refs), row_count)
    columns = Columns(
        plan=plan,
        words=np.zeros(shape, np.int64),
        statuses=np.empty(shape, np.uint8),
        event_us=np.empty((len(plan.views), row_count), np.int64),
        lengths=np.empty(shape, np.int32),
        _starts=np.empty(shape, np.int32),
        error=error,
    )
    for item in found:
        _read_group(columns, item, now_us)
    return columns


def _read_group(columns: Columns, found: GroupReplies, now_us: int) -> None:
    group, replies, rows = found
    lookup, row_count = group.lookup, len(rows)
    slow = np.empty((group.slow_per_row * row_count, 4), np.int64)
    texts = np.empty((group.texts_per_row * row_count, 2), np.int64)
    first_text = len(columns.objects)
    slow_count, text_count, malformed = decode(
        replies.data, replies.leaves, replies.table, rows, group.whole,
        lookup.fields, lookup.bounds, lookup.table, group.columns, group.views, now_us,
        columns.words, columns.statuses, columns.event_us, columns._starts, columns.lengths,  # noqa: SLF001
        slow, texts, first_text,
    )  # fmt: skip
    columns.malformed += malformed
    columns._parts.append(found)  # noqa: SLF001
    if not text_count and not slow_count:
        return
    view, objects = replies.data.data, columns.objects
    for start, length in texts[:text_count].tolist():
        data = bytes(view[start : start + length])
        text = _texts.get(data)
        objects.append(_text(columns, group, data) if text is None else text)
    for column, row, start, length in slow[:slow_count].tolist():
        data = bytes(view[start : start + length])
        if column < 0:
            _read_stamp(columns, group, -1 - column, row, data, now_us)
        elif group.as_stored:
            columns.doubtful.append((int(group.places[column]), row))
        else:
            _read_cell(columns, group, column, row, data)


def _text(columns: Columns, group: ReadGroup, data: bytes) -> str:
    """The text that the next object is to be; "" where the bytes are none, and then no cell stands for it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        for place in group.text_places:
            stands = (columns.words[place] == len(columns.objects)) & np.isin(
                columns.statuses[place], _CARRYING
            )
            for row in np.flatnonzero(stands).tolist():
                columns.drop(place, row)
        return ""
    if len(data) <= _MAX_TEXT_BYTES:
        if len(_texts) >= _MAX_TEXTS:
            _texts.clear()
        _texts[data] = text
    return text


def _read_stamp(columns: Columns, group: ReadGroup, view: int, row: int, data: bytes, now_us: int) -> None:
    """Read a timestamp that the kernel left, and judge again the ages that hang on it."""
    try:
        event_us = decode_timestamp(data)
    except ValueDecodeError:
        columns.malformed += 1
        return
    columns.event_us[group.views[view, VIEW_PLACE], row] = event_us
    ttl_us = int(group.views[view, TTL_US])
    fresh = _STALE if ttl_us and event_us < now_us - ttl_us else _PRESENT
    for place in group.columns[group.columns[:, VIEW] == view, PLACE].tolist():
        if columns.statuses[place, row] in _CARRYING:
            columns.statuses[place, row] = fresh


def _read_cell(columns: Columns, group: ReadGroup, column: int, row: int, data: bytes) -> None:
    """Read a value that the kernel left."""
    place = int(group.columns[column, PLACE])
    try:
        value = decoder(group.types[column])(data)
    except ValueDecodeError:
        columns.drop(place, row)
        return
    if value is None:
        columns.leave_null(place, row)
    elif isinstance(value, float):
        columns.words[place, row] = np.float64(value).view(np.int64)
    elif isinstance(value, int):
        columns.words[place, row] = value
    else:
        columns.words[place, row] = len(columns.objects)
        columns.objects.append(value)


def _reader(value_type: ValueType, objects: Sequence[Object]):  # type: ignore[no-untyped-def]
    if value_type in _INTEGERS:
        return int
    if value_type in _FLOATS:
        return float_of
    return bool if value_type is ValueType.BOOL else objects.__getitem__
