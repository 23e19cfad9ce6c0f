"""A view's aggregations, compiled to the small integer tables that the kernels run on.

Windows of one view share their partial results: a mean is a sum and a count, and any number of windows over the same
(column, function) read the same slot of the same tiles. `last` and `last_k` need no tiles at all: as every window
ends at the present, the newest k rows of all are enough, and a window shows those of them that it still covers. So it
is with distinct values, of which the latest tile is enough.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from decision.schema import Aggregation, DType, ValueType, View
from streaming.windows.errors import PlanError

IntArray = npt.NDArray[np.int64]

NEVER_US = int(np.iinfo(np.int64).min)
"""The time of what has not happened yet."""
VERSION = 1
"""Of the form in which chunks of a state are stored."""
HEAD_WORDS = 3
"""Numbers of a state before its tile numbers: last event time, last expiry, number of tiles."""
MAX_TILES = 16_384
"""Most tiles in a window."""
MAX_LAST = 100
"""Largest k of `last_k(k)`."""
ROWS = frozenset({"", "*"})
"""Column names that mean the row itself."""
FUNCTIONS = ("sum", "count", "count_distinct", "mean", "min", "max", "first", "last", "last_k(k)")
DISTINCT_EXACT_BELOW = 256
"""Distinct counts are exact below this number; see `distinct`."""


class Encoding(enum.IntEnum):
    """How a column becomes the int64 lane that kernels add and compare."""

    FIXED = 0  # a number in units of 10⁻⁶
    WHOLE = 1  # a whole number, or microseconds
    ORDERED = 2  # a float64 as an integer of the same order


class Carrier(enum.IntEnum):
    """What first and last carry."""

    FLOAT = 0
    INT = 1
    BOOL = 2
    STRING = 3
    BYTES = 4
    TIME = 5


class SlotKind(enum.IntEnum):
    """What a slot of a tile accumulates."""

    COUNT = 0
    SUM = 1
    MIN = 2
    MAX = 3


_EMPTY: dict[int, int] = {
    SlotKind.MIN: int(np.iinfo(np.int64).max),
    SlotKind.MAX: int(np.iinfo(np.int64).min),
}


class Read(enum.IntEnum):
    """How a feature is read off its window."""

    NUMBER = 0  # payload: a count or a sum
    MEAN = 1  # payload: sum, count
    EXTREME = 2  # payload: min or max, NULL where the count is 0
    FIRST = 3  # payload: rank, from the tiles
    REFS = 4  # payload: ranks, from the entity's own references
    DISTINCT = 5  # payload: how many values, from the entity's own sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Rows that an entity remembers by (event time, event id) outside of its tiles.

    Attributes:
        column: Column whose non-NULL rows count.
        carrier: Type of the value carried.
        newest: The newest rows, newest first; else the single oldest.
        offset: First position in the entity's references.
        size: How many rows.
        tiles: Forgotten once this many tiles behind the current one; -1 is never.
    """

    column: str
    carrier: Carrier
    newest: bool
    offset: int
    size: int
    tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct:
    """Values of a column that an entity tells apart, each with the latest tile that has it.

    Attributes:
        column: Number of the column.
        tiles: Of the widest window that reads it; -1 where only one of all time does.
        forever: Whether one of all time does. Otherwise values are forgotten once so many tiles behind the current one.
        reads: int64[features, 2], window (-1: all time) and place in an output row of each feature that reads it.
    """

    column: int
    tiles: int
    forever: bool
    reads: IntArray

    def most_entries(self, exact_below: int) -> int:
        """How many hashes an entity keeps at most, whatever the values are."""
        return exact_below * (max(self.tiles + 1, 0) + self.forever)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One feature: how it is read and where its payload lies in an output row."""

    feature: str
    read: Read
    offset: int
    width: int
    fixed: bool
    encoding: Encoding
    carrier: Carrier | None
    time: bool
    listed: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowPlan:
    """What the kernels need to know about a view.

    Attributes:
        view: Name of the view.
        hop_us: Width of a tile.
        columns: Event columns needed, without the row itself.
        lanes: (column, encoding) of each int64 lane of a row.
        windows: Widths in tiles, ascending, distinct; all-time windows are not among them.
        slots: Per slot of a tile: kind, lane, column (-1: the row itself), slot that counts the same column.
        totals: The same for the entity's all-time accumulators.
        firsts: Column number and carrier of each first-of-a-tile.
        first_tiles: For each of those, the tiles after which no window needs it.
        references: What the entity remembers outside of its tiles.
        distincts: Sets of values that it remembers outside of its tiles.
        outputs: The features.
        reads: Per feature, for the kernels: read, slot, count slot, window (-1: all time), offset, width.
        slot_features, total_features: Feature to blame for a slot's overflow.
        fingerprint: Four bytes that change with the layout of the state.
        distinct_exact_below: See `DISTINCT_EXACT_BELOW`.
    """

    view: str
    hop_us: int
    columns: tuple[str, ...]
    lanes: tuple[tuple[str, Encoding], ...]
    windows: IntArray
    slots: IntArray
    totals: IntArray
    firsts: tuple[tuple[int, Carrier], ...]
    first_tiles: IntArray
    references: tuple[Reference, ...]
    distincts: tuple[Distinct, ...]
    outputs: tuple[Output, ...]
    reads: IntArray
    slot_features: tuple[str, ...]
    total_features: tuple[str, ...]
    fingerprint: bytes
    distinct_exact_below: int = DISTINCT_EXACT_BELOW
    first_columns: IntArray = field(init=False)
    reference_table: IntArray = field(init=False)
    carried: tuple[tuple[int, Carrier], ...] = field(init=False)
    reference_keys: tuple[tuple[int, Carrier], ...] = field(init=False)
    slot_floats: IntArray = field(init=False)
    total_floats: IntArray = field(init=False)

    def __post_init__(self) -> None:
        number = {column: index for index, column in enumerate(self.columns)}
        rows = [(number[r.column], r.offset, r.size, int(r.newest), r.tiles) for r in self.references]
        object.__setattr__(self, "first_columns", _table([column for column, _ in self.firsts], 1))
        object.__setattr__(self, "reference_table", _table(rows, 5))
        object.__setattr__(self, "slot_floats", self._floats(self.slots))
        object.__setattr__(self, "total_floats", self._floats(self.totals))
        keys = tuple((number[r.column], r.carrier) for r in self.references for _ in range(r.size))
        object.__setattr__(self, "reference_keys", keys)
        object.__setattr__(self, "carried", tuple(dict.fromkeys((*self.firsts, *keys))))

    def _floats(self, slots: IntArray) -> IntArray:
        return _table(
            (lane >= 0 and self.lanes[lane][1] == Encoding.ORDERED for lane in slots[:, 1].tolist()), 1
        )

    @property
    def reference_count(self) -> int:
        """References per entity."""
        return len(self.reference_keys)

    @cached_property
    def chunk_prefix(self) -> npt.NDArray[np.uint8]:
        """Bytes that the ids of all chunks of the view's states begin with."""
        return np.frombuffer(b"w:%b:" % self.view.encode(), dtype=np.uint8).copy()

    @cached_property
    def head_mark(self) -> npt.NDArray[np.uint8]:
        """Bytes that the head of a stored state begins with; the first is that of every chunk."""
        return np.frombuffer(bytes((VERSION,)) + self.fingerprint, dtype=np.uint8).copy()

    @cached_property
    def empty_data(self) -> bytes:
        """The numbers of a state before any event; see `state.TileState`."""
        words = [NEVER_US, NEVER_US, 0] + [_EMPTY.get(kind, 0) for kind in self.totals[:, 0].tolist()]
        return np.array(words, dtype=np.int64).tobytes()

    def carried_key(self, number: int) -> tuple[int, Carrier]:
        """Column number and carrier of a feature that carries values, by its number."""
        read, slot = self.reads[number, :2].tolist()
        return self.firsts[slot] if read == Read.FIRST else self.reference_keys[slot]

    @cached_property
    def output_width(self) -> int:
        """int64 payloads per output row."""
        return sum(output.width for output in self.outputs)

    @cached_property
    def ordered(self) -> bool:
        """Whether rows must be ranked by event id too."""
        return bool(self.firsts or self.references)

    @property
    def max_tiles(self) -> int:
        """Width of the largest window in tiles; -1 where all windows cover all time."""
        return int(self.windows[-1]) if len(self.windows) else -1

    @classmethod
    def compile(cls, view: View) -> WindowPlan:
        """Compile the aggregations of a view.

        Raises:
            PlanError: With all problems of the view.
        """
        return _Compiler(view).plan()


