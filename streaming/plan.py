"""The plan of the stream: which views are fed, for which entities, by which transformation and windows.

Compiled once from the catalog and the policy; nothing is looked up by name while events flow.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from decision.lang.interpreter import prepare
from decision.lang.syntax import Expr, references, uses_now
from decision.policy import Policy, Segment
from decision.schema import Catalog, FeatureRef, Value, ValueType, View
from online.errors import KeyEncodingError, ValueEncodeError
from online.keys import EntityKeys, feature_field, timestamp_field
from online.shown import shown
from online.values import decoder, encoder
from online.view_words import ViewWords
from streaming.cells import plain, plain_column
from streaming.errors import NoCustomerView, TransformError
from streaming.numbering import numbered
from streaming.windows.batch import Batch, microseconds, raw_column, rows_of
from streaming.windows.plan import WindowPlan

IntArray = npt.NDArray[np.int64]
Transform = Callable[[pd.DataFrame], pd.DataFrame]
Evaluate = Callable[[Mapping[str, Value], int], Value]


@dataclass(frozen=True, slots=True)
class SourceEvents:
    """A frame of events, as in `streaming.frame`, with the columns beside it that every view needs of it.

    Attributes:
        frame: Rows numbered from 0.
        event_ids: Of the rows, as is each that follows.
        customer_ids: As the events have them.
        event_us: Event times in microseconds, int64.
    """

    frame: pd.DataFrame
    event_ids: npt.NDArray[np.object_]
    customer_ids: npt.NDArray[np.object_]
    event_us: IntArray

    @staticmethod
    def of(frame: pd.DataFrame) -> SourceEvents:
        """Copy the columns out: a transformation may change the frame in place."""
        return SourceEvents(
            frame,
            frame["event_id"].to_numpy(dtype=object, copy=True),
            frame["customer_id"].to_numpy(dtype=object, copy=True),
            microseconds(frame["event_time"]).copy(),
        )


class Transformed:
    """Rows that a transformation made of events; views that share it share what is found out about them.

    Attributes:
        frame: The rows.
        source: Row number of each one's event.
        event_ids: Of the events.
        event_us: Their times in microseconds.
    """

    def __init__(self, events: SourceEvents, frame: pd.DataFrame) -> None:
        """Take rows whose index is that of the events.

        Raises:
            IndexError: It is not.
        """
        # Not of the frame, from which the transformation may have dropped rows in place.
        count, rows = len(events.event_us), frame.index.to_numpy()
        are_numbers = rows.dtype.kind in "iu"
        is_whole = are_numbers and np.array_equal(rows, np.arange(count))
        if len(rows) and not is_whole and not (are_numbers and rows.min() >= 0 and rows.max() < count):
            raise IndexError("the index is not that of the events")
        self.frame = frame
        self.source: IntArray = rows.astype(np.int64, copy=False)
        taken = slice(None) if is_whole else self.source
        self.event_ids = events.event_ids[taken]
        self.event_us = events.event_us[taken]
        self._customer_ids = events.customer_ids[taken]
        self._columns: dict[str, Any] = {}
        self._plain: dict[str, list[Value]] = {}
        self._codes: dict[str | None, tuple[IntArray, list[Any]]] = {}
        self.names = frozenset(frame.columns)

    def column(self, name: str) -> Any:
        """The values of a column.

        Raises:
            ValueError: Two have the name.
        """
        if name not in self._columns:
            column = self.frame[name]
            if isinstance(column, pd.DataFrame):
                raise ValueError(f"there is more than one column {name!r}")
            self._columns[name] = raw_column(column)
        return self._columns[name]

    def plain(self, name: str) -> list[Value]:
        """The cells of a column as plain values.

        Raises:
            Exception: Whatever a cell does when it is looked at.
        """
        if name not in self._plain:
            self._plain[name] = plain_column(self.frame[name])
        return self._plain[name]

    def cell(self, name: str, row: int) -> Value:
        """One cell of a column as a plain value."""
        return self._plain[name][row] if name in self._plain else plain(self.column(name)[row])

    def codes(self, name: str | None) -> tuple[IntArray, list[Any]]:
        """Numbers of the values of a column, -1 for NULL, and the values; of the events' customers for None."""
        if name not in self._codes:
            values = self._customer_ids if name is None else self.column(name)
            self._codes[name] = numbered(values)
        return self._codes[name]


