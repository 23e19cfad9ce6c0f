"""The plan of the stream: which views are fed, for which entities, by which transformation and windows.

Compiled once from the catalog and the policy; nothing is looked up by name while events flow.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from decision.lang.interpreter import prepare
from decision.lang.syntax import Expr, references, uses_now
from decision.policy import Policy, Segment
from decision.schema import Catalog, FeatureRef, Value, View
from online.errors import KeyEncodingError
from online.keys import EntityKeys, feature_field
from online.values import decoder
from online.view_words import ViewWords
from streaming.errors import StreamingError, TransformError
from streaming.windows.plan import WindowPlan

Transform = Callable[[pd.DataFrame], pd.DataFrame]
Evaluate = Callable[[Mapping[str, Value], int], Value]


@dataclass(frozen=True)
class ViewRows:
    """What a view's transformation made of a batch of events.

    Attributes:
        frame: Transformed rows; `event_id` and `event_time` are those of the source event.
        source: Row number of the source event, shape (n,).
        codes: Index into `keys` for each row, int64, shape (n,).
        keys: Distinct entity keys.
    """

    frame: pd.DataFrame
    source: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    keys: list[bytes]


@dataclass(frozen=True)
class ViewPlan:
    """One stream view, ready to be fed."""

    view: View
    transform: Transform | None
    windows: WindowPlan | None
    keys: EntityKeys
    customer_key: str

    def rows(self, events: pd.DataFrame) -> ViewRows:
        """Transform a batch of events and key the rows by entity; rows with a NULL join key are left out.

        The customer's join key is the event's customer where the transformation does not give it.

        Raises:
            TransformError: If the transformation raises, loses the index, or lacks a column.
        """
        frame = events if self.transform is None else self._transformed(events)
        names = list(self.view.key_names)
        if self.customer_key in names and self.customer_key not in frame.columns:
            frame = frame.assign(**{self.customer_key: events["customer_id"].loc[frame.index]})
        missing = [name for name in (*names, *self.columns) if name not in frame.columns]
        if missing:
            raise TransformError(
                f"view {self.view.name}: the transformation returns no column {missing[0]!r}"
            )
        if len(frame) and names:
            frame = frame.loc[frame[names].notna().all(axis=1)]
        source = frame.index.to_numpy(dtype=np.int64)
        frame = frame.assign(
            event_id=events["event_id"].to_numpy()[source],
            event_time=events["event_time"].array[source],
        )
        codes, keys = self._keyed(frame)
        return ViewRows(frame=frame, source=source, codes=codes, keys=keys)

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

    def _transformed(self, events: pd.DataFrame) -> pd.DataFrame:
        assert self.transform is not None
        try:
            frame = self.transform(events)
        except Exception as error:
            raise TransformError(f"view {self.view.name}: the transformation failed: {error!r}") from error
        if not isinstance(frame, pd.DataFrame):
            kind = type(frame).__name__
            raise TransformError(
                f"view {self.view.name}: the transformation returned a {kind}, not a DataFrame"
            )
        if not frame.index.isin(events.index).all():
            raise TransformError(
                f"view {self.view.name}: the transformation must keep the index of the events"
            )
        return frame

    def _keyed(self, frame: pd.DataFrame) -> tuple[npt.NDArray[np.int64], list[bytes]]:
        names = self.view.key_names
        if not names:
            return np.zeros(len(frame), dtype=np.int64), [self.keys.encode({})] if len(frame) else []
        codes, uniques = pd.factorize(frame[names[0]])
        columns = [np.asarray(uniques, dtype=object)]
        if len(names) > 1:
            codes, columns = _composite(frame, names)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        try:
            keys = [self.keys.encode(dict(zip(names, row, strict=True))) for row in rows]
        except KeyEncodingError as error:
            raise TransformError(f"view {self.view.name}: {error}") from error
        return codes.astype(np.int64), keys


def _composite(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.object_]]]:
    parts = [pd.factorize(frame[name]) for name in names]
    mixed = np.zeros(len(frame), dtype=np.int64)
    for part, uniques in parts:
        mixed = mixed * max(len(uniques), 1) + part
    codes, first = np.unique(mixed, return_inverse=True)[1], np.unique(mixed, return_index=True)[1]
    return codes, [frame[name].to_numpy(dtype=object)[first] for name in names]


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
        return {plan.view.name: plan.windows for plan in self.views if plan.windows is not None}

    @cached_property
    def memory_s(self) -> int | None:
        """How long an event can count for something after it: the longest window; None where one has no end."""
        widths = [a.window_s for plan in self.views for a in plan.view.aggregations]
        return None if None in widths else max((width for width in widths if width is not None), default=0)

    @cached_property
    def borrowed_fields(self) -> tuple[tuple[str, bytes, Callable[[bytes], Value]], ...]:
        """Canonical name, hash field and decoder of each borrowed feature."""
        return tuple(
            (str(ref), feature_field(ref.view, ref.feature), decoder(self.catalog.feature(ref).value_type))
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
    ) -> StreamPlan:
        """Plan all stream views and segments.

        Args:
            catalog: The repo's definitions.
            transforms: Transformation by view; a view without one takes the events' own columns.
            policy: For its segments.
            customer_key: Join key of the entity that events belong to.

        Raises:
            WindowError: If a view's windows cannot be computed; lists all problems.
        """
        segment_views = {segment.view for segment in policy.segments}
        fed = [view for view in catalog.views if view.stream and view.tag("waypost.role") != "segments"]
        stored = [view for view in catalog.views if view.name in segment_views]
        # Views with the same join keys share an entity, in whatever order they name them.
        key_sets = {_identity(view): view.join_keys for view in (*fed, *stored)}
        if (customer_key,) not in key_sets:
            message = f"no stream view is keyed by the customer alone ({customer_key}); define one"
            raise StreamingError(message)
        kinds = []
        for names, join_keys in key_sets.items():
            keys = EntityKeys(catalog.project, join_keys)
            plans = tuple(
                _view_plan(view, transforms, keys, customer_key) for view in fed if _identity(view) == names
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
                    segments_view=ViewPlan(segments_view, None, None, keys, customer_key)
                    if segments_view
                    else None,
                    borrowed=_borrowed(segments, {plan.view.name for plan in plans}),
                    catalog=catalog,
                )
            )
        customer = next(kind for kind in kinds if kind.key_names == (customer_key,))
        return StreamPlan(project=catalog.project, kinds=tuple(kinds), customer=customer)

    @cached_property
    def kind_by_name(self) -> dict[str, EntityKind]:
        return {kind.name: kind for kind in self.kinds}


def _identity(view: View) -> tuple[str, ...]:
    return tuple(sorted(view.key_names))


def _view_plan(
    view: View, transforms: Mapping[str, Transform], keys: EntityKeys, customer_key: str
) -> ViewPlan:
    windows = WindowPlan.compile(view) if view.aggregations else None
    transform = transforms.get(view.name)
    return ViewPlan(view=view, transform=transform, windows=windows, keys=keys, customer_key=customer_key)


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
