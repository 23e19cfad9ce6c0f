"""The probability that an offer's draw is the greatest: slow and obvious integration over its own quantiles."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_T = np.linspace(-3.2, 3.2, 65)
_AT = 0.5 * (1.0 + np.tanh(0.5 * np.pi * np.sinh(_T)))
_WEIGHT = 0.25 * np.pi * np.cosh(_T) / np.cosh(0.5 * np.pi * np.sinh(_T)) ** 2 * (_T[1] - _T[0])
"""Tanh-sinh: nodes and weights on [0, 1] that do not mind what the integrand does at its ends."""


def first_places(a: list[float], b: list[float], c: list[float]) -> list[float]:
    """P(c_i θ_i is the greatest), θ_i ~ Beta(a_i, b_i).

    It is the mean over u in [0, 1] of the probability that all others stay below i's u-quantile.
    """
    with np.errstate(over="ignore"), warnings.catch_warnings():
        # a quantile that is found less exactly at the very ends moves no integral by 1e-6
        warnings.filterwarnings("ignore", "Error in function boost::math::ibeta", RuntimeWarning)
        return [_first(i, a, b, c) for i in range(len(a))]


def _first(i: int, a: list[float], b: list[float], c: list[float]) -> float:
    ends = [(low, high) for low, high in pairwise([0.0, *_bends(i, a, b, c), 1.0]) if high - low > 1e-12]
    u = np.concatenate([low + (high - low) * _AT for low, high in ends])
    weights = np.concatenate([(high - low) * _WEIGHT for low, high in ends])
    return float(np.sum(weights * _all_below(i, stats.beta.ppf(u, a[i], b[i]) * c[i], a, b, c)))


def _all_below(
    i: int, scores: NDArray[np.float64], a: list[float], b: list[float], c: list[float]
) -> NDArray[np.float64]:
    below = np.ones(len(scores))
    for j in range(len(a)):
        if j != i:
            below *= stats.beta.cdf(np.minimum(1.0, scores / c[j]), a[j], b[j])
    return below


def _bends(i: int, a: list[float], b: list[float], c: list[float]) -> list[float]:
    """Where the integrand may bend: u at which i's score meets another's greatest score or its bulk."""
    scores = list(c)
    for aj, bj, cj in zip(a, b, c, strict=True):
        mean, spread = stats.beta.mean(aj, bj), stats.beta.std(aj, bj)
        scores += [cj * (mean + step * spread) for step in (-6, -3, -1, 0, 1, 3, 6)]
    return sorted(stats.beta.cdf(np.clip(np.array(scores) / c[i], 0.0, 1.0), a[i], b[i]).tolist())