@dataclass(frozen=True, slots=True)
class ViewRows:
    """Rows of a view, and whose they are.

    Attributes:
        made: All rows of the view's transformation.
        rows: Numbers of the view's own among them; None for all.
        codes: Index into `keys` for each of its rows, int64.
        keys: Distinct entity keys.
    """

    made: Transformed
    rows: IntArray | None
    codes: IntArray
    keys: list[bytes]

    @property
    def source(self) -> IntArray:
        """Row number of each row's event."""
        return self.made.source if self.rows is None else self.made.source[self.rows]

    def batch(self, entity: IntArray, windows: WindowPlan, own: IntArray | None = None) -> Batch:
        """Rows as the windows take them in.

        Args:
            entity: Group index of each one's entity.
            windows: The view's plan.
            own: Numbers of rows; None for all.
        """
        made = self.made
        rows = own if self.rows is None or own is None else self.rows[own]
        rows = self.rows if rows is None else rows
        columns = {name: made.column(name) for name in windows.columns}
        event_us, event_ids = made.event_us, made.event_ids
        if rows is not None:
            columns = {name: rows_of(column, rows) for name, column in columns.items()}
            event_us, event_ids = event_us[rows], event_ids[rows]
        return Batch(entity, event_us, event_ids if windows.ordered else (), columns)


@dataclass(frozen=True)
class ViewPlan:
    """One stream view, ready to be fed.

    Attributes:
        stored: The name under which states keep the view, see `stored_name`.
    """

    view: View
    transform: Transform | None
    windows: WindowPlan | None
    keys: EntityKeys
    customer_key: str
    stored: str

    def rows(self, made: Transformed) -> ViewRows:
        """Key rows by entity; those with a NULL join key are left out.

        The customer's join key is the event's customer where the transformation does not give it.

        Raises:
            TransformError: If a column is missing or there twice, or a join key does not fit its type.
        """
        names = self.view.key_names
        own_customer = self.customer_key in names and self.customer_key not in made.names
        missing = [
            name
            for name in (*names, *self.columns)
            if name not in made.names and not (own_customer and name == self.customer_key)
        ]
        if missing:
            raise TransformError(
                f"view {self.view.name}: the transformation returns no column {missing[0]!r}"
            )
        if not names:
            count = len(made.frame)
            return ViewRows(
                made, None, np.zeros(count, dtype=np.int64), [self.keys.encode({})] * min(count, 1)
            )
        try:
            for name in self.columns:
                made.column(name)
            parts = [
                made.codes(None if own_customer and name == self.customer_key else name) for name in names
            ]
        except Exception as error:
            raise TransformError(
                f"view {self.view.name}: the transformation's result: {_said(error)}"
            ) from error
        codes, places = _distinct([(part, len(values)) for part, values in parts])
        uniques = {
            name: (values, place.tolist())
            for name, (_, values), place in zip(names, parts, places, strict=True)
        }
        try:
            keys = self.keys.encode_many(uniques)
        except KeyEncodingError as error:
            raise TransformError(f"view {self.view.name}: {error}") from error
        own = np.flatnonzero(codes >= 0) if (codes < 0).any() else None
        if self.windows is None:
            self._check_values(made, own)
        return ViewRows(made, own, codes if own is None else codes[own], keys)

    def _check_values(self, made: Transformed, own: IntArray | None) -> None:
        """See that each row can be kept, whether or not a later one of its entity stands beside it."""
        for feature in self.view.features:
            encode = encoder(feature.value_type)
            try:
                if _always_fits(made.column(feature.name).dtype, feature.value_type):
                    continue
                values = made.plain(feature.name)
                for value in values if own is None else [values[row] for row in own.tolist()]:
                    encode(value)
            except Exception as error:
                name = f"{self.view.name}.{feature.name}"
                raise TransformError(f"feature {name}: {_said(error)}") from error

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that the transformation must return, besides join keys."""
        if self.windows is not None:
            return tuple(self.windows.columns)
        return tuple(feature.name for feature in self.view.features)

    @cached_property
    def words(self) -> ViewWords:
        """Writes many rows at once for the entities' Feast hashes."""
        return ViewWords(self.view)

    def transformed(self, events: SourceEvents) -> Transformed:
        """What the view's transformation makes of events.

        Raises:
            TransformError: If it raises, gives no frame, or loses the index.
        """
        frame = events.frame
        if self.transform is not None:
            try:
                frame = self.transform(events.frame)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise TransformError(
                    f"view {self.view.name}: the transformation failed: {shown(error)}"
                ) from error
        if not isinstance(frame, pd.DataFrame):
            kind = type(frame).__name__
            raise TransformError(
                f"view {self.view.name}: the transformation returned a {kind}, not a DataFrame"
            )
        try:
            return Transformed(events, frame)
        except IndexError as error:
            raise TransformError(
                f"view {self.view.name}: the transformation must keep the index of the events"
            ) from error


def _always_fits(dtype: Any, value_type: ValueType) -> bool:
    """Whether a column of a type holds nothing that a feature's type cannot take."""
    if isinstance(dtype, pd.DatetimeTZDtype):
        return value_type is ValueType.UNIX_TIMESTAMP and dtype.unit in {"us", "ns"}
    return value_type in _FITTING.get(dtype.kind, ())


