"""K-Means: centroids of rows by Lloyd's rounds, from spread-out starts, the best of several.

Distances are those that serving measures (`decision.centroids`): over scaled features, skipping what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decision.centroids import Centroids
from training.errors import DatasetError

Float64s = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """What was found.

    Attributes:
        shares: float64[k], parts of the rows.
        explained: The part of the squared distances to the mean that the centroids take away.
        row_count: Rows in which something was known.
    """

    centroids: Centroids
    shares: Float64s
    explained: float
    row_count: int

    def sorted_by(self, column: int) -> Clusters:
        """The same, in ascending order of one feature of the centroids."""
        order = np.argsort(self.centroids.points[:, column], kind="stable")
        return Clusters(
            centroids=_moved(self.centroids, self.centroids.points[order]),
            shares=self.shares[order],
            explained=self.explained,
            row_count=self.row_count,
        )


def find_clusters(
    names: tuple[str, ...],
    rows: NDArray[np.float32],
    count: int,
    *,
    seed: int = 0,
    restarts: int = 8,
    max_rounds: int = 100,
) -> Clusters:
    """Find `count` centroids; the same rows and seed give the same ones.

    Args:
        names: Of the features.
        rows: float32[n, f], NaN for missing; infinite values count as missing.
        count: At least 1.
        seed: Of the starts.
        restarts: Searches, of which the one with the least squared distances counts.
        max_rounds: Of one search.

    Raises:
        DatasetError: If a feature is never known, or fewer rows than centroids are.
    """
    rows = np.ascontiguousarray(rows[np.isfinite(rows).any(axis=1)])
    if len(rows) < count:
        raise DatasetError(f"{len(rows)} rows with a value are too few for {count} clusters")
    scale = _scale(names, rows)
    rng = np.random.default_rng(seed)
    found = [_search(scale, rows, _start(scale, rows, count, rng), max_rounds) for _ in range(restarts)]
    best, distance = min(found, key=lambda item: item[1])
    total = float(scale.nearest(rows)[1].sum())
    members = np.bincount(best.nearest(rows)[0], minlength=count)
    return Clusters(
        centroids=best,
        shares=members / len(rows),
        explained=1 - distance / total if total else 0.0,
        row_count=len(rows),
    )


def _scale(names: tuple[str, ...], rows: NDArray[np.float32]) -> Centroids:
    """One centroid, the mean: what all distances are measured with. A feature that never varies is only centred."""
    known = np.where(np.isfinite(rows), rows.astype(np.float64), np.nan)
    for name, there in zip(names, np.isfinite(known.T), strict=True):
        if not there.any():
            raise DatasetError(f"{name} is never known: leave it out of the feature service")
    deviations = np.nanstd(known, axis=0)
    return Centroids(
        feature_names=names,
        means=np.nanmean(known, axis=0),
        deviations=np.where(deviations > 0, deviations, 1.0),
        points=np.zeros((1, len(names))),
    )


def _moved(centroids: Centroids, points: Float64s) -> Centroids:
    return Centroids(
        feature_names=centroids.feature_names,
        means=centroids.means,
        deviations=centroids.deviations,
        points=np.ascontiguousarray(points),
    )


def _scaled(scale: Centroids, rows: NDArray[np.float32]) -> Float64s:
    known = np.where(np.isfinite(rows), rows.astype(np.float64), np.nan)
    scaled: Float64s = (known - scale.means) / scale.deviations
    return scaled


def _start(scale: Centroids, rows: NDArray[np.float32], count: int, rng: np.random.Generator) -> Float64s:
    """Rows, each drawn by its squared distance to those before it; what they lack is the mean."""
    scaled = np.nan_to_num(_scaled(scale, rows))
    points = scaled[[rng.integers(len(rows))]]
    while len(points) < count:
        distances = _moved(scale, points).nearest(rows)[1]
        total = distances.sum()
        chances = distances / total if total else None
        points = np.vstack([points, scaled[rng.choice(len(rows), p=chances)]])
    return points


def _search(
    scale: Centroids, rows: NDArray[np.float32], points: Float64s, max_rounds: int
) -> tuple[Centroids, float]:
    """Move each point to the mean of the rows nearest to it until none moves; an empty one to the farthest row."""
    scaled = _scaled(scale, rows)
    before = None
    for _ in range(max_rounds):
        nearest, distances = _moved(scale, points).nearest(rows)
        if before is not None and (nearest == before).all():
            break
        before = nearest
        points = _means(scaled, points, nearest, distances)
    found = _moved(scale, points)
    return found, float(found.nearest(rows)[1].sum())


def _means(scaled: Float64s, points: Float64s, nearest: NDArray[np.int64], distances: Float64s) -> Float64s:
    moved = points.copy()
    farthest = iter(np.argsort(-distances, kind="stable").tolist())
    for place in range(len(points)):
        members = scaled[nearest == place]
        if not len(members):
            moved[place] = np.nan_to_num(scaled[next(farthest)])
            continue
        known = np.isfinite(members)
        counts = known.sum(axis=0)
        sums = np.where(known, members, 0.0).sum(axis=0)
        moved[place] = np.where(counts > 0, sums / np.maximum(counts, 1), points[place])
    return moved
