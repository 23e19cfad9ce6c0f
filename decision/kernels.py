"""The engine's compiled kernels but for rules and forests: assessing, scoring, drawing and ordering candidates.

One file, because a cached kernel is not compiled anew when a function of another file changes.

Legend: `n` considered offers (rows), `m` eligible ones, `o` offers of the plan; `decision.tables` describes the plan's
arrays. `offers` int64[n] names each row's offer; `row_of` int64[o] is its inverse, -1 for offers not considered.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Final

import numpy as np
from numba import boolean, float32, float64, int64, njit, types, uint8, uint64, void
from numpy.typing import NDArray

from decision.policy import SHAPE_LEAST, SHAPE_MOST
from decision.program.gather import PRESENT, STALE
from decision.program.opcodes import TRUE
from decision.schema import Status
from decision.tables import BOOST, EXCLUDE, INCLUDE, PIN, SHOW, TAG

# What is known of a row after `assess`, as bits.
REQUESTED: Final = 1
SHOWN: Final = 2
PINNED: Final = 4
INCLUDED: Final = 8
EXCLUDED: Final = 16
FITS: Final = 32
CAPPED: Final = 64
COMPETES: Final = REQUESTED | SHOWN | PINNED

FLAG_OF: Final = np.zeros(6, np.uint8)
"""The bit that each kind of act sets."""
FLAG_OF[[SHOW, PIN, INCLUDE, EXCLUDE]] = SHOWN, PINNED, INCLUDED, EXCLUDED

NOT_FOUND: Final = int(Status.NOT_FOUND)


def _gauss(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    integrals = np.empty((count, count))
    for k in range(count):
        others = np.delete(nodes, k)
        basis = np.polynomial.Polynomial.fromroots(others) / np.prod(nodes[k] - others)
        integral = basis.integ()
        integrals[:, k] = integral(nodes) - integral(-1.0)
    return nodes, weights, integrals


# What `arbitrate` notes of each row, as places in `notes`.
PIN_AT: Final = 0
MOVED_FROM: Final = 1
MOVED_TO: Final = 2
CROWDED: Final = 3
BELOW: Final = 4

# How a placement explores.
GREEDY: Final = 0
EPSILON: Final = 1
SOFTMAX: Final = 2
THOMPSON: Final = 3

# Streams of draws.
COIN: Final = 0
OFFER: Final = 1
GAMMA_A: Final = 2
GAMMA_B: Final = 3

# How a feature enters a model's row.
READ_FLOAT: Final = 0
READ_INT: Final = 1
READ_AGE: Final = 2
"""A timestamp, as its age in days."""
READ_NOTHING: Final = 3
"""Filled in elsewhere."""
DAY_US: Final = 86_400_000_000.0

_LARGEST: Final = sys.float_info.max
_TRIALS: Final = 1_000

GAUSS_NODES, GAUSS_WEIGHTS, GAUSS_INTEGRALS = _gauss(7)
"""Nodes and weights on [-1, 1], and what the k-th node's value adds to the integral from -1 to the q-th node."""

_ONES: Final = np.arange(9.0)
_FAR: Final = np.array([10.0, 12.0, 16.0, 24.0, 40.0])
SPREADS: Final = np.concatenate([-_FAR[::-1], -_ONES[:0:-1], _ONES, _FAR])
"""Where panels end around a mean, in standard deviations: a tail may fall as slowly as an exponential."""

_OPTIONS: Final[dict[str, Any]] = {"cache": True, "nogil": True, "error_model": "numpy"}


def _in(kind: Any, dimensions: int) -> Any:
    return types.Array(kind, dimensions, "C", readonly=True)


