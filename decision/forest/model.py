"""A loaded forest: margins, predictions and attributions of float32 rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest import kernels
from decision.forest.encoding import Encoded, encode_columns
from decision.forest.errors import ForestInputError
from decision.forest.layout import Layout, lay_out
from decision.forest.objectives import Transform
from decision.forest.reader import Category, ModelDocument, read_model
from decision.schema import Value

Float32s = NDArray[np.float32]

_FLOAT32: Final = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forest:
    """An XGBoost model, immutable and safe to share between threads.

    Attributes:
        feature_names: In the order of a row's columns; `f0`, `f1`, … where the model has none.
        feature_types: XGBoost's words: float, int, i (indicator), q, c (categorical).
        objective: XGBoost's name, for example `binary:logistic`.
        group_count: Outputs per row: classes or targets, otherwise 1.
        iteration_count: Boosting rounds.
        best_iteration: The round early stopping found best; margins use all rounds unless told otherwise.
        categories: Values of categorical features in the order of their codes, where the model stores them.
        content_hash: SHA-256 of the model file, in hex.
    """

    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    objective: str
    group_count: int
    iteration_count: int
    best_iteration: int | None
    categories: Mapping[str, tuple[Category, ...]]
    content_hash: str
    _codes: Mapping[str, Mapping[Category, int]] = field(repr=False)
    _transform: Transform = field(repr=False)
    _dart: bool = field(repr=False)
    _iteration_start: tuple[int, ...] = field(repr=False)
    _base: Float32s = field(repr=False)
    _layout: Layout = field(repr=False)

    def margins(self, rows: Float32s, iteration_range: tuple[int, int] | None = None) -> Float32s:
        """Score rows, bit-identical to `Booster.inplace_predict(predict_type="margin")`.

        Args:
            rows: float32[n, f], NaN for missing; categorical features hold their codes.
            iteration_range: Rounds [begin, end); an end of 0 means all, as does None.

        Returns:
            float32[n, group_count].

        Raises:
            ForestInputError: Another shape or type, or rounds the model does not have.
        """
        rows = self._checked(rows)
        begin, end = self._trees_between(iteration_range)
        out = np.empty((len(rows), self.group_count), np.float32)
        kernels.add_margins_now(rows, self._layout.nodes, self._layout.table, begin, end, out)
        return out

    def predict(self, rows: Float32s, iteration_range: tuple[int, int] | None = None) -> Float32s:
        """Score rows and apply the objective's transform, within 1 ulp of XGBoost.

        Returns:
            float32[n, group_count]: probabilities, counts or scores; for `multi:softmax` float32[n, 1], the class.

        Raises:
            ForestInputError: As for `margins`.
        """
        margins = self.margins(rows, iteration_range)
        kernels.transform(margins, int(self._transform))
        return margins[:, :1] if self._transform is Transform.ARGMAX else margins

    def contributions(self, rows: Float32s, iteration_range: tuple[int, int] | None = None) -> Float32s:
        """Attribute margins to features: exact path-dependent TreeSHAP, as XGBoost's `pred_contribs`.

        Costs thousands of times a margin: for explanations that somebody asked for.

        Returns:
            float32[n, group_count, f + 1]: one value per feature, last the mean prediction; they sum to the margin.

        Raises:
            ForestInputError: As for `margins`, or the model has no cover statistics to attribute by.
        """
        rows = self._checked(rows)
        begin, end = self._trees_between(iteration_range)
        paths, table = self._layout.paths, self._layout.table
        if not paths.sound:
            raise ForestInputError(
                "sum_hessian is not positive and finite everywhere: nothing to attribute by"
            )
        out = np.zeros((len(rows), self.group_count, len(self.feature_names) + 1))
        out[:, :, -1] = self._base
        kernels.add_contributions(
            rows,
            table,
            begin,
            end,
            paths.code,
            paths.feature,
            paths.parent,
            paths.side,
            paths.share,
            paths.value,
            paths.leaves,
            paths.leaf_start,
            paths.depth,
            out,
        )
        with np.errstate(over="ignore"):
            return out.astype(np.float32)

    def codes(self, feature: str) -> Mapping[Category, int] | None:
        """Codes of a feature's values, or None where the model stores no categories of it."""
        return self._codes.get(feature)

    def encode(self, columns: Sequence[Sequence[Value]]) -> Encoded:
        """Turn Python values into rows.

        Args:
            columns: One sequence per feature in the order of `feature_names`, all of one length. None and NaN are
                missing, bools 0 and 1, numbers rounded once to float32. Where the model stores a feature's
                categories, values are looked up in them and an unseen one is missing. Timestamps have no
                meaning here: training turns them into ages.

        Returns:
            The matrix, and the unseen (feature, value) pairs.

        Raises:
            ForestInputError: Wrong number of columns, uneven lengths, or a value that is not a number or category.
        """
        return encode_columns(self.feature_names, self._codes, columns)

    def _checked(self, rows: Float32s) -> Float32s:
        if rows.dtype != _FLOAT32 or rows.ndim != 2 or rows.shape[1] != len(self.feature_names):
            raise ForestInputError(
                f"rows must be float32[n, {len(self.feature_names)}], not {rows.dtype}{list(rows.shape)}"
            )
        return rows if rows.flags.carray else np.require(rows, requirements=["C", "A"])

    def _trees_between(self, iteration_range: tuple[int, int] | None) -> tuple[int, int]:
        if iteration_range is None:
            return 0, self._iteration_start[-1]
        begin, end = iteration_range
        end = end or self.iteration_count
        if not 0 <= begin <= end <= self.iteration_count or (self._dart and begin == end):
            raise ForestInputError(
                f"rounds {iteration_range} are not within the model's {self.iteration_count}"
            )
        return self._iteration_start[begin], self._iteration_start[end]


def load_forest(data: bytes) -> Forest:
    """Load a model saved by XGBoost, as UBJSON or JSON.

    Args:
        data: The bytes of the file.

    Raises:
        ModelFormatError: Malformed, cut short or contradictory.
        UnsupportedModelError: Margins could not be reproduced to the bit.
    """
    with np.errstate(
        all="ignore"
    ):  # what overflows or is NaN is refused or ignored by name, not by a warning
        return _forest_of(read_model(data), hashlib.sha256(data).hexdigest())


def _forest_of(document: ModelDocument, content_hash: str) -> Forest:
    base = _base_margins(document)
    leaves = _leaf_margins(document, base)
    return Forest(
        feature_names=document.feature_names,
        feature_types=document.feature_types,
        objective=document.objective,
        group_count=len(document.base_score),
        iteration_count=len(document.iteration_start) - 1,
        best_iteration=document.best_iteration,
        categories=document.categories,
        content_hash=content_hash,
        _codes={
            name: {value: code for code, value in enumerate(values)}
            for name, values in document.categories.items()
        },
        _transform=document.transform,
        _dart=document.dart,
        _iteration_start=tuple(document.iteration_start.tolist()),
        _base=base,
        _layout=lay_out(document.trees, leaves, document.tree_group, base, len(document.feature_names)),
    )


def _base_margins(document: ModelDocument) -> Float32s:
    return np.array([kernels.link(score, int(document.link)) for score in document.base_score], np.float32)


def _leaf_margins(document: ModelDocument, base: Float32s) -> list[Float32s]:
    """What each leaf adds; for dart in the order of operations of XGBoost's `inplace_predict`."""
    if not document.dart:
        return [tree.value for tree in document.trees]
    start = base[document.tree_group]
    return [
        ((start[t] + tree.value) - start[t]) * document.tree_weight[t]
        for t, tree in enumerate(document.trees)
    ]
