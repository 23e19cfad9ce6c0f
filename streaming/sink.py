"""The offline side: feature rows and events as Parquet parts, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from decision.schema import View
from streaming.advance import ViewValues
from streaming.errors import SourceFileError
from streaming.packed import Layout, tables
from streaming.pile import Pile

IntArray = npt.NDArray[np.int64]

log = structlog.get_logger()


def parts_folder(view: View) -> Path:
    """The folder that holds a view's parts.

    Raises:
        ValueError: If the view has no offline source that is a folder of parts.
    """
    text = view.offline_path or ""
    path = Path(text)
    if path.name != "*.parquet" or urlparse(text).netloc:
        message = (
            f"view {view.name}: its batch source must be a FileSource with a path of this machine like "
            f"data/offline/{view.name}/*.parquet "
            f"for its values to be logged, got {view.offline_path!r}"
        )
        raise ValueError(message)
    return path.parent


def unlogged(views: Iterable[View]) -> dict[str, str]:
    """Why values cannot be logged, by view, of those that have a batch source for it."""
    found = {}
    for view in views:
        if view.offline_path:
            try:
                parts_folder(view)
            except ValueError as error:
                found[view.name] = str(error)
    return found


def check_logged(views: Iterable[View]) -> None:
    """Refuse views whose values cannot be logged.

    Raises:
        SourceFileError: Names each of them, and what its source must be.
    """
    if problems := unlogged(views):
        raise SourceFileError("\n".join(problems.values()))


def source_files(view: View) -> list[Path]:
    """The files behind a view's offline source: one file, a folder of them, or a glob in its last part."""
    path = Path(view.offline_path or "")
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return sorted(path.parent.glob(path.name))


def write_part(
    folder: Path,
    name: str,
    table: pa.Table,
    *,
    use_dictionary: bool = True,
    level: int | None = None,
    durable: bool = False,
) -> None:
    """Write one Parquet part under a name; readers see all of it or nothing.

    Args:
        folder: Made where it is not there.
        name: Of the file, without its ending.
        table: What to write.
        use_dictionary: Whether columns may be written as numbers of their distinct values.
        level: How hard to compress; None for the usual.
        durable: Whether it must outlive the machine once this returns.
    """
    with new_part(folder, name, durable=durable) as file:
        pq.write_table(
            table,
            file,
            coerce_timestamps="us",
            compression="zstd",
            compression_level=level,
            use_dictionary=use_dictionary,
        )


@contextmanager
def new_part(folder: Path, name: str, *, durable: bool = False) -> Iterator[Path]:
    """A file to write a part to, which readers see under its name once it is whole.

    Args:
        folder: Made where it is not there.
        name: Of the part, without its ending.
        durable: Whether it must outlive the machine then.
    """
    make_folder(folder, durable=durable)
    file = folder / f".{name}.{os.getpid()}.tmp"
    try:
        yield file
        if durable:
            sync(file)
        file.replace(folder / f"{name}.parquet")
        if durable:
            sync(folder)
    finally:
        file.unlink(missing_ok=True)


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder where it is not there; where it must outlive the machine, so must its name."""
    if folder.is_dir():
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        sync(folder.parent)


def unfinished(folder: Path, prefix: str) -> Iterator[Path]:
    """Files that are being written, or were when their writer was killed, of parts whose names begin so."""
    return folder.glob(f".{prefix}*.tmp")


def remove_unfinished(folder: Path, prefix: str) -> None:
    """Remove what writers that were killed left of parts whose names begin so.

    One that only stood still finds its file gone and writes it again, or finds that it owns the partition no more. What
    cannot be removed stays: it is in nobody's way.
    """
    try:
        for path in unfinished(folder, prefix):
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("offline.unfinished_stays", folder=str(folder), error=str(error))


def earlier() -> str:
    """A name for a folder of files of an earlier store, or of one that was set back."""
    return f"earlier-{secrets.token_hex(4)}"


def move_parts(folder: Path, names: Sequence[str], aside: Path) -> None:
    """Move parts out of the way, for good; where there are some, to a folder that is made."""
    if not names:
        return
    aside.mkdir(parents=True, exist_ok=True)
    for name in names:
        # Who wrote one as an owner no more takes it back.
        with suppress(FileNotFoundError):
            (folder / name).replace(aside / name)
    # Back in their place after a power cut, they would be read again.
    for one in (aside, folder):
        sync(one)


def sync(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, outlive the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def row_parts(folder: Path, partition: int) -> Iterator[tuple[Path, int, int]]:
    """Parts of a partition's rows: the file, its first intent, and the fencing number of who wrote it."""
    for path in folder.glob(f"live-{partition}-*.parquet"):
        _, _, first, fence = path.stem.split("-")
        yield path, int(first), int(fence)