_FITTING = {
    "f": (ValueType.DOUBLE, ValueType.FLOAT),
    "i": (ValueType.INT64, ValueType.DOUBLE, ValueType.FLOAT),
    "b": (ValueType.BOOL,),
}


def _said(error: Exception) -> str:
    """What an error says, and what it is where it says little by itself."""
    if not isinstance(error, ValueEncodeError | ValueError | TypeError):
        return shown(error)
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever it does when it is to say something
        return shown(error)


def _distinct(parts: Sequence[tuple[IntArray, int]]) -> tuple[IntArray, list[IntArray]]:
    """Number the distinct tuples of codes, of which each part has so many, by first appearance.

    Returns:
        The number of each row's tuple, -1 where one of its codes is; and the codes of each tuple, part by part.
    """
    ((numbers, count), *rest) = parts
    numbers, places = numbers.astype(np.int64, copy=False), [np.arange(count, dtype=np.int64)]
    for codes, size in rest:
        good = (numbers >= 0) & (codes >= 0)
        mixed = numbers * size + codes
        if good.all():
            numbers, tuples = numbered(mixed)
        else:
            numbers = np.full(len(mixed), -1, dtype=np.int64)
            numbers[good], tuples = numbered(mixed[good])
        before, place = np.divmod(np.array(tuples, dtype=np.int64), max(size, 1))
        places = [*(own[before] for own in places), place]
    return numbers, places


@dataclass(frozen=True)
class SegmentPlan:
    """One segment, ready to be evaluated.

    Attributes:
        follows_time: Whether it may flip through time alone.
        dwell_us: How long membership lasts at least once it has changed.
    """

    name: str
    condition: Expr
    evaluate: Evaluate
    follows_time: bool
    dwell_us: int


@dataclass(frozen=True)
class EntityKind:
    """All that is kept for entities of one set of join keys.

    Attributes:
        views: Views fed by the stream.
        segments: In an order in which each reads only those before it.
        segments_view: Where membership is stored, or None.
        borrowed: Features of other views that segments read; fetched from the store.
    """

    name: str
    keys: EntityKeys
    key_names: tuple[str, ...]
    views: tuple[ViewPlan, ...]
    segments: tuple[SegmentPlan, ...]
    segments_view: ViewPlan | None
    borrowed: tuple[FeatureRef, ...]
    catalog: Catalog

    @cached_property
    def windows(self) -> dict[str, WindowPlan]:
        """Window plans by the name under which states keep the view."""
        return {plan.stored: plan.windows for plan in self.views if plan.windows is not None}

    @cached_property
    def shown(self) -> tuple[ViewPlan, ...]:
        """All views that are written online."""
        return self.views if self.segments_view is None else (*self.views, self.segments_view)

    @cached_property
    def stamps(self) -> tuple[bytes, ...]:
        """Fields of their timestamps."""
        return tuple(timestamp_field(plan.view.stored_name) for plan in self.shown)

    @cached_property
    def memory_s(self) -> int | None:
        """How long an event can count for something after it: the longest window; None where one has no end."""
        widths = [a.window_s for plan in self.views for a in plan.view.aggregations]
        return None if None in widths else max((width for width in widths if width is not None), default=0)

    @cached_property
    def borrowed_fields(self) -> tuple[tuple[str, bytes, Callable[[bytes], Value]], ...]:
        """Canonical name, hash field and decoder of each borrowed feature."""
        return tuple(
            (
                str(ref),
                feature_field(self.catalog.view_by_name[ref.view].stored_name, ref.feature),
                decoder(self.catalog.feature(ref).value_type),
            )
            for ref in self.borrowed
        )


