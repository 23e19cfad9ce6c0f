"""K-Means centroids: which one a row of features is nearest to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import float32, float64, int64, njit, types, void
from numpy.typing import NDArray

from decision.errors import ModelFileError

CENTROIDS_MAX: Final = 100
FEATURES_MAX: Final = 1_000

_ROWS = types.Array(float32, 2, "C", readonly=True)
_SCALES = types.Array(float64, 1, "C", readonly=True)
_POINTS = types.Array(float64, 2, "C", readonly=True)


@njit(
    [
        void(
            _ROWS,
            _SCALES,
            _SCALES,
            _POINTS,
            types.Array(int64, 1, "C"),
            types.Array(float64, 1, "C"),
        )
    ],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def find_nearest(rows, means, deviations, points, nearest, distances):  # type: ignore[no-untyped-def]
    """Write each row's nearest point and the squared distance to it; -1 and 0 where a row has no finite value.

    A value that is missing or infinite tells no distance and is skipped. Of equally near points the first counts.

    Args:
        rows: float32[n, f], NaN for missing.
        means: float64[f].
        deviations: float64[f], above 0.
        points: float64[k, f], scaled.
        nearest: int64[n].
        distances: float64[n].
    """
    for i in range(rows.shape[0]):
        nearest[i] = -1
        distances[i] = 0.0
        known = 0
        for j in range(rows.shape[1]):
            known += math.isfinite(rows[i, j])
        if known == 0:
            continue
        for k in range(points.shape[0]):
            distance = 0.0
            for j in range(rows.shape[1]):
                if math.isfinite(rows[i, j]):
                    gap = (float64(rows[i, j]) - means[j]) / deviations[j] - points[k, j]
                    distance += gap * gap
            if k == 0 or distance < distances[i]:
                nearest[i] = k
                distances[i] = distance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Centroids:
    """Centroids with the scale that they were found on, immutable.

    Attributes:
        feature_names: In the order of a row's columns.
        means: float64[f], subtracted from a row.
        deviations: float64[f], what the rest is divided by.
        points: float64[k, f], the centroids, scaled so.
    """

    feature_names: tuple[str, ...]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    points: NDArray[np.float64]

    def nearest(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """int64[n], the nearest centroid of each row, -1 where nothing is known; float64[n], squared distances."""
        nearest, distances = np.empty(len(rows), np.int64), np.empty(len(rows), np.float64)
        find_nearest(rows, self.means, self.deviations, self.points, nearest, distances)
        return nearest, distances

    def codes(self, _feature: str) -> Mapping[Any, int] | None:
        """None: texts have no distance."""
        return None

    def to_bytes(self) -> bytes:
        """The model file; the same centroids give the same bytes."""
        document = {
            "features": self.feature_names,
            "means": self.means.tolist(),
            "deviations": self.deviations.tolist(),
            "centroids": self.points.tolist(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def load_centroids(data: bytes) -> Centroids:
    """Read what `Centroids.to_bytes` wrote.

    Raises:
        ModelFileError: Malformed, out of bounds, or a number is not finite.
    """
    try:
        document = json.loads(data)
        names = tuple(map(str, document["features"]))
        means, deviations, points = (
            np.array(document[part], np.float64) for part in ("means", "deviations", "centroids")
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f"no file of centroids: {error!r}") from error
    count = len(points) if points.ndim else 0
    if not 1 <= count <= CENTROIDS_MAX or not 1 <= len(names) <= FEATURES_MAX:
        raise ModelFileError(
            f"{count} centroids of {len(names)} features: 1 to {CENTROIDS_MAX} of 1 to {FEATURES_MAX} are allowed"
        )
    if (means.shape, deviations.shape, points.shape) != ((len(names),), (len(names),), (count, len(names))):
        raise ModelFileError(f"means, deviations and centroids are not of {len(names)} features")
    finite = all(np.isfinite(part).all() for part in (means, deviations, points))
    if not finite or not (deviations > 0).all():
        raise ModelFileError("means and centroids must be finite, deviations finite and above 0")
    return Centroids(feature_names=names, means=means, deviations=deviations, points=points)