def _out(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C")


_I1, _I2, _F1, _F2, _U1 = _in(int64, 1), _in(int64, 2), _in(float64, 1), _in(float64, 2), _in(uint64, 1)
_B2, _T1, _T2 = _in(boolean, 2), _in(uint8, 1), _in(uint8, 2)


# Assessing --------------------------------------------------------------------------------------------------------


@njit(float64(_I2, _F2, _T2, int64, int64, boolean), **_OPTIONS)
def number_at(words, floats, statuses, column, row, is_float):  # type: ignore[no-untyped-def]
    """A cell as a number, NaN where it carries none; `floats` is `words` seen as float64."""
    if row < 0:
        return math.nan
    status = statuses[column, row]
    if status != PRESENT and status != STALE:  # noqa: PLR1714 - compiled
        return math.nan
    return floats[column, row] if is_float else float64(words[column, row])


@njit(void(_I2, _I1, int64, _I1, _out(uint8, 2)), **_OPTIONS)
def _hit(acts, targets, act, row_of, hits):  # type: ignore[no-untyped-def]
    """Mark all rows that an act is about."""
    if acts[act, 3] != 0:
        hits[act] = 1
        return
    for target in range(acts[act, 1], acts[act, 2]):
        row = row_of[targets[target]]
        if row >= 0:
            hits[act, row] = 1


@njit(void(_I2, _I1, int64, _I1, _T2, int64, boolean, _out(uint8, 2)), **_OPTIONS)
def _hit_each(acts, targets, act, row_of, truth, place, wanted, hits):  # type: ignore[no-untyped-def]
    """Mark the rows that an act is about where the condition holds, or does not where that is wanted."""
    if acts[act, 3] != 0 or acts[act, 0] == TAG:
        mine, told = hits[act], truth[place]
        for row in range(hits.shape[1]):
            mine[row] = (told[row] == TRUE) == wanted
        return
    for target in range(acts[act, 1], acts[act, 2]):
        row = row_of[targets[target]]
        if row >= 0:
            hits[act, row] = (truth[place, row] == TRUE) == wanted


@njit(
    types.Tuple((_out(uint8, 2), _out(boolean)))(int64, _I2, _I2, _I1, _I1, _T2, _T2, _out(uint8)),
    **_OPTIONS,
)
def run_rules(now_us, rules, acts, targets, row_of, request_truth, candidate_truth, flags):  # type: ignore[no-untyped-def]
    """Let every active rule act.

    Args:
        now_us: The decision's clock.
        rules: The plan's, as `acts` and `targets`.
        acts: See `decision.tables`.
        targets: See there.
        row_of: The offers' rows.
        request_truth: uint8[conditions, 1] of the request's program, FALSE 0, NULL 1, TRUE 2.
        candidate_truth: uint8[conditions, n] of the candidates' program.
        flags: uint8[n], gains SHOWN, PINNED, INCLUDED and EXCLUDED.

    Returns:
        uint8[a, n]: 1 where the act acted upon the row, for other acts than decision tags; bool[a], acts but boosts
        that acted at all. A tag that a rule puts for a candidate counts where that candidate competes.
    """
    rows = flags.shape[0]
    hits = np.zeros((acts.shape[0], rows), np.uint8)
    acted = np.zeros(acts.shape[0], np.bool_)
    for rule in range(rules.shape[0]):
        if not rules[rule, 2] <= now_us < rules[rule, 3]:
            continue
        place = rules[rule, 1]
        for act in range(rules[rule, 4], rules[rule, 7]):
            wanted = act < rules[rule, 5]
            if rules[rule, 0] != 0:
                _hit_each(acts, targets, act, row_of, candidate_truth, place, wanted, hits)
            elif (request_truth[place, 0] == TRUE) == wanted:
                acted[act] = acts[act, 0] == TAG
                _hit(acts, targets, act, row_of, hits)
    for act in range(acts.shape[0]):
        bit = FLAG_OF[acts[act, 0]]
        if bit:
            mine = hits[act]
            for row in range(rows):
                flags[row] |= mine[row] * bit
    for act in range(acts.shape[0]):
        if acts[act, 0] == BOOST:
            continue
        mine, some = hits[act], uint8(0)
        if acts[act, 0] == TAG:
            for row in range(rows):
                some |= mine[row] * uint8(flags[row] & COMPETES != 0)
            mine[:] = 0
        else:
            for row in range(rows):
                some |= mine[row]
        acted[act] |= some != 0
    return hits, acted


@njit(
    _out(int64)(_I1, _T2, _I2, _B2, _I1, _I2, _T2, _I2, _T2, _I1, _out(uint8), _out(boolean, 2)), **_OPTIONS
)
def settle(  # type: ignore[no-untyped-def]
    when,
    candidate_truth,
    caps,
    capped,
    offers,
    customer_words,
    customer_statuses,
    candidate_words,
    candidate_statuses,
    index,
    flags,
    reached,
):
    """Check the competing rows' own conditions and caps.

    Args:
        when: int64[o].
        candidate_truth: As in `run_rules`.
        caps: int64[c, 4].
        capped: bool[c, o].
        offers: The rows' offers.
        customer_words: The customer's block.
        customer_statuses: Of the same.
        candidate_words: The candidates' block.
        candidate_statuses: Of the same.
        index: int64[n], each row's place in the candidates' block, -1 for none.
        flags: uint8[n], gains FITS and CAPPED.
        reached: bool[c, n], which caps keep a competing row out; False on entry.

    Returns:
        int64[m]: the eligible rows.
    """
    customer_floats = customer_words.view(np.float64)
    candidate_floats = candidate_words.view(np.float64)
    rows = offers.shape[0]
    eligible = np.empty(rows, np.int64)
    count = 0
    for row in range(rows):
        offer = offers[row]
        place = when[offer]
        if place < 0 or candidate_truth[place, row] == TRUE:
            flags[row] |= FITS
        if not flags[row] & COMPETES:
            continue
        for cap in range(caps.shape[0]):
            if not capped[cap, offer]:
                continue
            column, is_float = caps[cap, 1], caps[cap, 2] != 0
            if caps[cap, 0] != 0:
                counted = number_at(
                    candidate_words, candidate_floats, candidate_statuses, column, index[row], is_float
                )
            else:
                counted = number_at(customer_words, customer_floats, customer_statuses, column, 0, is_float)
            # a NULL has counted nothing, which is as much as a cap of 0 allows
            if (0.0 if math.isnan(counted) else counted) >= caps[cap, 3]:
                reached[cap, row] = True
                flags[row] |= CAPPED
        if not flags[row] & (EXCLUDED | CAPPED) and flags[row] & (FITS | INCLUDED):
            eligible[count] = row
            count += 1
    return eligible[:count].copy()


# Scoring ----------------------------------------------------------------------------------------------------------


@njit(void(_I2, _I2, _T2, _I1, int64, _out(float32, 2)), **_OPTIONS)
def fill_matrix(table, words, statuses, index, now_us, matrix):  # type: ignore[no-untyped-def]
    """Write one block's columns into the model's rows, NaN where a cell carries no value.

    Args:
        table: int64[columns, 3]: column of the block, column of the matrix, how it enters (`READ_`).
        words: The block's.
        statuses: The block's.
        index: int64[m], the block's row for each of the model's, -1 for none.
        now_us: The decision's clock, which timestamps' ages count from.
        matrix: float32[m, f].
    """
    floats = words.view(np.float64)
    for k in range(table.shape[0]):
        column, into, kind = table[k, 0], table[k, 1], table[k, 2]
        for i in range(index.shape[0]):
            row = index[i]
            value = float32(math.nan)
            if row >= 0 and (statuses[column, row] == PRESENT or statuses[column, row] == STALE):
                if kind == READ_FLOAT:
                    value = float32(floats[column, row])
                elif kind == READ_INT:
                    value = float32(words[column, row])
                elif kind == READ_AGE:
                    value = float32((float64(now_us) - float64(words[column, row])) / DAY_US)
            matrix[i, into] = value


@njit(_out(float32, 2)(_I2, _I2, _T2, _I2, _I2, _T2, _I1, int64), **_OPTIONS)
def model_rows(  # type: ignore[no-untyped-def]
    customer_table, customer_words, customer_statuses, table, words, statuses, index, now_us
):
    """float32[m, f]: the columns of both blocks as a model reads them, the customer's the same in all rows.

    Args:
        customer_table: `fill_matrix`'s of the customer's block.
        customer_words: The customer's block.
        customer_statuses: Of the same.
        table: `fill_matrix`'s of the candidates' block; the two tables fill all columns.
        words: The candidates' block.
        statuses: Of the same.
        index: As `fill_matrix` takes it.
        now_us: The decision's clock.
    """
    matrix = np.empty((index.shape[0], customer_table.shape[0] + table.shape[0]), np.float32)
    fill_matrix(customer_table, customer_words, customer_statuses, np.zeros_like(index), now_us, matrix)
    fill_matrix(table, words, statuses, index, now_us, matrix)
    return matrix


@njit(boolean(_in(float32, 2)), **_OPTIONS)
def all_finite(predictions):  # type: ignore[no-untyped-def]
    """Whether a model gave nothing but finite numbers."""
    for i in range(predictions.shape[0]):
        for k in range(predictions.shape[1]):
            if not math.isfinite(predictions[i, k]):
                return False
    return True


@njit(_out(float64)(_I1, _in(float32, 2), int64), **_OPTIONS)
def put_by_row(eligible, predictions, rows):  # type: ignore[no-untyped-def]
    """float64[rows]: each of float32[m, 1] predictions at its row, NaN elsewhere."""
    by_row = np.full(rows, np.nan)
    for i in range(eligible.shape[0]):
        by_row[eligible[i]] = predictions[i, 0]
    return by_row


@njit(float64(float64, float64), **_OPTIONS)
def _bounded(score, factor):  # type: ignore[no-untyped-def]
    return min(max(score * factor, -_LARGEST), _LARGEST)


@njit(_out(float64)(_I1, _I1, _F1, _F1, _F1, _T2, _F1), **_OPTIONS)
def weigh_scores(eligible, offers, predictions, values, weights, hits, factors):  # type: ignore[no-untyped-def]
    """Prediction × value × weight × boosts in file order of the rules, kept finite.

    Args:
        eligible: int64[m], rows.
        offers: The rows' offers.
        predictions: float64[n], or of length 0 where nothing was predicted.
        values: float64[o].
        weights: float64[o].
        hits: As `run_rules` gives them.
        factors: float64[a], 1 for what is no boost.

    Returns:
        float64[n], NaN where a row is not eligible.
    """
    rows = offers.shape[0]
    scores = np.full(rows, np.nan)
    products = np.empty(rows)
    for row in range(rows):
        offer = offers[row]
        prediction = predictions[row] if predictions.shape[0] else 1.0
        products[row] = prediction * values[offer] * weights[offer]
    for act in range(factors.shape[0]):
        factor = factors[act]
        if factor != 1.0:
            for row in range(rows):
                products[row] *= factor if hits[act, row] else 1.0
    for i in range(eligible.shape[0]):
        row = eligible[i]
        score = products[row]
        if not math.isfinite(score):
            offer = offers[row]
            prediction = predictions[row] if predictions.shape[0] else 1.0
            score = _bounded(_bounded(_bounded(1.0, prediction), values[offer]), weights[offer])
            for act in range(factors.shape[0]):
                if hits[act, row]:
                    score = _bounded(score, factors[act])
        scores[row] = score
    return scores


# Draws ------------------------------------------------------------------------------------------------------------


@njit(uint64(uint64, uint64), inline="always", **_OPTIONS)
def _high(a, b):  # type: ignore[no-untyped-def]
    """The upper 64 bits of a product."""
    low = uint64(0xFFFFFFFF)
    half = uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    return a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & low)) >> half)