@dataclass(frozen=True)
class StreamPlan:
    """Everything the materializer and the backfill run."""

    project: str
    kinds: tuple[EntityKind, ...]
    customer: EntityKind

    @staticmethod
    def compile(
        catalog: Catalog,
        transforms: Mapping[str, Transform],
        policy: Policy,
        customer_key: str,
        generations: Mapping[str, str] | None = None,
    ) -> StreamPlan:
        """Plan stream views and segments.

        Args:
            catalog: The repo's definitions.
            transforms: Transformation by view; a view without one takes the events' own columns.
            policy: For its segments.
            customer_key: Join key of the entity that events belong to.
            generations: Of the views that are fed (`streaming/generations.py`); segments read what the store has of
                the others. None for all views, as they are first built.

        Raises:
            NoCustomerView: There is nothing that takes events.
            WindowError: If a view's windows cannot be computed; lists all problems.
        """
        segment_views = {segment.view for segment in policy.segments}
        fed = [view for view in catalog.views if view.stream and view.tag("waypost.role") != "segments"]
        stored = [view for view in catalog.views if view.name in segment_views]
        # Views with the same join keys share an entity, in whatever order they name them.
        key_sets = {_identity(view): view.join_keys for view in (*fed, *stored)}
        if (customer_key,) not in key_sets:
            message = f"no stream view is keyed by the customer alone ({customer_key}); define one"
            raise NoCustomerView(message)
        kinds = []
        for names, join_keys in key_sets.items():
            keys = EntityKeys(catalog.project, join_keys)
            plans = tuple(
                _view_plan(view, transforms, keys, customer_key, (generations or {}).get(view.name, ""))
                for view in fed
                if _identity(view) == names and (generations is None or view.name in generations)
            )
            segments_view = next((view for view in stored if _identity(view) == names), None)
            segments = [
                segment for segment in policy.segments if segments_view and segment.view == segments_view.name
            ]
            kinds.append(
                EntityKind(
                    name=",".join(names),
                    keys=keys,
                    key_names=names,
                    views=plans,
                    segments=_ordered(segments),
                    segments_view=ViewPlan(segments_view, None, None, keys, customer_key, segments_view.name)
                    if segments_view
                    else None,
                    borrowed=_borrowed(segments, {plan.view.name for plan in plans}),
                    catalog=catalog,
                )
            )
        customer = next(kind for kind in kinds if kind.key_names == (customer_key,))
        return StreamPlan(project=catalog.project, kinds=tuple(kinds), customer=customer)

    @property
    def shown(self) -> tuple[View, ...]:
        """All views that are written online, and offline where they have a source for it."""
        return tuple(plan.view for kind in self.kinds for plan in kind.shown)

    @cached_property
    def kind_by_name(self) -> dict[str, EntityKind]:
        return {kind.name: kind for kind in self.kinds}

    @cached_property
    def _views(self) -> tuple[ViewPlan, ...]:
        return tuple(plan for kind in self.kinds for plan in kind.views)

    @cached_property
    def _are_several(self) -> bool:
        return len({plan.transform for plan in self._views}) > 1

    def rows(self, events: SourceEvents) -> dict[str, ViewRows]:
        """What each view's transformation makes of events; views that share one have it run once.

        Where there are several, each has a frame of its own, which it may change in place.

        Raises:
            TransformError: As `ViewPlan.rows`.
        """
        made: dict[Transform | None, Transformed] = {}
        rows: dict[str, ViewRows] = {}
        for plan in self._views:
            if plan.transform not in made:
                own = replace(events, frame=_own(events.frame)) if self._are_several else events
                made[plan.transform] = plan.transformed(own)
            rows[plan.view.name] = plan.rows(made[plan.transform])
        return rows


def _own(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy that has its names for itself too."""
    copy = frame.copy()
    copy.columns = copy.columns.copy(deep=True)
    return copy


def _identity(view: View) -> tuple[str, ...]:
    return tuple(sorted(view.key_names))


def stored_name(view: str, generation: str) -> str:
    """The name under which states keep a view: another one each time that it is built anew."""
    return f"{view}@{generation}" if generation else view


def _view_plan(
    view: View, transforms: Mapping[str, Transform], keys: EntityKeys, customer_key: str, generation: str
) -> ViewPlan:
    stored = stored_name(view.name, generation)
    return ViewPlan(
        view=view,
        transform=transforms.get(view.name),
        windows=replace(WindowPlan.compile(view), view=stored) if view.aggregations else None,
        keys=keys,
        customer_key=customer_key,
        stored=stored,
    )


def _ordered(segments: Sequence[Segment]) -> tuple[SegmentPlan, ...]:
    by_name = {f"{segment.view}.{segment.name}": segment for segment in segments}
    reads = {
        name: {ref for ref in references(segment.condition) if ref in by_name}
        for name, segment in by_name.items()
    }
    order = graphlib.TopologicalSorter(reads).static_order()
    return tuple(_segment_plan(by_name[name]) for name in order)


def _segment_plan(segment: Segment) -> SegmentPlan:
    return SegmentPlan(
        name=segment.name,
        condition=segment.condition,
        evaluate=prepare(segment.condition),
        follows_time=uses_now(segment.condition),
        dwell_us=segment.dwell_us,
    )


def _borrowed(segments: Sequence[Segment], own_views: set[str]) -> tuple[FeatureRef, ...]:
    refs = sorted({name for segment in segments for name in references(segment.condition)})
    pairs = [name.split(".", 1) for name in refs]
    own = own_views | {segment.view for segment in segments}
    return tuple(FeatureRef(view=view, feature=feature) for view, feature in pairs if view not in own)
