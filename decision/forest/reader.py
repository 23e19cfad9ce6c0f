"""The model document as a checked description: everything but the trees' flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.forest.document import HalfwayDecimalError, Node, decode_document, float32_of_text
from decision.forest.errors import ModelFormatError, UnsupportedModelError
from decision.forest.objectives import Link, Transform, link_and_transform
from decision.forest.trees import Tree, read_tree

MAX_FEATURES: Final = 1 << 16
MAX_GROUPS: Final = 4096
MAJOR_VERSIONS: Final = (2, 3)
"""Formats whose margins are tested; another one is refused, not guessed."""

Category = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDocument:
    """A model file's content, checked.

    Attributes:
        base_score: float32[g], as stored, before the objective's link.
        tree_group: int64[t], the group each tree adds to.
        tree_weight: float32[t], dart's weights; ones otherwise.
        iteration_start: int64, first tree of every boosting round and one past the last.
        categories: By feature name, in the order of their codes.
    """

    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    objective: str
    link: Link
    transform: Transform
    base_score: NDArray[np.float32]
    dart: bool
    trees: tuple[Tree, ...]
    tree_group: NDArray[np.int64]
    tree_weight: NDArray[np.float32]
    iteration_start: NDArray[np.int64]
    best_iteration: int | None
    categories: Mapping[str, tuple[Category, ...]]


def read_model(data: bytes) -> ModelDocument:
    """Read a model saved as UBJSON or JSON.

    Raises:
        ModelFormatError: Malformed, cut short or contradictory; the message names the field.
        UnsupportedModelError: Sound, but not reproducible to the bit.
    """
    try:
        return _read(decode_document(data))
    except HalfwayDecimalError:
        return _read(decode_document(data, exact=True))


def _read(root: Node) -> ModelDocument:
    _check_version(root["version"])
    learner = root["learner"]
    param = learner["learner_model_param"]
    names, types = _features(learner, param["num_feature"].count(most=MAX_FEATURES))
    objective = learner["objective"]["name"].text()
    link, transform = link_and_transform(objective)
    base_score = _base_score(param, link, _group_count(param))
    booster, dart = _booster(learner["gradient_booster"])
    model = booster["model"]
    trees = tuple(read_tree(node, len(names)) for node in model["trees"].items())
    if not trees and link is not Link.IDENTITY and _estimates_base_score(param):
        raise UnsupportedModelError(
            f"{param.path}: the model has no trees and no base score: XGBoost would take its 0.5 for a margin"
        )
    return ModelDocument(
        feature_names=names,
        feature_types=types,
        objective=objective,
        link=link,
        transform=transform,
        base_score=base_score,
        dart=dart,
        trees=trees,
        tree_group=_tree_groups(model, len(trees), len(base_score)),
        tree_weight=_tree_weights(learner["gradient_booster"], dart, len(trees)),
        iteration_start=_iteration_starts(model, len(trees), len(base_score)),
        best_iteration=_best_iteration(learner),
        categories=_categories(model, names),
    )


def _check_version(node: Node) -> None:
    version = node.int64s()
    if len(version) != 3:
        raise node.error("three numbers expected")
    if version[0] not in MAJOR_VERSIONS:
        raise UnsupportedModelError(f"{node.path}: format {version[0]} is not one of {MAJOR_VERSIONS}")


def _features(learner: Node, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and types; a model trained without them gets XGBoost's `f0`, `f1`, … and `float`."""
    names = tuple(node.text() for node in _optional_items(learner, "feature_names"))
    types = tuple(node.text() for node in _optional_items(learner, "feature_types"))
    for what, given in (("feature_names", names), ("feature_types", types)):
        if given and len(given) != count:
            raise learner.error(f"{what} has {len(given)} entries for {count} features")
    if len(set(names)) != len(names):
        raise learner["feature_names"].error("a name occurs twice")
    return names or tuple(f"f{i}" for i in range(count)), types or ("float",) * count


def _optional_items(node: Node, name: str) -> list[Node]:
    return node[name].items() if node.has(name) else []


def _group_count(param: Node) -> int:
    classes = param["num_class"].count(most=MAX_GROUPS)
    targets = param["num_target"].count(most=MAX_GROUPS) if param.has("num_target") else 1
    if classes > 1 and targets > 1:
        raise UnsupportedModelError(f"{param.path}: several classes and several targets at once")
    return max(classes, targets, 1)


