"""The draws of exploration in plain Python: integers of any size, and the C library's functions."""

from __future__ import annotations

import hashlib
import math

COIN, OFFER, SUCCESSES, FAILURES = range(4)
"""What a draw is for."""
_WORD = 2**64


def key_of(name: str) -> int:
    """What an offer's draws are told apart by."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)


def philox(seed: int, key: int, stream: int, index: int) -> list[int]:
    """Philox4x64-10: four words from key (seed, 0) and counter (key, index, stream, 0)."""
    x = [key, index, stream, 0]
    k = [seed, 0]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [b // _WORD ^ x[1] ^ k[0], b % _WORD, a // _WORD ^ x[3] ^ k[1], a % _WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) % _WORD, (k[1] + 0xBB67AE8584CAA73B) % _WORD]
    return x


def uniform(word: int) -> float:
    """The middle of one of 2⁵² equal parts of (0, 1)."""
    return (word // 2**12 + 0.5) / 2**52


def draw(seed: int, key: int, stream: int) -> float:
    """One uniform draw."""
    return uniform(philox(seed, key, stream, 0)[0])


def gumbel(seed: int, name: str) -> float:
    """An offer's Gumbel noise."""
    return -math.log(-math.log(draw(seed, key_of(name), OFFER)))


def beta(seed: int, name: str, a: float, b: float) -> float:
    """An offer's Beta(a, b) draw: of two Gamma draws the share of the first."""
    x, y = _gamma(seed, name, SUCCESSES, a), _gamma(seed, name, FAILURES, b)
    return x / (x + y)


def _gamma(seed: int, name: str, stream: int, shape: float) -> float:
    """Marsaglia and Tsang; a shape below 1 by the draw of one more, scaled."""
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    trial = 0
    while True:
        u = list(map(uniform, philox(seed, key_of(name), stream, trial)))
        normal = math.sqrt(-2 * math.log(u[0])) * math.cos(2 * math.pi * u[1])
        v = (1 + normal / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(u[2]) < normal**2 / 2 + d - d * v + d * math.log(v):
            return d * v if shape >= 1 else d * v * u[3] ** (1 / shape)
        trial += 1
