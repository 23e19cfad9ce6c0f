"""Pushes and writes of Feast clients: checked, encoded, and written on condition of their event times."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import structlog

from decision.schema import View
from online.errors import KeyEncodingError, StoreReplyError, ValueEncodeError, WriteTooLargeError
from online.errors import StoreUnavailableError as StoreGoneError
from online.keys import EntityKeys, feature_field
from online.write import AsyncRowWriter, RowWrite
from server.bounds import check_count, check_size
from server.budget import CURRENT
from server.config import Limits
from server.errors import ConditionError, InvalidRequestError, StoreUnavailableError, UnknownResourceError
from server.feast.definitions import Definitions, ServedView
from server.feast.encoding import micros_of
from server.feast.entities import key_column
from server.feast.offline import OfflineLog, refuse_unlogged
from server.feast.pushed import MappedPush, Pushed
from server.feast.selection import PlanBook

_log = structlog.get_logger("server")
RETRY_AFTER_S = 1.0
REMOTE_TIME = "event_timestamp"
SEGMENTS = "segments"


class Target(StrEnum):
    """Where a push goes, in Feast's words."""

    ONLINE = "online"
    OFFLINE = "offline"
    ONLINE_AND_OFFLINE = "online_and_offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRows:
    """Rows of one view, encoded."""

    view: View
    rows: tuple[RowWrite, ...]


class Touched(Protocol):
    """Told which entities a push changed, after it is stored."""

    async def __call__(self, written: Sequence[WrittenRows]) -> None:
        """Take note."""


class FeatureWriter:
    """Writes rows of views that events do not compute.

    Args:
        book: The definitions that serve now.
        writer: The online store.
        offline: Where offline rows go.
        touched: Told of what was written online; None where nothing depends on it.
    """

    def __init__(
        self,
        book: Callable[[], PlanBook],
        writer: AsyncRowWriter,
        offline: OfflineLog,
        limits: Limits,
        touched: Touched | None = None,
    ) -> None:
        self._book = book
        self._writer = writer
        self._offline = offline
        self._limits = limits
        self._touched = touched

    async def push(self, source: str, rows: Pushed, to: str) -> None:
        """Write rows to every view that a push source feeds; all are checked before any is written.

        Raises:
            RequestError: The source is unknown, a row does not fit, or the store does not answer.
        """
        try:
            target = Target(to)
        except ValueError:
            description = f"is {to!r}: send one of {[item.value for item in Target]}"
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "to", description) from None
        check_size("push_source_name", len(source), self._limits.max_text_bytes)
        definitions = self._book().definitions
        views = definitions.fed_by(source)
        if not views:
            raise _unknown_source(source, definitions)
        mapped = [MappedPush(rows, view.view) for view in views]
        encoded = [
            self._encoded(definitions, view, columns, view.view.timestamp_column)
            for view, columns in zip(views, mapped, strict=True)
        ]
        if target is not Target.ONLINE:
            for item in encoded:
                refuse_unlogged(item.view)
        if target is not Target.OFFLINE:
            await self._write(encoded)
        if target is not Target.ONLINE:
            appends = [
                self._offline.append(item.view, item.rows, columns)
                for item, columns in zip(encoded, mapped, strict=True)
            ]
            try:
                await asyncio.gather(*appends)
            except OSError as error:
                _log.warning("push.unlogged", source=source, error=str(error))
                message = "the rows cannot be logged offline for now; the same rows can be sent again"
                raise StoreUnavailableError(message, RETRY_AFTER_S) from error

    async def write(self, view: str, rows: Pushed) -> None:
        """Write rows to one view, online.

        Raises:
            RequestError: The view is unknown, a row does not fit, or the store does not answer.
        """
        check_size("feature_view_name", len(view), self._limits.max_text_bytes)
        definitions = self._book().definitions
        served = definitions.views.get(view)
        if served is None:
            near = difflib.get_close_matches(view, definitions.views, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownResourceError("UNKNOWN_VIEW", f"no stored view {view!r}{hint}", "feature_view", view)
        mapped = MappedPush(rows, served.view)
        await self._write([self._encoded(definitions, served, mapped, _sent_time(served.view, mapped))])

    async def _write(self, encoded: Sequence[WrittenRows]) -> None:
        writes = [row for item in encoded for row in item.rows]
        budget = CURRENT.get()
        try:
            async with asyncio.timeout(budget.left_s()):
                await self._writer.apply(writes)
        except TimeoutError:
            raise budget.spent_error("write to the online store") from None
        except (StoreGoneError, StoreReplyError) as error:
            message = "the store refused or lost the write; the same rows can be sent again"
            raise StoreUnavailableError(message, RETRY_AFTER_S) from error
        except WriteTooLargeError as error:
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "features", str(error)) from error
        if self._touched is not None:
            await self._touched(encoded)

    def _encoded(
        self, definitions: Definitions, served: ServedView, rows: Pushed, time_column: str
    ) -> WrittenRows:
        _refuse_unwritable(served)
        view = served.view
        row_count = self._row_count(view, rows, time_column)
        columns = [key_column(rows, key.name, key) for key in view.join_keys]
        keyed = (
            [dict(zip(view.key_names, values, strict=True)) for values in zip(*columns, strict=True)]
            if columns
            else [{}] * row_count
        )
        keys = EntityKeys(definitions.catalog.project, view.join_keys)
        fields = [feature_field(view.stored_name, feature.name) for feature in view.features]
        cells = [self._column(rows, feature.name, feature.value_type) for feature in view.features]
        times = _event_times(rows, time_column)
        try:
            return WrittenRows(
                view=view,
                rows=tuple(
                    RowWrite(
                        key=keys.encode(row),
                        view=view.stored_name,
                        values=dict(zip(fields, values, strict=True)),
                        event_us=event_us,
                    )
                    for row, values, event_us in zip(keyed, zip(*cells, strict=True), times, strict=True)
                ),
            )
        except KeyEncodingError as error:
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", "join key", str(error)) from error

    def _row_count(self, view: View, rows: Pushed, time_column: str) -> int:
        needed = (*view.key_names, *(feature.name for feature in view.features), time_column)
        sent = set(rows.names())
        for name in needed:
            if name not in sent:
                description = f"is missing: a row of {view.name} has {', '.join(needed)}"
                raise InvalidRequestError.of("REQUIRED_FIELD_MISSING", rows.place(name), description)
        row_count = rows.count(time_column)
        for name in needed:
            if rows.count(name) != row_count:
                description = f"has {rows.count(name)} values, {time_column} has {row_count}"
                raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", rows.place(name), description)
        check_count("rows", row_count, self._limits.max_entities)
        check_count("rows × features", row_count * len(view.features), self._limits.max_cells)
        return row_count

    def _column(self, rows: Pushed, name: str, value_type: object) -> list[bytes]:
        try:
            cells = rows.encoded(name, value_type)  # type: ignore[arg-type]
        except ValueEncodeError as error:
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", rows.place(name), str(error)) from error
        for row, cell in enumerate(cells):
            check_size(rows.place(name, row), len(cell), self._limits.max_message_bytes)
        return cells


