"""Honest rivals: one feature, and how often the outcome followed similar values of it in the training weeks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_BINS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedRate:
    """Predicts the training rate of the bin that a value falls into; missing values are a bin of their own.

    Attributes:
        edges: Inner edges of the bins, ascending.
        rates: One more than edges, then the rate of missing values.
    """

    edges: np.ndarray
    rates: np.ndarray

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Rates for float64 values, shape (rows,)."""
        predictions: np.ndarray = self.rates[_bins(self.edges, values)]
        return predictions


def fit_binned_rate(values: np.ndarray, labels: np.ndarray) -> BinnedRate:
    """Cut the values at their quantiles and take each bin's rate; empty bins get the overall rate.

    Args:
        values: float64, shape (rows,), NaN for missing.
        labels: 0 or 1, shape (rows,).
    """
    present = values[~np.isnan(values)]
    quantiles = np.quantile(present, np.linspace(0, 1, MAX_BINS + 1)[1:-1]) if len(present) else np.empty(0)
    edges = np.unique(quantiles)
    bins = _bins(edges, values)
    counts = np.bincount(bins, minlength=len(edges) + 2)
    hits = np.bincount(bins, weights=labels, minlength=len(edges) + 2)
    return BinnedRate(edges=edges, rates=np.where(counts, hits / np.maximum(counts, 1), labels.mean()))


def _bins(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    bins: np.ndarray = np.where(
        np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right")
    )
    return bins