class BatchRows:
    """Collects the offline rows of one batch.

    Args:
        layouts: Of views that have an offline log, as they were needed so far; rows of others are passed over.
        created_us: Wall time of the rows.

    Attributes:
        packed: The rows by view (`streaming/packed.py`), a part for each logical time.
    """

    def __init__(self, layouts: dict[str, Layout | None], created_us: int) -> None:
        self._layouts = layouts
        self._created_us = created_us
        self.packed: dict[str, list[bytes]] = {}

    def add(self, values: ViewValues, rows: IntArray, entities: Sequence[bytes], at_us: int) -> None:
        """Log rows of a view's values, readable from logical time `at_us`, and whose they are."""
        view = values.plan.view
        if view.name not in self._layouts or not len(rows):
            return
        layout = self._layouts[view.name]
        if layout is None:
            layout = self._layouts[view.name] = Layout.of_view(view, values.plan.keys)
        columns = values.columns
        part = layout.pack(
            len(rows),
            [columns[feature.name] for feature in view.features],
            entities=entities,
            rows=None if len(rows) == len(values.entities) else rows,
            at_us=at_us,
            created_us=self._created_us,
        )
        self.packed.setdefault(view.name, []).append(part)


OfflineRows = dict[str, list[bytes]]
"""Rows by view, as `streaming/packed.py` has them."""


class OfflineSink:
    """Collects the rows of one partition and writes them as one part per view.

    Not thread-safe, but for `write`. Rows are held in memory until they are taken; whoever moves the checkpoint writes
    first what it took, and gives back what could not be written.
    """

    def __init__(self, views: Sequence[View], partition: int) -> None:
        self._views = {view.name: view for view in views if view.offline_path}
        self._layouts: dict[str, Layout | None] = dict.fromkeys(self._views)
        self._piles = {view: Pile() for view in self._views}
        self._partition = partition

    @property
    def row_count(self) -> int:
        """Rows collected."""
        return sum(pile.row_count for pile in self._piles.values())

    @property
    def weight(self) -> int:
        """As `Pile.weight`."""
        return sum(pile.weight for pile in self._piles.values())

    def start(self, intent: int, fence: int, check_owner: Callable[[], None] = lambda: None) -> None:
        """Begin at a checkpoint: remove what an owner before was killed while it wrote.

        Where no intent is behind the checkpoint, what no owner before can have left is of an earlier store, and is set
        aside: this one would give its parts the same names.

        Args:
            intent: Of the checkpoint.
            fence: The owner's number.
            check_owner: Raises where another owner has come since that was read.
        """
        for view in self._views.values():
            folder = parts_folder(view)
            remove_unfinished(folder, f"live-{self._partition}-")
            parts = () if intent else row_parts(folder, self._partition)
            names = [path.name for path, first, owner in parts if first > 1 or owner >= fence]
            if names:
                check_owner()
                aside = folder / earlier()
                move_parts(folder, names, aside)
                log.warning("offline.set_aside", view=view.name, parts=len(names), folder=str(aside))

    def ahead(self, intent: int, fence: int) -> list[Path]:
        """Parts that no owner before `fence` can have left, as their rows are of intents behind a later checkpoint."""
        found = []
        for view in self._views.values():
            for path, first, owner in row_parts(parts_folder(view), self._partition):
                if first > intent + 1 or (first == intent + 1 and owner > fence):
                    found.append(path)
        return found

    def batch(self, created_us: int) -> BatchRows:
        """A collector for the rows of a batch; they count once they are given to `extend`."""
        return BatchRows(self._layouts, created_us)

    def extend(self, rows: Mapping[str, Sequence[bytes]]) -> None:
        """Take rows that are true now; those of views that are no longer defined have nowhere to go."""
        for view, parts in rows.items():
            if view in self._piles:
                self._piles[view].add(parts)

    def take(self) -> OfflineRows:
        """Everything collected; others come from now on."""
        return {view: pile.take() for view, pile in self._piles.items() if pile.row_count}

    def give_back(self, rows: OfflineRows) -> None:
        """Have what was taken last before all that came since."""
        for view, parts in rows.items():
            self._piles[view].give_back(parts)

    def write(self, rows: OfflineRows, first: int, fence: int) -> None:
        """Write what was taken; one write at a time, in any thread.

        What is written again after a crash begins with the same intent, so it takes the place of what an owner before
        wrote and did not live to have behind a checkpoint.

        Args:
            rows: As they were taken.
            first: Number of the first intent that is not behind the checkpoint.
            fence: The owner's number.

        Raises:
            OSError: If a part cannot be written.
        """
        stem = self._stem(first)
        for view, parts in rows.items():
            folder = parts_folder(self._views[view])
            # What an owner before left may be of fewer segments, or more: each row has NULL where it has no value.
            whole = pa.concat_tables(tables(parts), promote_options="permissive")
            write_part(folder, f"{stem}-{fence}", whole)
            for part in folder.glob(f"{stem}-*.parquet"):
                if int(part.stem.rpartition("-")[2]) < fence:
                    part.unlink(missing_ok=True)

    def discard(self, rows: OfflineRows, first: int, fence: int) -> None:
        """Take back what was written: another owner has come, who writes it anew."""
        for view in rows:
            folder = parts_folder(self._views[view])
            (folder / f"{self._stem(first)}-{fence}.parquet").unlink(missing_ok=True)

    def _stem(self, first: int) -> str:
        return f"live-{self._partition}-{first:012d}"