def _refuse_unwritable(served: ServedView) -> None:
    view = served.view
    if view.aggregations:
        what = "is computed by windows over events, which a push would overwrite: publish the events instead"
    elif view.tag("waypost.role") == SEGMENTS:
        what = "holds segments, which the policy decides: publish events or change the policy"
    elif served.computed_on_write:
        what = "is an on-demand view that Feast computes while writing: write it with Feast's SDK"
    else:
        return
    raise ConditionError("VIEW_NOT_WRITABLE", f"view {served.name!r} {what}", {"view": served.name})


def _sent_time(view: View, rows: Pushed) -> str:
    """The column with the event times: the view's, or what the remote store of Feast's SDK sends for any view."""
    sent = set(rows.names())
    named = {*view.key_names, *(feature.name for feature in view.features)}
    remote = view.timestamp_column not in sent and REMOTE_TIME in sent - named
    return REMOTE_TIME if remote else view.timestamp_column


def _event_times(rows: Pushed, name: str) -> list[int]:
    times = []
    for row, value in enumerate(rows.plain(name)):
        if value is None:
            raise InvalidRequestError.of(
                "REQUIRED_FIELD_MISSING", rows.place(name, row), "give the row its event time"
            )
        try:
            times.append(micros_of(value))
        except ValueEncodeError as error:
            raise InvalidRequestError.of("FIELD_TYPE_MISMATCH", rows.place(name, row), str(error)) from error
    return times


def _unknown_source(source: str, definitions: Definitions) -> InvalidRequestError:
    known = sorted({view.push_source for view in definitions.views.values() if view.push_source})
    near = difflib.get_close_matches(source, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {known[:10]}"
    return InvalidRequestError.of(
        "UNKNOWN_PUSH_SOURCE", "push_source_name", f"no push source {source!r}; {hint}"
    )
