"""What views make of past events for entities of one kind: put apart on disk, then part by part into states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.admit import Customers, note_ids
from streaming.entity import EntityState, decode_latest, encode_latest
from streaming.feeds import TIME, Feed, Numbers, prepared_rows, window_rows
from streaming.fill import ViewFill, newest_rows, state_of
from streaming.numbering import numbered
from streaming.plan import EntityKind, SourceEvents, ViewPlan, ViewRows
from streaming.recent import id_hashes
from streaming.windows.inputs import prepared

IntArray = npt.NDArray[np.int64]

MOST_PARTS = 1_024

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""
_HASH, _ROW = "hash", "row"


class KindFeeds:
    """Rows of all views of a kind.

    Args:
        kind: The kind.
        part_count: Into how many parts its entities are put.
        folder: For temporary files.
        files: Ends them.
        at_once: About so many rows of a view are in memory; where a part has twice as many, it is taken in slices.

    Attributes:
        kind: The kind.
        most_rows: The most rows of a view that were in memory at once.
    """

    def __init__(
        self, kind: EntityKind, part_count: int, folder: Path, files: ExitStack, at_once: int
    ) -> None:
        self.kind = kind
        self._at_once = at_once
        self._feeds: dict[str, Feed] = {}
        for plan in kind.views:
            self._feeds[plan.view.name] = feed = Feed(folder, part_count)
            files.callback(feed.close)
        self._recent = Feed(folder, part_count)
        files.callback(self._recent.close)
        self._done = {plan.view.name: 0 for plan in kind.views}
        self.part_count = part_count
        self.most_rows = 0

    def add(self, rows: Mapping[str, ViewRows]) -> None:
        """Take the rows of the views, by name, that some events have become."""
        for plan in self.kind.views:
            own, feed = rows[plan.view.name], self._feeds[plan.view.name]
            self.most_rows = max(self.most_rows, len(own.codes))
            if plan.windows is None:
                _add_newest(feed, plan, own)
            else:
                batch = own.batch(own.codes, plan.windows)
                feed.add(own.keys, own.codes, window_rows(plan.windows, prepared(plan.windows, batch)))

    def add_recent(self, events: SourceEvents, since_us: int) -> None:
        """Take the ids of events that may still be published again in time; for the kind of customers alone."""
        tail = np.flatnonzero(events.event_us >= since_us)
        codes, customer_ids = numbered(events.customer_ids[tail])
        names = {self.kind.key_names[0]: (customer_ids, range(len(customer_ids)))}
        rows = {TIME: events.event_us[tail], _HASH: id_hashes(events.event_ids[tail].tolist())}
        self._recent.add(self.kind.keys.encode_many(names), codes, pa.record_batch(rows))

    def put_recent(
        self, part: int, states: dict[bytes, EntityState], until_us: int, lateness_us: int
    ) -> None:
        """Note the ids of a part's customers on their states: position 0 marks them as older than the log."""
        for keys, codes, rows in self._recent.read(part):
            event_us = rows[TIME].to_numpy()
            note_ids(
                Customers(codes, [state_of(states, key, until_us) for key in keys]),
                np.argsort(event_us, kind="stable"),
                event_us,
                rows[_HASH].to_numpy(),
                np.zeros(len(event_us), dtype=np.int64),
                lateness_us,
            )

    def _put_latest(self, plan: ViewPlan, part: int, states: dict[bytes, EntityState], until_us: int) -> None:
        """Put the newest row of each entity of a part, of a view without windows, into the states."""
        for keys, codes, rows in self._feeds[plan.view.name].read(part):
            for code, data in zip(codes.tolist(), rows[_ROW].to_pylist(), strict=True):
                state_of(states, keys[code], until_us).note_latest(plan.stored, decode_latest(data))

    def bring(
        self,
        part: int,
        fills: Mapping[str, ViewFill],
        states: dict[bytes, EntityState],
        until_us: int,
        progress: Progress,
    ) -> None:
        """Bring all views of a part's entities to a logical time; parts come one after the other.

        Args:
            part: Its number.
            fills: By name of the views with windows.
            states: Of the part's entities; what is made is put there.
            until_us: The time.
            progress: Told how many rows of each view are done.
        """
        for plan in self.kind.views:
            if plan.windows is None:
                self._put_latest(plan, part, states, until_us)
                continue
            name, done = plan.view.name, 0
            count = self.row_count(plan)
            for done in self._sweep(plan, fills[name], part, states, until_us):
                progress(name, self._done[name] + done, count)
            self._done[name] += done

    def _sweep(
        self, plan: ViewPlan, fill: ViewFill, part: int, states: dict[bytes, EntityState], until_us: int
    ) -> Iterator[int]:
        """Bring a view of a part's entities to a logical time; yields how many of its rows are done."""
        assert plan.windows is not None
        feed = self._feeds[plan.view.name]
        numbers, since_us, before = Numbers(), None, 0
        with ExitStack() as files:
            for source, place, slice_us in self._slices(feed, part, until_us, files):
                codes, pieces = [], []
                for keys, own, rows in source.read(place):
                    codes.append(numbers.of(keys)[own])
                    pieces.append(rows)
                if not pieces:
                    continue
                swept = prepared_rows(plan.windows, np.concatenate(codes), pieces)
                del codes, pieces
                self.most_rows = max(self.most_rows, len(swept))
                entities = numbers.keys
                for key in entities:
                    state_of(states, key, until_us)
                for done in fill.fill(entities, swept, states, slice_us, since_us):
                    yield before + len(swept) * done // len(entities)
                before += len(swept)
                since_us = slice_us

    def row_count(self, plan: ViewPlan) -> int:
        """How many rows a view has."""
        feed = self._feeds[plan.view.name]
        return sum(map(feed.row_count, range(self.part_count)))

    def _slices(
        self, feed: Feed, part: int, until_us: int, files: ExitStack
    ) -> Iterator[tuple[Feed, int, int]]:
        """Where a part lies, slice by slice, and the time up to which each goes."""
        count = feed.row_count(part)
        if count <= 2 * self._at_once:
            yield feed, part, until_us
            return
        edges = feed.edges(part, -(-count // self._at_once))
        sliced = feed.sliced(part, edges)
        files.callback(sliced.close)
        for number, end_us in enumerate([*(edges - 1).tolist(), until_us]):
            yield sliced, number, end_us


def parts_for(event_count: int, at_once: int) -> int:
    """Into how many parts so many events are put, for each to be about as many as are in memory at once."""
    return min(max(1, -(-event_count // at_once)), MOST_PARTS)


def _add_newest(feed: Feed, plan: ViewPlan, rows: ViewRows) -> None:
    """Of some rows of a view without windows only the newest of each entity can count."""
    newest = [(code, row.event_us, encode_latest(row)) for code, row in newest_rows(plan, rows)]
    if newest:
        codes, times, data = zip(*newest, strict=True)
        made = {TIME: pa.array(times, pa.int64()), _ROW: pa.array(data, pa.large_binary())}
        feed.add(rows.keys, np.array(codes, dtype=np.int64), pa.record_batch(made))
