"""Model segments: the label that a segmentation model tells of a customer, worked out at each decision.

K-Means tells the label of the nearest centroid, a forest of several classes that of the class with the largest margin;
of equals the first counts. Where every input is missing there is no label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decision.centroids import Centroids
from decision.errors import BundleError
from decision.frame import Block, Layout
from decision.record import Degradation
from decision.schema import Catalog, FeatureRef
from decision.scoring import Feed, ModelHandle, plan_columns, plan_feed, unseen_categories

if TYPE_CHECKING:
    from decision.forest import Forest


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelHandle:
    """A loaded segmentation model.

    Attributes:
        features: The features behind the model's columns, in the model's order; all of them the customer's.
        labels: The name of each centroid or class, in the model's order.
        model: Has as many centroids or outputs as there are labels.
    """

    name: str
    version: str
    features: tuple[FeatureRef, ...]
    labels: tuple[str, ...]
    model: Forest | Centroids

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The model's own names of its inputs."""
        return tuple(self.model.feature_names)

    @property
    def output_count(self) -> int:
        """Centroids, or classes."""
        return len(self.model.points) if isinstance(self.model, Centroids) else self.model.group_count

    def codes(self, column: str) -> Mapping[Any, int] | None:
        """Codes of a column's values, or None where the model stores no categories of it."""
        return self.model.codes(column)

    def label(self, rows: NDArray[np.float32]) -> str | None:
        """The label of float32[1, columns]; None where nothing is known or no margin is a number."""
        place = self._place(rows)
        return None if place < 0 else self.labels[place]

    def _place(self, rows: NDArray[np.float32]) -> int:
        if isinstance(self.model, Centroids):
            return int(self.model.nearest(rows)[0][0])
        if np.isnan(rows).all():
            return -1
        margins = self.model.margins(rows)[0]
        return -1 if np.isnan(margins).any() else int(margins.argmax())


Model = ModelHandle | LabelHandle


class Told(NamedTuple):
    """A customer's label, None where nothing is known, and the categories in its inputs that the model never saw."""

    label: str | None
    unseen: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """A model segment that a placement's conditions read; without a handle its label is NULL."""

    model: str
    handle: LabelHandle | None = None
    feed: Feed | None = None

    def tell(self, customer: Block, now_us: int) -> Told:
        """The label of the customer.

        Args:
            customer: Of the plan's layout.
            now_us: The decision's clock, which timestamps' ages count from.
        """
        if self.handle is None or self.feed is None:
            return Told(None, ())
        rows = np.empty((1, len(self.handle.features)), np.float32)
        unseen = self.feed.fill(customer, np.zeros(1, np.int64), now_us, rows)
        return Told(self.handle.label(rows), unseen_categories(self.handle, unseen))


def check_labeller(handle: LabelHandle, catalog: Catalog, customer_views: frozenset[str]) -> None:
    """Refuse a segmentation model that does not fit.

    Raises:
        BundleError: If its labels are not its outputs, or its features are not the customer's, or as `plan_columns`.
    """
    if handle.output_count != len(handle.labels):
        raise BundleError(f"model {handle} names {len(handle.labels)} labels of {handle.output_count}")
    for column in plan_columns(handle, catalog, customer_views):
        if column.per_candidate:
            raise BundleError(
                f"model {handle} reads {column.name}, which is not keyed by the customer alone: it tells no segment"
            )


def plan_label(name: str, handle: LabelHandle | None, catalog: Catalog, customer: Layout) -> LabelPlan:
    """Resolve where the customer's block holds the inputs of a checked model; it holds all of them."""
    if handle is None:
        return LabelPlan(model=name)
    columns = plan_columns(handle, catalog, frozenset(map(_view, handle.features)))
    feed = plan_feed(handle, columns, catalog, customer, per_candidate=False)
    return LabelPlan(model=name, handle=handle, feed=feed)


def _view(ref: FeatureRef) -> str:
    return ref.view