def _base_score(param: Node, link: Link, groups: int) -> NDArray[np.float32]:
    """One score per group; formats before 3.1 store one for all."""
    node = param["base_score"]
    try:
        parts = [float32_of_text(part) for part in node.text().strip().strip("[]").split(",")]
    except ValueError:
        raise node.error(f"numbers expected, not {node.text()[:40]!r}") from None
    if len(parts) not in (1, groups):
        raise node.error(f"{len(parts)} scores for {groups} groups")
    scores = np.array(parts if len(parts) == groups else parts * groups, np.float32)
    in_range = {
        Link.IDENTITY: np.isfinite(scores),
        Link.LOGIT: (scores > 0) & (scores < 1),
        Link.LOG: (scores > 0) & np.isfinite(scores),
    }
    if not np.all(in_range[link]):
        raise node.error(f"{node.text()[:40]!r} is not in the range of the objective")
    return scores


def _estimates_base_score(param: Node) -> bool:
    """Whether training was to find the base score; formats that do not say so always had one."""
    return param.has("boost_from_average") and param["boost_from_average"].count() != 0


def _booster(node: Node) -> tuple[Node, bool]:
    name = node["name"].text()
    if name == "gbtree":
        return node, False
    if name == "dart":
        return node["gbtree"], True
    raise UnsupportedModelError(f"{node.path}: booster {name!r} is not supported; gbtree and dart are")


def _tree_groups(model: Node, trees: int, groups: int) -> NDArray[np.int64]:
    info = model["tree_info"].int64s()
    if len(info) != trees or np.any((info < 0) | (info >= groups)):
        raise model["tree_info"].error(f"{trees} numbers in [0, {groups}) expected")
    return info


def _tree_weights(booster: Node, dart: bool, trees: int) -> NDArray[np.float32]:
    if not dart:
        return np.ones(trees, np.float32)
    weights = booster["weight_drop"].float32s()
    if len(weights) != trees or not np.all(np.isfinite(weights)):
        raise booster["weight_drop"].error(f"{trees} finite numbers expected")
    if not trees:
        raise UnsupportedModelError(f"{booster.path}: XGBoost cannot score a dart model without trees")
    return weights


def _iteration_starts(model: Node, trees: int, groups: int) -> NDArray[np.int64]:
    if not model.has("iteration_indptr"):
        per_round = groups * max(model["gbtree_model_param"]["num_parallel_tree"].count(), 1)
        if trees % per_round:
            raise model.error(f"{trees} trees are not whole rounds of {per_round}")
        return np.arange(0, trees + 1, per_round)
    starts = model["iteration_indptr"].int64s()
    if not len(starts) or starts[0] != 0 or starts[-1] != trees or np.any(np.diff(starts) < 0):
        raise model["iteration_indptr"].error(f"rising numbers from 0 to {trees} expected")
    return starts


def _best_iteration(learner: Node) -> int | None:
    if not learner.has("attributes") or not learner["attributes"].has("best_iteration"):
        return None
    return learner["attributes"]["best_iteration"].count()


def _categories(model: Node, names: tuple[str, ...]) -> Mapping[str, tuple[Category, ...]]:
    if not model.has("cats"):
        return MappingProxyType({})
    encodings = model["cats"]["enc"].items()
    if encodings and len(encodings) != len(names):
        raise model["cats"]["enc"].error(f"{len(names)} entries expected")
    read = {name: _category_values(node) for name, node in zip(names, encodings, strict=False)}
    return MappingProxyType({name: values for name, values in read.items() if values})


def _category_values(node: Node) -> tuple[Category, ...]:
    values = _category_texts(node) if node.has("offsets") else tuple(node["values"].int64s().tolist())
    if len(set(values)) != len(values):
        raise _mangled(node, "two categories are the same")
    return values


def _category_texts(node: Node) -> tuple[str, ...]:
    """Strings as UTF-8, cut at offsets."""
    offsets = node["offsets"].int64s()
    text = (node["values"].int64s() & 0xFF).astype(np.uint8).tobytes()
    if len(offsets) and (offsets[0] != 0 or offsets[-1] != len(text) or np.any(np.diff(offsets) < 0)):
        raise node["offsets"].error(f"rising numbers from 0 to {len(text)} expected")
    bounds = offsets.tolist()
    try:
        return tuple(text[start:stop].decode() for start, stop in pairwise(bounds))
    except UnicodeDecodeError:
        raise _mangled(node, "a category is not UTF-8") from None


def _mangled(node: Node, what: str) -> ModelFormatError:
    return node.error(
        f"{what}; XGBoost cuts non-ASCII categories of pandas frames short, train from an Arrow table instead"
    )