@njit(types.UniTuple(uint64, 4)(uint64, uint64, uint64, uint64), **_OPTIONS)
def philox(seed, key, stream, index):  # type: ignore[no-untyped-def]
    """Philox4x64-10 (Salmon et al. 2011) of key (seed, 0) and counter (key, index, stream, 0): four random words."""
    x0, x1, x2, x3 = key, index, stream, uint64(0)
    k0, k1 = seed, uint64(0)
    for _ in range(10):
        h0, l0 = _high(uint64(0xD2E7470EE14C6C93), x0), uint64(0xD2E7470EE14C6C93) * x0
        h1, l1 = _high(uint64(0xCA5A826395121157), x2), uint64(0xCA5A826395121157) * x2
        x0, x1, x2, x3 = h1 ^ x1 ^ k0, l1, h0 ^ x3 ^ k1, l0
        k0 += uint64(0x9E3779B97F4A7C15)
        k1 += uint64(0xBB67AE8584CAA73B)
    return x0, x1, x2, x3


@njit(float64(uint64), inline="always", **_OPTIONS)
def _uniform(word):  # type: ignore[no-untyped-def]
    """Of the open interval (0, 1): 52 bits and a half, one bit fewer than a double holds, so that it stays below 1."""
    return (float64(int64(word >> uint64(12))) + 0.5) * 2.0**-52


