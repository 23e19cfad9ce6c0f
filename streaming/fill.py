"""A view's past, computed piece by piece: offline rows to its folder, what is kept to its entities' states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa

from streaming.advance import latest_row
from streaming.arrow import KeyColumns, arrow_type, column_array, timestamp_array, view_schema
from streaming.entity import EntityState, LatestRow
from streaming.plan import EntityKind, ViewPlan, ViewRows
from streaming.sink import remove_unfinished, write_part
from streaming.windows.inputs import Prepared
from streaming.windows.order import sort_rows
from streaming.windows.state import TileState
from streaming.windows.sweep import Held, Sweep, sweep_chunks

ROWS_PER_PART = 500_000


class ViewFill:
    """Computes the past of one view.

    Args:
        kind: The view's kind.
        plan: The view, which has windows.
        parts: Folder and beginning of the names of the offline rows; no folder for none.
        writing: Entered while something is written.

    Attributes:
        written: Offline rows so far.
    """

    def __init__(
        self,
        kind: EntityKind,
        plan: ViewPlan,
        parts: tuple[Path | None, str],
        writing: AbstractContextManager[None],
    ) -> None:
        assert plan.windows is not None
        self._plan = plan
        self._windows = plan.windows
        self._place = list(kind.windows).index(plan.stored)
        self._count = len(kind.windows)
        self._folder, self._stem = parts
        self._writing = writing
        self._part = 0
        self.written = 0

    def fill(
        self,
        keys: Sequence[bytes],
        rows: Prepared,
        states: dict[bytes, EntityState],
        until_us: int,
        since_us: int | None = None,
    ) -> Iterator[int]:
        """Bring a view of entities to a logical time.

        Args:
            keys: The entities.
            rows: Of theirs, all that lie behind `since_us`; their entities by number among the keys.
            states: Of the kind's entities; the view's tiles are put there.
            until_us: The time, which no row lies behind.
            since_us: The time to which the states were brought before; None where they hold nothing of the view.

        Yields:
            How many of the entities are done.
        """
        held = None if since_us is None else self._held(keys, states, since_us)
        columns = KeyColumns.of(self._plan.keys, keys)
        key_columns = [columns.column(key) for key in self._plan.view.join_keys]
        for chunk in sweep_chunks(self._windows, rows, len(keys), until_us, ROWS_PER_PART, held):
            if self._folder is not None:
                self._write(self._folder, key_columns, chunk)
            done = chunk.first_entity + len(chunk.final.states)
            for key, tiles in zip(keys[chunk.first_entity : done], chunk.final.states, strict=True):
                state_of(states, key, until_us).put_tiles(self._place, self._count, tiles)
            yield done

    def _held(self, keys: Sequence[bytes], states: dict[bytes, EntityState], since_us: int) -> Held:
        nothing = TileState.empty(self._windows)
        tiles = (state_of(states, key, since_us).tiles for key in keys)
        return Held([(own[self._place] or nothing) if own else nothing for own in tiles], since_us)

    def _write(self, folder: Path, key_columns: Sequence[pa.Array], chunk: Sweep) -> None:
        table = _offline_table(self._plan, key_columns, chunk)
        if not len(table):
            return
        with self._writing:
            write_part(folder, f"{self._stem}-{self._part:05d}", table)
        self._part += 1
        self.written += len(table)


def state_of(states: dict[bytes, EntityState], key: bytes, at_us: int) -> EntityState:
    """The state of an entity, a new one at a logical time where there is none."""
    state = states.get(key)
    if state is None:
        state = states[key] = EntityState(at_us)
    return state


def newest_rows(plan: ViewPlan, rows: ViewRows) -> Iterator[tuple[int, LatestRow]]:
    """Of a view without windows, the newest row of each entity, and the entity's number among the keys."""
    taken = slice(None) if rows.rows is None else rows.rows
    order = sort_rows(rows.codes, rows.made.event_us[taken], rows.made.event_ids[taken])
    owners = rows.codes[order]
    for place in np.flatnonzero(np.append(owners[1:] != owners[:-1], [True] * min(len(owners), 1))).tolist():
        yield int(owners[place]), latest_row(plan, rows, int(order[place]))


def remove_filled(folder: Path, stem: str) -> None:
    """Remove the offline rows of a fill before, whole or not."""
    remove_unfinished(folder, f"{stem}-")
    for part in folder.glob(f"{stem}-*.parquet"):
        part.unlink()


def _offline_table(plan: ViewPlan, key_columns: Sequence[pa.Array], chunk: Sweep) -> pa.Table:
    schema = view_schema(plan.view)
    entity = pa.array(chunk.entity)
    instants = timestamp_array(chunk.event_us)
    keys = [column.take(entity) for column in key_columns]
    features = [
        column_array(chunk.columns[feature.name], arrow_type(feature.value_type))
        for feature in plan.view.features
    ]
    return pa.Table.from_arrays([*keys, *features, instants, instants], schema=schema)