def _table(rows: Iterable[object], width: int) -> IntArray:
    table = np.array(list(rows), dtype=np.int64)
    return table if width == 1 else np.ascontiguousarray(table.reshape(-1, width))


_LAST_K = re.compile(r"last_k\((\d+)\)")
_NUMERIC = (DType.INT64, DType.FLOAT64)
_FITS: dict[str, tuple[DType, ...]] = {
    "sum": _NUMERIC,
    "count": (DType.INT64,),
    "count_distinct": (DType.INT64,),
    "mean": (DType.FLOAT64,),
    "min": (*_NUMERIC, DType.TIMESTAMP),
    "max": (*_NUMERIC, DType.TIMESTAMP),
}
_CARRIERS: dict[ValueType, Carrier] = {
    ValueType.BYTES: Carrier.BYTES,
    ValueType.STRING: Carrier.STRING,
    ValueType.INT32: Carrier.INT,
    ValueType.INT64: Carrier.INT,
    ValueType.DOUBLE: Carrier.FLOAT,
    ValueType.FLOAT: Carrier.FLOAT,
    ValueType.BOOL: Carrier.BOOL,
    ValueType.UNIX_TIMESTAMP: Carrier.TIME,
}
_LIST_OFFSET = ValueType.BYTES_LIST - ValueType.BYTES