@njit(float64(uint64, uint64, uint64), **_OPTIONS)
def draw(seed, key, stream):  # type: ignore[no-untyped-def]
    """A uniform draw from the open interval (0, 1), a pure function of its arguments."""
    return _uniform(philox(seed, key, stream, uint64(0))[0])


@njit(float64(uint64, uint64, uint64, float64), **_OPTIONS)
def _gamma(seed, key, stream, shape):  # type: ignore[no-untyped-def]
    """A Gamma(shape, 1) draw by Marsaglia and Tsang; below 1 by the draw of shape + 1, scaled."""
    d = (shape if shape >= 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    for trial in range(_TRIALS):
        w0, w1, w2, w3 = philox(seed, key, stream, uint64(trial))
        normal = math.sqrt(-2.0 * math.log(_uniform(w0))) * math.cos(2.0 * math.pi * _uniform(w1))
        v = (1.0 + c * normal) ** 3
        if v > 0.0 and math.log(_uniform(w2)) < 0.5 * normal * normal + d - d * v + d * math.log(v):
            return d * v if shape >= 1.0 else d * v * _uniform(w3) ** (1.0 / shape)
    return d


@njit(float64(uint64, uint64, float64, float64), **_OPTIONS)
def draw_beta(seed, key, a, b):  # type: ignore[no-untyped-def]
    """A Beta(a, b) draw, a pure function of its arguments; a and b at least `SHAPE_LEAST`."""
    x = _gamma(seed, key, uint64(GAMMA_A), a)
    return x / (x + _gamma(seed, key, uint64(GAMMA_B), b))


@njit(void(_I2, _T2, int64, boolean, _I1, float64, _out(float64)), **_OPTIONS)
def read_shapes(words, statuses, column, is_float, index, prior, shapes):  # type: ignore[no-untyped-def]
    """Fill float64[n] with prior + count, kept within bounds; a count that is NULL or negative has counted nothing.

    Args:
        words: A block's.
        statuses: Of the same.
        column: Of the counts, -1 for none.
        is_float: Whether they are float64.
        index: int64[n], rows of the block, -1 for none.
        prior: Before anything was counted.
        shapes: Filled.
    """
    floats = words.view(np.float64)
    for i in range(index.shape[0]):
        shape = prior
        if column >= 0:
            counted = number_at(words, floats, statuses, column, index[i], is_float)
            if counted > 0.0:
                shape += counted
        shapes[i] = min(max(shape, SHAPE_LEAST), SHAPE_MOST)


# First places of Thompson sampling --------------------------------------------------------------------------------


@njit(float64(float64, float64, float64), **_OPTIONS)
def _fraction(a, b, x):  # type: ignore[no-untyped-def]
    """The continued fraction of the incomplete beta function, by Lentz's method; converges fast below the mean."""
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    h = d
    for m in range(1, 10_000):
        for odd in range(2):
            if odd == 0:
                step = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
            else:
                step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
            d = 1.0 + step * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + step / c
            c = c if abs(c) > tiny else tiny
            h *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return h


@njit(float64(float64, float64, float64), **_OPTIONS)
def beta_cdf(a, b, x):  # type: ignore[no-untyped-def]
    """P(θ ≤ x) for θ ~ Beta(a, b)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


@njit(int64(_F1, _F1, _F1, float64, _out(float64)), **_OPTIONS)
def _panels(a, b, c, least, points):  # type: ignore[no-untyped-def]
    """Fill `points`, sorted, with ends of panels within which every density is smooth, and return their number.

    They lie around each mean by its spread, and towards 0 and each largest score by quarters.
    """
    count = 0
    narrowest = math.inf
    for j in range(a.shape[0]):
        total = a[j] + b[j]
        mean = a[j] / total
        spread = math.sqrt(mean * (1.0 - mean) / (total + 1.0))
        narrowest = min(narrowest, c[j] * spread)
        for step in SPREADS:
            at = mean + step * spread
            if 0.0 < at < 1.0:
                points[count] = c[j] * at
                count += 1
    points[:count].sort()
    kept = 0
    for i in range(count):  # what lies closer than half the narrowest spread adds nothing
        if points[i] > least and (kept == 0 or points[i] - points[kept - 1] > 0.5 * narrowest):
            points[kept] = points[i]
            kept += 1
    count = kept
    for j in range(a.shape[0]):
        mean = a[j] / (a[j] + b[j])
        at = mean
        while a[j] * (math.log(at / mean) + 1.0) > -25.0 and c[j] * at > least:
            at *= 0.25
            if c[j] * at > least:
                points[count] = c[j] * at
                count += 1
        rest = 1.0 - mean
        at = rest
        while b[j] * (math.log(at / rest) + 1.0) > -25.0 and at > 1e-15:
            at *= 0.25
            if c[j] * (1.0 - at) > least:
                points[count] = c[j] * (1.0 - at)
                count += 1
        if c[j] > least:
            points[count] = c[j]
            count += 1
    points[count] = least
    points[: count + 1].sort()
    return count + 1


@njit(float64(_F1, _F1, _F1, _out(float64)), **_OPTIONS)
def _floors(a, b, c, floors):  # type: ignore[no-untyped-def]
    """Fill `floors` with scores that the offers' draws exceed but for a probability that does not count.

    Returns such a score for the best draw.

    P(θ ≤ x) is at most (x / mean)^a e^a where x is below the mean.
    """
    least = np.max(c)
    for _ in range(400):
        bound = 0.0
        for j in range(a.shape[0]):
            bound += min(0.0, a[j] * (math.log(least / c[j] * (a[j] + b[j]) / a[j]) + 1.0))
        if bound < -25.0:
            break
        least *= 0.5
    for j in range(a.shape[0]):
        mean = a[j] / (a[j] + b[j])
        spread = math.sqrt(mean * (1.0 - mean) / (a[j] + b[j] + 1.0))
        floors[j] = c[j] * max(0.0, mean - (12.0 if min(a[j], b[j]) >= 10.0 else 40.0) * spread)
        least = max(least, floors[j])
    return least


@njit(void(_F1, _F1, _F1, _out(float64)), **_OPTIONS)
def _first_places(a, b, c, chance):  # type: ignore[no-untyped-def]
    """Fill `chance` with P(c_i θ_i is the greatest) for θ_i ~ Beta(a_i, b_i) and c_i > 0.

    Gauss–Legendre over panels: within each, the distribution functions are integrated from the densities at the nodes.
    """
    arms = a.shape[0]
    floors = np.empty(arms)
    least = _floors(a, b, c, floors)
    points = np.empty(160 * arms + 1)
    count = _panels(a, b, c, least, points)
    scale = np.empty(arms)
    below = np.empty(arms)
    for j in range(arms):
        scale[j] = math.lgamma(a[j] + b[j]) - math.lgamma(a[j]) - math.lgamma(b[j]) - math.log(c[j])
        below[j] = beta_cdf(a[j], b[j], least / c[j])
    nodes = GAUSS_NODES.shape[0]
    density = np.zeros((arms, nodes))
    under = np.empty((arms, nodes))
    chance[:] = 0.0
    for panel in range(count - 1):
        low, high = points[panel], points[panel + 1]
        half = 0.5 * (high - low)
        if half <= 0.0:
            continue
        for j in range(arms):
            if low >= c[j] or below[j] > 1.0 - 1e-13 or high <= floors[j]:
                below[j] = 0.0 if high <= floors[j] else 1.0
                density[j] = 0.0
                under[j] = below[j]
                continue
            for q in range(nodes):
                x = (low + half * (1.0 + GAUSS_NODES[q])) / c[j]
                density[j, q] = 0.0
                if x < 1.0:  # the last sliver may round up
                    density[j, q] = half * math.exp(
                        scale[j] + (a[j] - 1.0) * math.log(x) + (b[j] - 1.0) * math.log1p(-x)
                    )
            mass = 0.0
            for q in range(nodes):
                reach = below[j]
                for r in range(nodes):
                    reach += GAUSS_INTEGRALS[q, r] * density[j, r]
                under[j, q] = min(reach, 1.0)
                mass += GAUSS_WEIGHTS[q] * density[j, q]
            below[j] = min(below[j] + mass, 1.0)
        for q in range(nodes):
            for i in range(arms):
                others = density[i, q]
                if others > 0.0:
                    for j in range(arms):
                        if j != i:
                            others *= under[j, q]
                    chance[i] += GAUSS_WEIGHTS[q] * others
    chance /= np.sum(chance)


@njit(void(_F1, _F1, _F1, _out(float64)), **_OPTIONS)
def first_places(a, b, c, chance):  # type: ignore[no-untyped-def]
    """Fill float64[k] with the probability of each offer that its c × θ is the greatest, θ ~ Beta(a, b), within 1e-6.

    Args:
        a: float64[k], from `SHAPE_LEAST` to `SHAPE_MOST`.
        b: As `a`.
        c: float64[k], not negative. Where all are 0 the first offer comes first.
        chance: Filled; sums to 1.
    """
    positive = np.flatnonzero(c > 0.0)
    chance[:] = 0.0
    if positive.shape[0] < 2:
        chance[positive[0] if positive.shape[0] else 0] = 1.0
        return
    most = np.max(c)
    some = np.empty(positive.shape[0])
    _first_places(a[positive], b[positive], c[positive] / most, some)
    chance[positive] = some


# Arbitrating ------------------------------------------------------------------------------------------------------


@njit(void(_F1, _out(int64)), **_OPTIONS)
def _sort_descending(worth, order):  # type: ignore[no-untyped-def]
    """Fill `order` with places by worth, descending, equal ones by place."""
    order[:] = np.argsort(-worth, kind="mergesort")


@njit(
    void(_F1, _U1, int64, int64, float64, uint64, _F1, _F1, _F1, _out(int64), _out(float64), _out(float64)),
    **_OPTIONS,
)
def explore(scores, keys, kind, top_k, parameter, seed, a, b, factors, order, chance, drawn):  # type: ignore[no-untyped-def]
    """Reorder the best `top_k` scored offers; those below stay where they are.

    ε-greedy puts a uniformly drawn one of the top k (the greedy one included) first with probability ε. Softmax sorts
    by score / temperature + Gumbel noise, so that whole orders of the top k follow Plackett–Luce. Thompson sorts by
    factor × θ, θ ~ Beta(a, b). Equal ones stay in their order.

    Args:
        scores: float64[s], finite, descending.
        keys: uint64[s], the offers'.
        kind: GREEDY, EPSILON, SOFTMAX or THOMPSON.
        top_k: At least 1.
        parameter: ε in [0, 1], or a temperature above 0.
        seed: Of the draws.
        a: float64[s], of the Beta distributions; read by Thompson alone, as `b` and `factors`.
        b: float64[s].
        factors: float64[s], what θ is multiplied by.
        order: int64[s], filled: places in `scores`, best first.
        chance: float64[s], filled: the probability of each to come first; they sum to 1.
        drawn: float64[s], filled by Thompson: θ of the top k.
    """
    count = scores.shape[0]
    for i in range(count):
        order[i] = i
    chance[:] = 0.0
    if count:
        chance[0] = 1.0
    k = min(top_k, count)
    if kind == GREEDY or k < (1 if kind == THOMPSON else 2):
        return
    if kind == EPSILON:
        chance[:k] = parameter / k
        chance[0] += 1.0 - parameter
        if draw(seed, uint64(0), uint64(COIN)) < parameter:
            first, best = 0, -1.0
            for i in range(k):
                found = draw(seed, keys[i], uint64(OFFER))
                if found > best:
                    first, best = i, found
            for i in range(first, 0, -1):
                order[i] = order[i - 1]
            order[0] = first
        return
    worth = np.empty(k)
    if kind == SOFTMAX:
        total = 0.0
        for i in range(k):
            logit = (scores[i] - scores[0]) / parameter
            worth[i] = logit - math.log(-math.log(draw(seed, keys[i], uint64(OFFER))))
            chance[i] = math.exp(logit)
            total += chance[i]
        chance[:k] /= total
    else:
        for i in range(k):
            drawn[i] = draw_beta(seed, keys[i], a[i], b[i])
            worth[i] = drawn[i] * factors[i]
        first_places(a[:k], b[:k], factors[:k], chance[:k])
    _sort_descending(worth, order[:k])


@njit(int64(_I1, _I2, _I1, int64), inline="always", **_OPTIONS)
def _full(limits, tags, taken, offer):  # type: ignore[no-untyped-def]
    """The first of the offer's tags with no room left, or -1."""
    for k in range(tags.shape[1]):
        tag = tags[offer, k]
        if tag < 0:
            break
        if taken[tag] >= limits[tag]:
            return tag
    return -1


@njit(boolean(_I1, _I2, _out(int64), int64, int64, _out(int64)), inline="always", **_OPTIONS)
def _admit(limits, tags, taken, offer, row, crowded):  # type: ignore[no-untyped-def]
    """Take an offer in if its tags have room; else note the full one."""
    full = _full(limits, tags, taken, offer)
    crowded[row] = full
    if full >= 0:
        return False
    for k in range(tags.shape[1]):
        if tags[offer, k] < 0:
            break
        taken[tags[offer, k]] += 1
    return True


@njit(
    types.Tuple((_out(int64), _out(float64), _out(int64, 2), _out(float64)))(
        _I1, _I1, _I1, _F1, _I1, _U1, _I2, _I2, _in(boolean, 1), _I1, _I2, float64, int64, int64, float64, uint64,
        _F1, _F1, _F1
    ),
    **_OPTIONS,
)  # fmt: skip
def arbitrate(  # type: ignore[no-untyped-def]
    eligible, offers, row_of, scores, by_name, keys, pins, shows, acted, limits, tags, minimum, kind, top_k, parameter,
    seed, a, b, factors
):  # fmt: skip
    """Put the eligible rows into one order; `decision.arbitrate` says how.

    Args:
        eligible: int64[m], rows.
        offers: The rows' offers.
        row_of: The offers' rows.
        scores: float64[n].
        by_name: int64[o], offers by name.
        keys: uint64[o].
        pins: int64[p, 3].
        shows: int64[s, 2].
        acted: As `run_rules` gives it.
        limits: int64[t].
        tags: int64[o, t].
        minimum: Scored rows below it are out; -inf keeps all.
        kind: As in `explore`, with the next three.
        top_k: Of the exploration.
        parameter: Of the exploration.
        seed: Of the draws.
        a: float64[n] for Thompson, else of any length; as `b` and `factors`.
        b: float64[n].
        factors: float64[n], what θ is multiplied by.

    Returns:
        What `decision.arbitrate.Ranking` holds: the rows in order; by row the probability to come first; int64[5, n],
        by row the position of its pin or 0, its places before and after exploration or 0, the limited tag that left it
        out or -1, whether the minimum did; by row the θ that replaced the prediction or NaN.
    """
    rows = offers.shape[0]
    propensity, drawn = np.zeros(rows), np.full(rows, np.nan)
    notes = np.zeros((5, rows), np.int64)
    crowded = notes[CROWDED]
    crowded[:] = -1
    free = np.zeros(rows, np.bool_)
    free[eligible] = True
    taken = np.zeros(limits.shape[0], np.int64)
    # pins, by rank: each position and each row once
    holder = np.empty(pins.shape[0], np.int64)
    position = np.empty(pins.shape[0], np.int64)
    granted = 0
    for p in range(pins.shape[0]):
        row = row_of[pins[p, 1]]
        if row < 0 or not acted[pins[p, 0]] or not free[row]:
            continue
        contested = False
        for g in range(granted):
            contested = contested or position[g] == pins[p, 2]
        if contested:
            continue
        free[row] = False
        at = granted
        while at > 0 and position[at - 1] > pins[p, 2]:
            position[at], holder[at] = position[at - 1], holder[at - 1]
            at -= 1
        position[at], holder[at] = pins[p, 2], row
        granted += 1
    kept = 0
    for g in range(granted):
        if _admit(limits, tags, taken, offers[holder[g]], holder[g], crowded):
            position[kept], holder[kept] = position[g], holder[g]
            kept += 1
    # what rules show, by rank
    queue = np.empty(eligible.shape[0], np.int64)
    queued = 0
    for s in range(shows.shape[0]):
        row = row_of[shows[s, 1]]
        if row < 0 or not acted[shows[s, 0]] or not free[row]:
            continue
        free[row] = False
        if _admit(limits, tags, taken, offers[row], row, crowded):
            queue[queued] = row
            queued += 1
    # what is scored
    scored = np.empty(eligible.shape[0], np.int64)
    count = 0
    for k in range(by_name.shape[0]):
        row = row_of[by_name[k]]
        if row >= 0 and free[row]:
            if scores[row] < minimum:
                notes[BELOW, row] = 1
            else:
                full = _full(limits, tags, taken, offers[row])
                crowded[row] = full
                if full < 0:
                    scored[count] = row
                    count += 1
    order = np.empty(count, np.int64)
    _sort_descending(scores[scored[:count]], order)
    scored = scored[:count][order]
    chance = np.empty(count)
    theta = np.full(count, np.nan)
    if kind == THOMPSON:
        explore(
            scores[scored], keys[offers[scored]], kind, top_k, parameter, seed, a[scored], b[scored], factors[scored],
            order, chance, theta
        )  # fmt: skip
    else:
        explore(
            scores[scored],
            keys[offers[scored]],
            kind,
            top_k,
            parameter,
            seed,
            a,
            b,
            factors,
            order,
            chance,
            theta,
        )
    for place in range(count):
        was = order[place]
        row = scored[was]
        drawn[row] = theta[was]
        if was != place:
            notes[MOVED_FROM, row], notes[MOVED_TO, row] = was + 1, place + 1
        if _admit(limits, tags, taken, offers[row], row, crowded):
            queue[queued] = row
            queued += 1
    # others in order around the pins; where they run out, the remaining pins follow by position
    merged = np.empty(queued + kept, np.int64)
    end, used = 0, 0
    for g in range(kept):
        while end < position[g] - 1 and used < queued:
            merged[end] = queue[used]
            end += 1
            used += 1
        merged[end] = holder[g]
        end += 1
        if end == position[g]:
            notes[PIN_AT, holder[g]] = position[g]
    while used < queued:
        merged[end] = queue[used]
        end += 1
        used += 1
    if end:
        first_is_scored = count > 0 and merged[0] == scored[order[0]]
        if first_is_scored:
            for i in range(count):
                propensity[scored[i]] = chance[i]
        else:
            propensity[merged[0]] = 1.0
    return merged, propensity, notes, drawn


# Reasons ---------------------------------------------------------------------------------------------------------


@njit(types.Tuple((_out(int64), _out(int64, 2)))(_I1, _I1, _T1, _I2, _T2), **_OPTIONS)
def told(rows, offers, flags, notes, hits):  # type: ignore[no-untyped-def]
    """What the reasons of some rows are made of.

    Args:
        rows: int64[k].
        offers: The rows' offers.
        flags: As `settle` leaves them.
        notes: As `arbitrate` gives them.
        hits: As `run_rules` gives them.

    Returns:
        int64[...], the acts upon each row in file order, row after row; int64[k, 4], each row's offer, flags, place
        before exploration where that moved it, and where its acts end.
    """
    acts = np.empty(hits.shape[0] * rows.shape[0], np.int64)
    known = np.empty((rows.shape[0], 4), np.int64)
    count = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        for act in range(hits.shape[0]):
            acts[count] = act
            count += hits[act, row] != 0
        known[i, 0], known[i, 1], known[i, 2], known[i, 3] = (
            offers[row],
            flags[row],
            notes[MOVED_FROM, row],
            count,
        )
    return acts[:count].copy(), known


# Ages -------------------------------------------------------------------------------------------------------------


@njit(void(_I1, _T2, _I2, _out(int64, 2)), **_OPTIONS)
def _survey_block(view_of, statuses, event_us, known):  # type: ignore[no-untyped-def]
    for view in range(event_us.shape[0]):
        newest = 0
        for row in range(event_us.shape[1]):
            newest = max(newest, event_us[view, row])
        known[view, 0] = newest
    for column in range(statuses.shape[0]):
        some_stale, some_found = False, False
        for row in range(statuses.shape[1]):
            some_stale |= statuses[column, row] == STALE
            some_found |= statuses[column, row] != NOT_FOUND
        known[view_of[column], 1] |= some_stale
        known[view_of[column], 2] |= some_found


@njit(_out(int64, 2)(_I1, _T2, _I2, _I1, _T2, _I2), **_OPTIONS)
def survey(  # type: ignore[no-untyped-def]
    customer_view_of, customer_statuses, customer_event_us, candidate_view_of, candidate_statuses, candidate_event_us
):  # fmt: skip
    """What is known of the views of a frame.

    Args:
        customer_view_of: The layout's of the customer's block.
        customer_statuses: The customer's block.
        customer_event_us: Of the same.
        candidate_view_of: The layout's of the candidates' block.
        candidate_statuses: The candidates' block.
        candidate_event_us: Of the same.

    Returns:
        int64[views, 3], the customer's block's views first: the newest event time, whether any cell is STALE, and
        whether anything was found.
    """
    split = customer_event_us.shape[0]
    known = np.zeros((split + candidate_event_us.shape[0], 3), np.int64)
    _survey_block(customer_view_of, customer_statuses, customer_event_us, known[:split])
    _survey_block(candidate_view_of, candidate_statuses, candidate_event_us, known[split:])
    return known
