"""Exploration over the best scored offers, with the propensity of each to come first in closed form.

Draws are a counter-based hash of (seed, offer name), so an offer's draw depends neither on the other candidates nor on
their order, and a replay with the same seed draws the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from decision.policy import Exploration, Explore

_COIN: Final = b"coin"
_OFFER: Final = b"offer"
_SEED_BYTES: Final = 8
_DRAW_BITS: Final = 52  # one fewer than a double holds, so that adding a half stays exact and below 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """An order of the offers and what it was drawn from.

    Attributes:
        order: Indices into the greedy order, best first.
        propensity: `propensity[i]` is the probability that offer i of the greedy order comes first; they sum to 1.
    """

    order: tuple[int, ...]
    propensity: tuple[float, ...]


def explore(names: Sequence[str], scores: Sequence[float], how: Explore, seed: int) -> Explored:
    """Reorder the best `how.top_k` offers; those below stay where they are.

    Epsilon-greedy puts a uniformly drawn one of the top k (the greedy one included) first with probability ε. Softmax
    sorts by score / temperature + Gumbel noise, so that the whole order of the top k follows Plackett–Luce.

    Args:
        names: Offers in greedy order, best first, all different.
        scores: Their finite scores, descending.
        how: Kind, top k (≥ 1) and parameter: ε in [0, 1], or a temperature above 0.
        seed: Unsigned 64-bit seed of the draws.
    """
    count = len(names)
    k = min(how.top_k, count)
    if k < 2:
        return _greedy(count)
    match how.kind:
        case Exploration.NONE:
            return _greedy(count)
        case Exploration.EPSILON_GREEDY:
            return _epsilon_greedy(names, how.parameter, k, seed)
        case Exploration.SOFTMAX:
            return _softmax(names, scores, how.parameter, k, seed)
        case _:
            assert_never(how.kind)


def draw(seed: int, stream: bytes, name: str) -> float:
    """A uniform draw from the open interval (0, 1), a pure function of its arguments."""
    text = b"\0".join((seed.to_bytes(_SEED_BYTES, "big"), stream, name.encode()))
    word = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return ((word >> (64 - _DRAW_BITS)) + 0.5) / 2.0**_DRAW_BITS


def _greedy(count: int) -> Explored:
    return Explored(order=tuple(range(count)), propensity=(1.0, *[0.0] * (count - 1)) if count else ())


def _epsilon_greedy(names: Sequence[str], epsilon: float, k: int, seed: int) -> Explored:
    first = 0
    if draw(seed, _COIN, "") < epsilon:
        first = max(range(k), key=lambda index: draw(seed, _OFFER, names[index]))
    order = (first, *(index for index in range(len(names)) if index != first))
    share = epsilon / k
    propensity = (1.0 - epsilon + share, *[share] * (k - 1), *[0.0] * (len(names) - k))
    return Explored(order=order, propensity=propensity)


def _softmax(
    names: Sequence[str], scores: Sequence[float], temperature: float, k: int, seed: int
) -> Explored:
    logits = [(score - scores[0]) / temperature for score in scores[:k]]
    noisy = [logit + _gumbel(draw(seed, _OFFER, name)) for logit, name in zip(logits, names, strict=False)]
    top = sorted(range(k), key=lambda index: (-noisy[index], index))
    weights = [math.exp(logit) for logit in logits]
    total = math.fsum(weights)
    propensity = (*(weight / total for weight in weights), *[0.0] * (len(names) - k))
    return Explored(order=(*top, *range(k, len(names))), propensity=propensity)


def _gumbel(uniform: float) -> float:
    return -math.log(-math.log(uniform))