@dataclass(frozen=True, slots=True)
class _Row:
    """A validated aggregation."""

    feature: str
    column: str
    function: str
    k: int
    tiles: int
    dtype: DType | None
    carrier: Carrier | None


class _Compiler:
    """Builds a plan; problems are gathered and raised together."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.problems: list[str] = []
        self.hop_s = view.hop_s
        self.columns: list[str] = []
        self.lanes: list[tuple[str, Encoding]] = []
        self.slots: dict[bool, list[tuple[int, int, int, int]]] = {False: [], True: []}
        self.blame: dict[bool, list[str]] = {False: [], True: []}
        self.firsts: dict[tuple[int, Carrier], int] = {}

    def plan(self) -> WindowPlan:
        rows = self._rows()
        if self.problems:
            raise PlanError(self.view.name, tuple(self.problems))
        for row in rows:
            self._column(row.column)
        windows = sorted({row.tiles for row in rows if row.tiles >= 0})
        references = self._references(rows)
        outputs: list[Output] = []
        reads: list[tuple[int, ...]] = []
        for row in rows:
            window = windows.index(row.tiles) if row.tiles >= 0 else -1
            offset = outputs[-1].offset + outputs[-1].width if outputs else 0
            output, slot, count = self._output(row, offset, references)
            outputs.append(output)
            reads.append((output.read, slot, count, window, output.offset, output.width))
        layout = [self.hop_s, windows, self.columns, self.lanes, *self.slots.values(), list(self.firsts)]
        layout += [astuple(reference) for reference in references]
        distincts = self._distincts(rows, outputs, reads)
        layout += [
            ("distinct", self.columns[each.column], -1 if each.forever else each.tiles) for each in distincts
        ]
        return WindowPlan(
            view=self.view.name,
            hop_us=(self.hop_s or 3600) * 1_000_000,
            columns=tuple(self.columns),
            lanes=tuple(self.lanes),
            windows=_table(windows, 1),
            slots=_table(self.slots[False], 4),
            totals=_table(self.slots[True], 4),
            firsts=tuple(self.firsts),
            first_tiles=_table(self.firsts.values(), 1),
            references=references,
            distincts=distincts,
            outputs=tuple(outputs),
            reads=_table(reads, 6),
            slot_features=tuple(self.blame[False]),
            total_features=tuple(self.blame[True]),
            fingerprint=hashlib.sha256(json.dumps(layout).encode()).digest()[:4],
        )

    def _rows(self) -> list[_Row]:
        if not self.view.aggregations:
            self.problems.append("has no aggregations")
        rows = [row for aggregation in self.view.aggregations if (row := self._row(aggregation))]
        names = [aggregation.feature for aggregation in self.view.aggregations]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.problems.append(f"feature {name!r} is computed twice; drop one of the aggregations")
        return rows

    def _row(self, aggregation: Aggregation) -> _Row | None:
        where = f"feature {aggregation.feature!r}"
        feature = self.view.feature_by_name.get(aggregation.feature)
        if feature is None:
            self.problems.append(f"{where} is not in the view's schema; add the field")
            return None
        match = _LAST_K.fullmatch(aggregation.function)
        function = "last_k" if match else aggregation.function
        k = int(match[1]) if match else 1
        if function not in (*_FITS, "first", "last", "last_k"):
            self.problems.append(f"{where}: function {function!r} is not one of {', '.join(FUNCTIONS)}")
            return None
        if not 1 <= k <= MAX_LAST:
            self.problems.append(f"{where}: k of last_k is {k}, must be 1 to {MAX_LAST}")
        if aggregation.column in ROWS and function != "count":
            self.problems.append(f"{where}: {function} needs a column; only count can count rows")
        carrier = self._carrier(function, feature.value_type)
        fits = feature.dtype in _FITS[function] if function in _FITS else carrier is not None
        if not fits:
            self.problems.append(
                f"{where}: {function} cannot be a {feature.value_type.name}; {_advice(function)}"
            )
        tiles = self._tiles(where, aggregation.window_s)
        return _Row(aggregation.feature, aggregation.column, function, k, tiles, feature.dtype, carrier)

    @staticmethod
    def _carrier(function: str, value_type: ValueType) -> Carrier | None:
        if function in ("first", "last"):
            return _CARRIERS.get(value_type)
        if function == "last_k" and value_type >= ValueType.BYTES_LIST:
            return _CARRIERS.get(ValueType(value_type - _LIST_OFFSET))
        return None

    def _tiles(self, where: str, window_s: int | None) -> int:
        if window_s is None:
            return -1
        if self.hop_s <= 0:
            self.problems.append(f"{where}: a window of {window_s} s needs a hop; set tiling_hop_size")
            return 0
        tiles, rest = divmod(window_s, self.hop_s)
        if rest or tiles < 1:
            self.problems.append(
                f"{where}: window of {window_s} s is not a multiple of the hop of {self.hop_s} s"
            )
        if tiles > MAX_TILES:
            self.problems.append(f"{where}: window has {tiles} tiles, at most {MAX_TILES}; use a larger hop")
        return tiles

    def _references(self, rows: list[_Row]) -> tuple[Reference, ...]:
        """All-time firsts, and for each (column, carrier) as many newest rows as its largest reader needs."""
        groups: dict[tuple[str, Carrier, bool], tuple[int, int]] = {}
        for row in rows:
            newest = row.function in ("last", "last_k")
            if row.carrier is None or (row.function == "first" and row.tiles >= 0):
                continue
            key = (row.column, row.carrier, newest)
            size, tiles = groups.get(key, (0, 0))
            forever = tiles == -1 or row.tiles == -1
            groups[key] = (max(size, row.k), -1 if forever else max(tiles, row.tiles))
        references: list[Reference] = []
        offset = 0
        for (column, carrier, newest), (size, tiles) in groups.items():
            references.append(
                Reference(
                    column=column, carrier=carrier, newest=newest, offset=offset, size=size, tiles=tiles
                )
            )
            offset += size
        return tuple(references)

    def _distincts(
        self, rows: list[_Row], outputs: list[Output], reads: list[tuple[int, ...]]
    ) -> tuple[Distinct, ...]:
        """One set for each column that values are told apart of, as wide as its widest reader needs."""
        readers: dict[str, list[tuple[int, int, int]]] = {}
        for row, output, read in zip(rows, outputs, reads, strict=True):
            if output.read == Read.DISTINCT:
                readers.setdefault(row.column, []).append((row.tiles, read[3], output.offset))
        return tuple(
            Distinct(
                column=self._column(column),
                tiles=max(tiles for tiles, _, _ in of),
                forever=any(tiles < 0 for tiles, _, _ in of),
                reads=_table([(window, place) for _, window, place in of], 2),
            )
            for column, of in readers.items()
        )

    def _output(self, row: _Row, offset: int, references: tuple[Reference, ...]) -> tuple[Output, int, int]:
        forever = row.tiles < 0
        encoding, slot, count, width = Encoding.WHOLE, 0, 0, 1
        match row.function:
            case "count":
                read, slot = Read.NUMBER, self._count(row, forever)
            case "count_distinct":
                read = Read.DISTINCT
            case "sum":
                encoding = Encoding.WHOLE if row.dtype == DType.INT64 else Encoding.FIXED
                read, slot = Read.NUMBER, self._lane_slot(SlotKind.SUM, row, encoding, forever)
            case "mean":
                encoding, read, width = Encoding.FIXED, Read.MEAN, 2
                count = self._count(row, forever)
                slot = self._lane_slot(SlotKind.SUM, row, encoding, forever)
            case "min" | "max":
                encoding = Encoding.ORDERED if row.dtype == DType.FLOAT64 else Encoding.WHOLE
                read, count = Read.EXTREME, self._count(row, forever)
                kind = SlotKind.MIN if row.function == "min" else SlotKind.MAX
                slot = self._lane_slot(kind, row, encoding, forever)
            case "first" if not forever:
                assert row.carrier is not None
                read, slot = Read.FIRST, self._first(row.column, row.carrier, row.tiles)
            case _:
                newest = row.function != "first"
                key = (row.column, row.carrier, newest)
                slot = next(r.offset for r in references if (r.column, r.carrier, r.newest) == key)
                read, width = Read.REFS, row.k
        output = Output(
            feature=row.feature,
            read=read,
            offset=offset,
            width=width,
            fixed=encoding == Encoding.FIXED,
            encoding=encoding,
            carrier=row.carrier,
            time=row.dtype in (DType.TIMESTAMP, DType.TIMESTAMP_LIST),
            listed=row.function == "last_k",
        )
        return output, slot, count

    def _column(self, column: str) -> int:
        if column in ROWS:
            return -1
        if column not in self.columns:
            self.columns.append(column)
        return self.columns.index(column)

    def _count(self, row: _Row, forever: bool) -> int:
        return self._slot((SlotKind.COUNT, -1, self._column(row.column), -1), row, forever)

    def _lane_slot(self, kind: SlotKind, row: _Row, encoding: Encoding, forever: bool) -> int:
        lane = (row.column, encoding)
        if lane not in self.lanes:
            self.lanes.append(lane)
        count = self._count(row, forever) if kind in (SlotKind.MIN, SlotKind.MAX) else -1
        return self._slot((kind, self.lanes.index(lane), self._column(row.column), count), row, forever)

    def _slot(self, slot: tuple[int, int, int, int], row: _Row, forever: bool) -> int:
        slots = self.slots[forever]
        if slot not in slots:
            slots.append(slot)
            self.blame[forever].append(f"{self.view.name}.{row.feature}")
        return slots.index(slot)

    def _first(self, column: str, carrier: Carrier, tiles: int) -> int:
        first = (self._column(column), carrier)
        self.firsts[first] = max(self.firsts.get(first, 0), tiles)
        return list(self.firsts).index(first)


def _advice(function: str) -> str:
    if function in _FITS:
        return "make the field one of " + ", ".join(_FITS[function])
    return "make the field a list" if function == "last_k" else "make the field a scalar"
