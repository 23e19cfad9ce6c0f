"""What an XGBoost objective does to the base score and to the margins."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final

from decision.forest.errors import UnsupportedModelError


class Transform(enum.IntEnum):
    """From margins to predictions; the kernels switch on these numbers."""

    IDENTITY = 0
    SIGMOID = 1
    EXP = 2
    STEP = 3
    SOFTMAX = 4
    ARGMAX = 5


class Link(enum.IntEnum):
    """From the stored base score to the margin every row starts with."""

    IDENTITY = 0
    LOGIT = 1
    LOG = 2


_OBJECTIVES: Final = MappingProxyType(
    {
        "reg:squarederror": (Link.IDENTITY, Transform.IDENTITY),
        "reg:linear": (Link.IDENTITY, Transform.IDENTITY),
        "reg:squaredlogerror": (Link.IDENTITY, Transform.IDENTITY),
        "reg:pseudohubererror": (Link.IDENTITY, Transform.IDENTITY),
        "reg:absoluteerror": (Link.IDENTITY, Transform.IDENTITY),
        "reg:quantileerror": (Link.IDENTITY, Transform.IDENTITY),
        "reg:logistic": (Link.LOGIT, Transform.SIGMOID),
        "reg:gamma": (Link.LOG, Transform.EXP),
        "reg:tweedie": (Link.LOG, Transform.EXP),
        "count:poisson": (Link.LOG, Transform.EXP),
        "survival:cox": (Link.LOG, Transform.EXP),
        "survival:aft": (Link.LOG, Transform.EXP),
        "binary:logistic": (Link.LOGIT, Transform.SIGMOID),
        "binary:logitraw": (Link.IDENTITY, Transform.IDENTITY),
        "binary:hinge": (Link.IDENTITY, Transform.STEP),
        "multi:softprob": (Link.IDENTITY, Transform.SOFTMAX),
        "multi:softmax": (Link.IDENTITY, Transform.ARGMAX),
        "rank:ndcg": (Link.IDENTITY, Transform.IDENTITY),
        "rank:map": (Link.IDENTITY, Transform.IDENTITY),
        "rank:pairwise": (Link.IDENTITY, Transform.IDENTITY),
    }
)


def link_and_transform(objective: str) -> tuple[Link, Transform]:
    """Look an objective up by XGBoost's name.

    Raises:
        UnsupportedModelError: Not one of those that are tested against XGBoost.
    """
    if objective not in _OBJECTIVES:
        known = ", ".join(sorted(_OBJECTIVES))
        raise UnsupportedModelError(f"objective {objective!r} is not supported; these are: {known}")
    return _OBJECTIVES[objective]
