"""The rule program's compiled kernels, all of them, with their signatures spelt out.

Legend: `n` rows, `b` rows that a block has room for (1 or more), `r` registers of numbers, `v` registers of bytes.

- `arena` int64[...]: what a block needs, one after the other: `numbers`, `truths`, `masks`.
- `numbers` int64[r, b]: first int64 registers (int64, timestamps, intervals, codes of texts), then float64 ones as
  their bits. A NaN is NULL.
- `truths` uint8[v, b]: row i is 1 where int64 register i is NULL and 0 elsewhere; then come registers of truth,
  FALSE 0, NULL 1, TRUE 2.
- `masks` uint64[b, w]: bit i of a row is 1 where register i of truth is TRUE.
- `texts` uint64[codes, w]: per text the bits of the patterns that it matches, then, from the back, its hash by salt.
- `lists` int64[...]: where list l of row i begins and ends at `2 (l b + i)`, -1 for NULL; then the elements, float64 as
  their bits.

A program has no branches: every register is computed once, for all rows of the block, in the order of the groups. One
row has kernels of its own for what rules are mostly made of: there the constants are what vectors hold.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import boolean, float64, int32, int64, njit, types, uint8, uint32, uint64, void
from numpy.typing import NDArray

from decision.program.opcodes import (
    ABS_F,
    ABS_I,
    ADD_F,
    ADD_I,
    AND,
    AT_BEGIN,
    AT_CELLS,
    AT_COMMON,
    AT_EACH,
    AT_END,
    AT_NOW,
    AT_NUMBERS,
    AT_PARTS,
    AT_RESULTS,
    AT_TRUTH,
    AT_WORDS,
    BUCKET_I,
    BUCKET_TEXT,
    COALESCE_F,
    COALESCE_I,
    COALESCE_T,
    CONTAINS_F,
    CONTAINS_I,
    COPY,
    DIV_F,
    EQ_F,
    EQ_FF,
    EQ_I,
    EQ_II,
    EQ_T,
    FALSE,
    FLOOR_F,
    GE_F,
    GE_I,
    GE_NOW,
    GT_NOW,
    HEADER,
    IN_F,
    IN_I,
    INT_LAST,
    LE_F,
    LE_FF,
    LE_I,
    LE_II,
    LE_NOW,
    LIKE,
    LOGIC_LAST,
    LT_FF,
    LT_II,
    LT_NOW,
    MAX_I,
    MIN_F,
    MIN_I,
    MUL_F,
    MUL_I,
    NE_F,
    NE_FF,
    NE_I,
    NE_II,
    NEG_F,
    NEG_I,
    NOT,
    NULL,
    NULL_F,
    NULL_I,
    NULL_L,
    NULL_T,
    OR,
    PART,
    REM_F,
    REM_I,
    ROUND_F,
    SELECT_F,
    SELECT_I,
    SELECT_T,
    SPREAD_LAST,
    SUB_F,
    SUB_I,
    TEST_LAST,
    TO_F,
    TRUE,
)
from decision.program.vectors import at_least, at_most, equal, packed, unequal

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
DAY_US: Final = 86_400_000_000

_ANY: Final = 0x25
"""% of LIKE."""
_ONE: Final = 0x5F
"""_ of LIKE."""

_ONE_WORD: Final = np.uint64(1)
_ONES: Final = np.uint64(0x0101010101010101)
"""A one in each of eight bytes."""

_CODE = types.Array(int64, 1, "C", readonly=True)
_NUMBERS = types.Array(int64, 2, "C")
_TRUTHS = types.Array(uint8, 2, "C")
_TEXTS = types.Array(uint64, 2, "C", readonly=True)
_LISTS = types.Array(int64, 1, "C", readonly=True)
_ROW_OF_TEXTS = types.Array(uint64, 1, "C", readonly=True)
_HALVES = types.Array(int32, 1, "C", readonly=True)
_LIMITS = types.Array(float64, 1, "C", readonly=True)
_CHARS = types.Array(uint32, 1, "C", readonly=True)
_ROW = types.Array(uint64, 1, "C")
_BYTES = types.Array(uint8, 1, "C")
_ARENA = types.Array(int64, 1, "C")

_PRIMES: Final = [p for p in range(2, 312) if all(p % q for q in range(2, math.isqrt(p) + 1))]


def _cube_root(value: int) -> int:
    """The largest integer whose cube is not above the value."""
    root = 0
    for bit in range(value.bit_length() // 3, -1, -1):
        if (root | 1 << bit) ** 3 <= value:
            root |= 1 << bit
    return root


_SHA_START: Final = np.array([math.isqrt(p << 64) & 0xFFFFFFFF for p in _PRIMES[:8]], np.uint32)
_SHA_ROUND: Final = np.array([_cube_root(p << 96) & 0xFFFFFFFF for p in _PRIMES], np.uint32)


@njit([uint32(uint32, int64)], cache=True, nogil=True, error_model="numpy")
def _rotated(word: Any, by: int) -> Any:
    return uint32((word >> uint32(by)) | (word << uint32(32 - by)))


@njit([void(types.Array(uint32, 1, "C"), _BYTES, int64)], cache=True, nogil=True, error_model="numpy")
def _sha_block(state: Any, message: Any, at: int) -> None:
    """Take 64 bytes into the state of SHA-256."""
    words = np.empty(64, np.uint32)
    for t in range(16):
        p = at + 4 * t
        words[t] = (
            uint32(message[p]) << uint32(24)
            | uint32(message[p + 1]) << uint32(16)
            | uint32(message[p + 2]) << uint32(8)
            | uint32(message[p + 3])
        )
    for t in range(16, 64):
        low, high = words[t - 15], words[t - 2]
        s0 = _rotated(low, 7) ^ _rotated(low, 18) ^ (low >> uint32(3))
        s1 = _rotated(high, 17) ^ _rotated(high, 19) ^ (high >> uint32(10))
        words[t] = uint32(words[t - 16] + s0 + words[t - 7] + s1)
    a, b, c, d, e, f, g, h = state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
    for t in range(64):
        s1 = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        t1 = uint32(h + s1 + ((e & f) ^ (~e & g)) + _SHA_ROUND[t] + words[t])
        s0 = _rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)
        t2 = uint32(s0 + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e, d, c, b, a = g, f, e, uint32(d + t1), c, b, a, uint32(t1 + t2)
    for t, word in enumerate((a, b, c, d, e, f, g, h)):
        state[t] = uint32(state[t] + word)


@njit([int64(int64, int64, _CODE, int64)], cache=True, nogil=True, error_model="numpy")
def bucket_of(value: int, count: int, code: NDArray[np.int64], salt: int) -> Any:
    """`bucket` of an int64: the salt's length and bytes lie in the code."""
    length = code[salt]
    message = np.zeros((length + 22 + 9 + 63) // 64 * 64, np.uint8)
    for i in range(length):
        message[i] = code[salt + 1 + i]
    end = length + 1
    size = uint64(value) if value >= 0 else uint64(0) - uint64(value)
    if value < 0:
        message[end] = 45
        end += 1
    digits = 1
    rest = size // uint64(10)
    while rest > uint64(0):
        digits += 1
        rest //= uint64(10)
    for i in range(digits):
        message[end + digits - 1 - i] = uint8(uint64(48) + size % uint64(10))
        size //= uint64(10)
    end += digits
    message[end] = 128
    padded = (end + 9 + 63) // 64 * 64
    bits = end * 8
    for i in range(8):
        message[padded - 1 - i] = (bits >> (8 * i)) & 255
    state = _SHA_START.copy()
    for at in range(0, padded, 64):
        _sha_block(state, message, at)
    top = uint64(state[0]) << uint64(32) | uint64(state[1])
    return int64(top % uint64(count))


@njit([boolean(_CHARS, _CHARS, int64, int64)], cache=True, nogil=True, error_model="numpy")
def _matches(text: Any, patterns: Any, start: int, end: int) -> Any:
    """LIKE: on a mismatch the latest % takes one more code point, which is enough as % takes anything."""
    at = 0
    place = start
    retry_place = -1
    retry_at = 0
    while at < text.size:
        if place < end and patterns[place] == _ANY:
            retry_place, retry_at = place + 1, at
            place += 1
        elif place < end and (patterns[place] == _ONE or patterns[place] == text[at]):
            place += 1
            at += 1
        elif retry_place >= 0:
            retry_at += 1
            place, at = retry_place, retry_at
        else:
            return False
    while place < end and patterns[place] == _ANY:
        place += 1
    return place == end


@njit([void(_CHARS, _CHARS, _CODE, _ROW)], cache=True, nogil=True, error_model="numpy")
def match_patterns(text: Any, patterns: Any, bounds: Any, row: Any) -> None:
    """Set bit p of the row for every pattern p, `patterns[bounds[p] : bounds[p + 1]]`, that the text matches."""
    for p in range(bounds.size - 1):
        if _matches(text, patterns, bounds[p], bounds[p + 1]):
            row[p >> 6] |= uint64(1) << uint64(p & 63)


@njit([int64(_CODE, int64, int64, int64)], cache=True, nogil=True, error_model="numpy")
def _items_below(code: Any, start: int, count: int, value: int) -> Any:
    """How many of the ascending items are at most the value."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if code[start + middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@njit([int64(int64, int64, _CODE, int64)], cache=True, nogil=True, error_model="numpy")
def part_of(at_us: int, part: int, code: NDArray[np.int64], zone: int) -> Any:
    """A part of the local time; the zone is its number of transitions, the transitions, and the offsets in seconds."""
    count = code[zone]
    before = _items_below(code, zone + 1, count, at_us)
    day = at_us // DAY_US
    within_us = at_us - day * DAY_US + code[zone + 1 + count + before] * 1_000_000
    day += within_us // DAY_US
    within_us %= DAY_US
    if part >= 5:
        if part == 5:
            return within_us // 3_600_000_000
        if part == 6:
            return within_us // 60_000_000 % 60
        return within_us // 1_000_000 % 60
    if part == 4:
        return (day + 3) % 7 + 1
    shifted = day + 719_468
    era = shifted // 146_097
    day_of_era = shifted - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = era * 400 + year_of_era + (1 if month <= 2 else 0)
    if part == 0:
        return year
    if part == 1:
        return month
    if part == 2:
        return day_of_year - (153 * shifted_month + 2) // 5 + 1
    if shifted_month >= 10:
        return day_of_year - 305
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    return day_of_year + 60 + (1 if leap else 0)


@njit([uint64(int64)], cache=True, nogil=True, error_model="numpy")
def _size(value: int) -> Any:
    return uint64(value) if value >= 0 else uint64(0) - uint64(value)


@njit([types.UniTuple(int64, 2)(int64, int64, int64)], cache=True, nogil=True, error_model="numpy")
def _int_result(kind: int, a: int, b: int) -> Any:
    """`+ - * %` on int64 with 1 beside a result that is NULL."""
    if kind == ADD_I:
        total = int64(uint64(a) + uint64(b))
        return total, int64(((a ^ total) & (b ^ total)) < 0)
    if kind == SUB_I:
        rest = int64(uint64(a) - uint64(b))
        return rest, int64(((a ^ b) & (a ^ rest)) < 0)
    size_a, size_b = _size(a), _size(b)
    if kind == MUL_I:
        negative = (a < 0) != (b < 0)
        most = uint64(INT64_MAX) + (uint64(1) if negative else uint64(0))
        product = int64(uint64(a) * uint64(b))
        if size_a <= uint64(0x7FFFFFFF) and size_b <= uint64(0x7FFFFFFF):
            return product, int64(0)
        return product, int64(size_a != uint64(0) and size_b > most // size_a)
    if b == 0:
        return int64(0), int64(1)
    left = size_a % size_b
    return (int64(uint64(0) - left) if a < 0 else int64(left)), int64(0)


@njit(
    [void(int64, int64, int64, int64, int64, _CODE, _NUMBERS, _TRUTHS, _TEXTS, int64)],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _ints(
    kind: int,
    count: int,
    out: int,
    stride: int,
    body: int,
    code: Any,
    numbers: Any,
    truths: Any,
    texts: Any,
    n: int,
) -> None:
    """Operations whose result is an int64."""
    for k in range(count):
        p = body + k * stride
        o = out + k
        a = code[p]
        b = code[p + 1] if stride > 1 else 0
        c = code[p + 2] if stride > 2 else 0
        if kind <= REM_I:
            for i in range(n):
                value, null = _int_result(kind, numbers[a, i], numbers[b, i])
                numbers[o, i] = value
                truths[o, i] = truths[a, i] | truths[b, i] | null
        elif kind in (NEG_I, ABS_I):
            for i in range(n):
                value = numbers[a, i]
                numbers[o, i] = -value if kind == NEG_I or value < 0 else value
                truths[o, i] = truths[a, i] | (value == INT64_MIN)
        elif kind in (MIN_I, MAX_I):
            for i in range(n):
                left, right = numbers[a, i], numbers[b, i]
                first = left <= right if kind == MIN_I else left >= right
                if truths[a, i] or (not truths[b, i] and not first):
                    numbers[o, i] = right
                else:
                    numbers[o, i] = left
                truths[o, i] = truths[a, i] & truths[b, i]
        elif kind == COALESCE_I:
            for i in range(n):
                numbers[o, i] = numbers[b, i] if truths[a, i] else numbers[a, i]
                truths[o, i] = truths[a, i] & truths[b, i]
        elif kind == SELECT_I:
            for i in range(n):
                chosen = b if truths[a, i] == TRUE else c
                numbers[o, i] = numbers[chosen, i]
                truths[o, i] = truths[chosen, i]
        elif kind == PART:
            for i in range(n):
                numbers[o, i] = part_of(numbers[a, i], b, code, c)
                truths[o, i] = truths[a, i]
        elif kind == BUCKET_I:
            for i in range(n):
                null = truths[a, i]
                numbers[o, i] = 0 if null else bucket_of(numbers[a, i], c, code, b)
                truths[o, i] = null
        elif kind == BUCKET_TEXT:
            for i in range(n):
                null = truths[a, i]
                numbers[o, i] = 0 if null else int64(texts[numbers[a, i], texts.shape[1] - 1 - b] % uint64(c))
                truths[o, i] = null


@njit([float64(float64)], cache=True, nogil=True, error_model="numpy")
def _rounded(value: float) -> Any:
    if not math.isfinite(value):
        return value
    size = abs(value)
    whole = np.floor(size)
    return math.copysign(whole + 1.0 if size - whole >= 0.5 else whole, value)


@njit([float64(int64, float64, float64)], cache=True, nogil=True, error_model="numpy")
def _float_result(kind: int, a: float, b: float) -> Any:
    """A float64 operation of two operands; NaN is NULL."""
    if kind == ADD_F:
        return a + b
    if kind == SUB_F:
        return a - b
    if kind == MUL_F:
        return a * b
    if kind == DIV_F:
        return math.nan if b == 0.0 else a / b
    if kind == REM_F:
        return np.fmod(a, b) if b != 0.0 and math.isfinite(a) else math.nan
    if kind == COALESCE_F:
        return b if math.isnan(a) else a
    if math.isnan(a):
        return b
    if math.isnan(b):
        return a
    if kind == MIN_F:
        return min(a, b)
    return max(a, b)


@njit(
    [void(int64, int64, int64, int64, int64, _CODE, _NUMBERS, _TRUTHS, int64)],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _floats(
    kind: int, count: int, out: int, stride: int, body: int, code: Any, numbers: Any, truths: Any, n: int
) -> None:
    """Operations whose result is a float64."""
    floats = numbers.view(np.float64)
    for k in range(count):
        p = body + k * stride
        o = out + k
        a = code[p]
        if kind == SELECT_F:
            for i in range(n):
                floats[o, i] = floats[code[p + 1] if truths[a, i] == TRUE else code[p + 2], i]
        elif kind == TO_F:
            for i in range(n):
                floats[o, i] = math.nan if truths[a, i] else float64(numbers[a, i])
        elif kind == NEG_F:
            for i in range(n):
                floats[o, i] = -floats[a, i]
        elif kind == ABS_F:
            for i in range(n):
                floats[o, i] = abs(floats[a, i])
        elif kind == ROUND_F:
            for i in range(n):
                floats[o, i] = _rounded(floats[a, i])
        elif kind == FLOOR_F:
            for i in range(n):
                floats[o, i] = np.floor(floats[a, i])
        else:
            b = code[p + 1]
            for i in range(n):
                floats[o, i] = _float_result(kind, floats[a, i], floats[b, i])


@njit([uint8(int64, int64, int64, _LISTS, boolean)], cache=True, nogil=True, error_model="numpy")
def _contained(kind: int, value: int, at: int, lists: Any, missing: bool) -> Any:
    """`contains`, three-valued: over no elements it is FALSE whatever the value."""
    start, end = lists[at], lists[at + 1]
    if start < 0:
        return uint8(NULL)
    if missing:
        return uint8(NULL if end > start else FALSE)
    answer = uint8(FALSE)
    if kind == CONTAINS_F:
        floats = lists.view(np.float64)
        wanted = np.int64(value).view(np.float64)
        for p in range(start, end):
            if floats[p] == wanted:
                return uint8(TRUE)
            if math.isnan(floats[p]):
                answer = uint8(NULL)
        return answer
    for p in range(start, end):
        if lists[p] == value:
            return uint8(TRUE)
    return answer


@njit(
    [void(int64, int64, int64, int64, int64, _CODE, _NUMBERS, _TRUTHS, _LISTS, int64)],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _tests(
    kind: int,
    count: int,
    out: int,
    stride: int,
    body: int,
    code: Any,
    numbers: Any,
    truths: Any,
    lists: Any,
    n: int,
) -> None:
    """Operations on numbers whose result is a truth."""
    floats = numbers.view(np.float64)
    room = truths.shape[1]
    for k in range(count):
        p = body + k * stride
        o = out + k
        a = code[p]
        b = code[p + 1] if stride > 1 else 0
        if kind == NULL_I:
            for i in range(n):
                truths[o, i] = truths[a, i] << 1
        elif kind == NULL_F:
            for i in range(n):
                truths[o, i] = uint8(math.isnan(floats[a, i])) << 1
        elif kind == NULL_L:
            for i in range(n):
                truths[o, i] = uint8(lists[2 * (a * room + i)] < 0) << 1
        elif kind <= NE_II:
            for i in range(n):
                left, right = numbers[a, i], numbers[b, i]
                if kind == LT_II:
                    holds = left < right
                elif kind == LE_II:
                    holds = left <= right
                elif kind == EQ_II:
                    holds = left == right
                else:
                    holds = left != right
                null = truths[a, i] | truths[b, i]
                truths[o, i] = ((uint8(holds) << 1) >> null) | null
        elif kind <= NE_FF:
            for i in range(n):
                x, y = floats[a, i], floats[b, i]
                if kind == LT_FF:
                    holds = x < y
                elif kind == LE_FF:
                    holds = x <= y
                elif kind == EQ_FF:
                    holds = x == y
                else:
                    holds = x < y or x > y
                truths[o, i] = uint8(holds) << 1 | uint8(math.isnan(x) or math.isnan(y))
        elif kind == CONTAINS_I:
            for i in range(n):
                at = 2 * (a * room + i)
                truths[o, i] = _contained(kind, numbers[b, i], at, lists, truths[b, i] != 0)
        elif kind == CONTAINS_F:
            for i in range(n):
                at = 2 * (a * room + i)
                truths[o, i] = _contained(kind, numbers[b, i], at, lists, math.isnan(floats[b, i]))
        else:
            for i in range(n):
                at = 2 * (a * room + i)
                wanted = int64(truths[b, i] == TRUE)
                truths[o, i] = _contained(kind, wanted, at, lists, truths[b, i] == NULL)


@njit(
    [void(int64, int64, int64, int64, _HALVES, _TRUTHS, int64)],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _logic(kind: int, count: int, stride: int, body: int, halves: Any, truths: Any, n: int) -> None:
    """Operations from truth to truth, over many rows or of rare kinds."""
    for k in range(count):
        p = body + k * stride
        o, a = halves[p], halves[p + 1]
        if kind in (AND, OR):
            b = halves[p + 2]
            for i in range(n):
                x, y = truths[a, i], truths[b, i]
                truths[o, i] = min(x, y) if kind == AND else max(x, y)
            for q in range(p + 3, p + stride):
                b = halves[q]
                for i in range(n):
                    x, y = truths[o, i], truths[b, i]
                    truths[o, i] = min(x, y) if kind == AND else max(x, y)
        elif kind == NOT:
            for i in range(n):
                truths[o, i] = uint8(2) - truths[a, i]
        elif kind == COPY:
            for i in range(n):
                truths[o, i] = truths[a, i]
        elif kind == NULL_T:
            for i in range(n):
                truths[o, i] = uint8(truths[a, i] == NULL) << 1
        elif kind == SELECT_T:
            b, c = halves[p + 2], halves[p + 3]
            for i in range(n):
                truths[o, i] = truths[b, i] if truths[a, i] == TRUE else truths[c, i]
        elif kind == COALESCE_T:
            b = halves[p + 2]
            for i in range(n):
                truths[o, i] = truths[b, i] if truths[a, i] == NULL else truths[a, i]
        else:
            b = halves[p + 2]
            for i in range(n):
                x, y = truths[a, i], truths[b, i]
                null = uint8(NULL in (x, y))
                truths[o, i] = null or uint8((x == y) == (kind == EQ_T)) << 1


@njit([boolean(_CODE, int64, int64, int64)], cache=True, nogil=True, error_model="numpy")
def _is_int_item(code: Any, start: int, size: int, value: int) -> Any:
    if size <= 8:
        found = False
        for p in range(start, start + size):
            found |= code[uint64(p)] == value
        return found
    before = _items_below(code, start, size, value)
    return before > 0 and code[start + before - 1] == value


@njit([boolean(_LIMITS, int64, int64, float64)], cache=True, nogil=True, error_model="numpy")
def _is_float_item(limits: Any, start: int, size: int, value: float) -> Any:
    low, high = start, start + size
    while low < high:
        middle = (low + high) >> 1
        if limits[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < start + size and limits[low] == value


@njit([uint8(int64, int64, int64)], cache=True, nogil=True, error_model="numpy", inline="always")
def _against_now(kind: int, value: int, instant: int) -> Any:
    """One instant against another, as a truth."""
    if kind == LT_NOW:
        holds = value < instant
    elif kind == LE_NOW:
        holds = value <= instant
    elif kind == GT_NOW:
        holds = value > instant
    else:
        holds = value >= instant
    return uint8(holds) << 1


@njit(
    [void(int64, int64, int64, int64, int64, _CODE, _NUMBERS, _TRUTHS, _TEXTS, int64, int64)],
    cache=True,
    nogil=True,
    error_model="numpy",
)
def _spread(
    kind: int,
    count: int,
    out: int,
    slot: int,
    body: int,
    code: Any,
    numbers: Any,
    truths: Any,
    texts: Any,
    now_us: int,
    n: int,
) -> None:
    """One register of many rows against constants."""
    floats = numbers.view(np.float64)
    limits = code.view(np.float64)
    for k in range(count):
        o = out + k
        if kind <= NE_I:
            limit = code[body + k]
            for i in range(n):
                x = numbers[slot, i]
                if kind == LE_I:
                    holds = x <= limit
                elif kind == GE_I:
                    holds = x >= limit
                elif kind == EQ_I:
                    holds = x == limit
                else:
                    holds = x != limit
                null = truths[slot, i]
                truths[o, i] = ((uint8(holds) << 1) >> null) | null
        elif kind <= NE_F:
            bound = limits[body + k]
            for i in range(n):
                y = floats[slot, i]
                if kind == LE_F:
                    holds = y <= bound
                elif kind == GE_F:
                    holds = y >= bound
                elif kind == EQ_F:
                    holds = y == bound
                else:
                    holds = y < bound or y > bound
                truths[o, i] = uint8(holds) << 1 | uint8(y != y)  # noqa: PLR0124 - a NaN
        elif kind <= GE_NOW:
            instant, overflow = _int_result(SUB_I, now_us, code[body + k])
            for i in range(n):
                null = truths[slot, i] | uint8(overflow)
                truths[o, i] = (_against_now(kind, numbers[slot, i], instant) >> null) | null
        elif kind == LIKE:
            bit = code[body + k]
            for i in range(n):
                null = truths[slot, i]
                word = uint64(0) if null else texts[numbers[slot, i], bit >> 6]
                truths[o, i] = uint8((word >> uint64(bit & 63)) & uint64(1)) << 1 | null
        else:
            start, size = code[body + 2 * k], code[body + 2 * k + 1]
            for i in range(n):
                if kind == IN_I:
                    null = truths[slot, i]
                    holds = _is_int_item(code, start, size, numbers[slot, i])
                else:
                    y = floats[slot, i]
                    null = uint8(y != y)  # noqa: PLR0124 - a NaN
                    holds = _is_float_item(limits, start, size, y)
                truths[o, i] = ((uint8(holds) << 1) >> null) | null


@njit(
    [int64(_CODE, int64, int64, int64), int64(_LIMITS, int64, int64, float64)],
    cache=True,
    error_model="numpy",
    inline="always",
)
def _below(items: Any, start: int, count: int, value: Any) -> Any:
    """How many of one or more ascending items are below the value; without a branch to guess."""
    low, left = uint64(start), uint64(count)
    while left > _ONE_WORD:
        half = left >> _ONE_WORD
        low = low + half if items[low + half - _ONE_WORD] < value else low
        left -= half
    return int64(low) - start + int64(items[low] < value)


@njit([void(_ROW, int64, int64, int64)], cache=True, error_model="numpy")
def _fill(eights: Any, out: int, count: int, truth: int) -> None:
    """Write equal truths, eight at once; up to seven behind them are written too."""
    first = out >> 3
    for w in range((count + 7) >> 3):
        eights[uint64(first + w)] = uint64(truth) * _ONES


@njit(
    [
        void(int64, int64, _CODE, int64, int64, _ROW, int64, boolean),
        void(int64, float64, _LIMITS, int64, int64, _ROW, int64, boolean),
    ],
    cache=True,
    error_model="numpy",
)
def _compare(
    test: int, value: Any, constants: Any, body: int, count: int, eights: Any, out: int, missing: bool
) -> None:
    """One value against constants, eight at once; up to seven behind them are read, and their places written."""
    kept = uint64(0) if missing else ~uint64(0)
    nulls = _ONES if missing else uint64(0)
    first = out >> 3
    for w in range((count + 7) >> 3):
        at = body + 8 * w
        if test == LE_I:
            holds = at_most(value, constants, at)
        elif test == GE_I:
            holds = at_least(value, constants, at)
        elif test == EQ_I:
            holds = equal(value, constants, at)
        else:
            holds = unequal(value, constants, at)
        eights[uint64(first + w)] = ((holds << _ONE_WORD) & kept) | nulls


@njit([void(int64, int64, _CODE, int64, int64, _ROW, int64, boolean)], cache=True, error_model="numpy")
def _compare_since(
    kind: int, since_us: int, code: Any, body: int, count: int, eights: Any, out: int, missing: bool
) -> None:
    """How long before now an instant lies, against intervals: x < now - c is c < now - x."""
    kept = uint64(0) if missing else ~uint64(0)
    nulls = _ONES if missing else uint64(0)
    opposite = _ONES if kind in (LT_NOW, GT_NOW) else uint64(0)
    first = out >> 3
    for w in range((count + 7) >> 3):
        at = body + 8 * w
        holds = at_most(since_us, code, at) if kind in (LT_NOW, GE_NOW) else at_least(since_us, code, at)
        eights[uint64(first + w)] = (((holds ^ opposite) << _ONE_WORD) & kept) | nulls


@njit([void(_CODE, _TRUTHS, int64, _ROW)], cache=True, nogil=True, error_model="numpy")
def _pack_many(code: Any, truths: Any, n: int, masks: Any) -> None:
    """The same for many rows; registers between results and other truths are nobody's."""
    base, words, results = code[AT_TRUTH], code[AT_WORDS], code[AT_RESULTS]
    parts_from = (results + 63) // 64 * 64
    used = parts_from + code[AT_PARTS]
    masks[: n * words] = uint64(0)
    for w in range(words):
        for bit in range(64 * w, min(64 * w + 64, used)):
            if results <= bit < parts_from:
                continue
            for i in range(n):
                masks[i * words + w] |= uint64(truths[base + bit, i] >> 1) << uint64(bit & 63)


@njit(
    [void(int64, int64, int64, int64, int64, _CODE, _HALVES, _NUMBERS, _TRUTHS, _TEXTS, _LISTS, int64)],
    cache=True,
    error_model="numpy",
)
def _others(
    kind: int,
    count: int,
    out: int,
    stride: int,
    body: int,
    code: Any,
    halves: Any,
    numbers: Any,
    truths: Any,
    texts: Any,
    lists: Any,
    n: int,
) -> None:
    """What is not a comparison with constants, over any number of rows."""
    if kind <= LOGIC_LAST:
        _logic(kind, count, stride, 2 * body, halves, truths, n)
    elif kind <= TEST_LAST:
        _tests(kind, count, out, stride, body, code, numbers, truths, lists, n)
    elif kind <= INT_LAST:
        _ints(kind, count, out, stride, body, code, numbers, truths, texts, n)
    else:
        _floats(kind, count, out, stride, body, code, numbers, truths, n)


@njit(
    [
        void(
            _CODE,
            _HALVES,
            _LIMITS,
            _ARENA,
            _NUMBERS,
            _BYTES,
            _TRUTHS,
            _ROW,
            _TEXTS,
            _ROW_OF_TEXTS,
            _LISTS,
            int64,
        )
    ],
    cache=True,
    error_model="numpy",
)
def _run_one(
    code: Any,
    halves: Any,
    limits: Any,
    values: Any,
    numbers: Any,
    cells: Any,
    truths: Any,
    eights: Any,
    texts: Any,
    words_of_texts: Any,
    lists: Any,
    now_us: int,
) -> None:
    """All groups over one row."""
    floats = values.view(np.float64)
    at = code[AT_BEGIN]
    end = code[AT_END]
    while at < end:
        p = uint64(at)
        kind, count, out = code[p], code[p + uint64(1)], code[p + uint64(2)]
        stride, slot, following = code[p + uint64(3)], code[p + uint64(4)], code[p + uint64(5)]
        body = at + HEADER
        at = following
        if kind <= NE_I:
            missing = cells[uint64(slot)] != 0
            _compare(kind, values[uint64(slot)], code, body, count, eights, out, missing)
        elif kind <= NE_F:
            y = floats[uint64(slot)]
            _compare(kind - LE_F, y, limits, body, count, eights, out, math.isnan(y))
        elif kind <= GE_NOW:
            x = values[uint64(slot)]
            missing = cells[uint64(slot)] != 0
            _, overflows = _int_result(SUB_I, now_us, code[uint64(body)])
            _, overflows_too = _int_result(SUB_I, now_us, code[uint64(body + count - 1)])
            since_us, unclear = _int_result(SUB_I, now_us, x)
            if (overflows or overflows_too or unclear) and not missing:
                for k in range(count):
                    instant, null = _int_result(SUB_I, now_us, code[uint64(body + k)])
                    cells[uint64(out + k)] = (_against_now(kind, x, instant) >> uint8(null)) | uint8(null)
            else:
                _compare_since(kind, since_us, code, body, count, eights, out, missing)
        elif kind == LIKE:
            if cells[uint64(slot)]:
                _fill(eights, out, count, NULL)
            else:
                row = uint64(values[uint64(slot)] * texts.shape[1])
                for k in range(count):
                    bit = uint64(code[uint64(body + k)])
                    word = words_of_texts[row + (bit >> uint64(6))]
                    cells[uint64(out + k)] = uint8((word >> (bit & uint64(63))) & uint64(1)) << 1
        elif kind <= SPREAD_LAST:
            x, y = values[uint64(slot)], floats[uint64(slot)]
            items = body + 2 * count + 1
            size = code[uint64(items - 1)]
            if math.isnan(y) if kind == IN_F else cells[uint64(slot)] != 0:
                _fill(eights, out, count, NULL)
                continue
            _fill(eights, out, count, FALSE)
            if kind == IN_F:
                k = _below(limits, items, size, y)
                found = k < size and limits[uint64(items + k)] == y
            else:
                k = _below(code, items, size, x)
                found = k < size and code[uint64(items + k)] == x
            if found:
                ends = items + size
                places = ends + size + 1
                for q in range(code[uint64(ends + k)], code[uint64(ends + k + 1)]):
                    cells[uint64(out + code[uint64(places + q)])] = TRUE
        elif kind in (AND, OR):
            first, last = 2 * body, 2 * body + stride * count
            if stride == 4 and kind == AND:
                for q in range(first, last, 4):
                    a = cells[uint64(halves[uint64(q + 1)])]
                    b = cells[uint64(halves[uint64(q + 2)])]
                    c = cells[uint64(halves[uint64(q + 3)])]
                    cells[uint64(halves[uint64(q)])] = min(a, b, c)
            elif stride == 3:
                for q in range(first, last, 3):
                    a = cells[uint64(halves[uint64(q + 1)])]
                    b = cells[uint64(halves[uint64(q + 2)])]
                    cells[uint64(halves[uint64(q)])] = min(a, b) if kind == AND else max(a, b)
            else:
                for q in range(first, last, stride):
                    a = cells[uint64(halves[uint64(q + 1)])]
                    for r in range(q + 2, q + stride):
                        b = cells[uint64(halves[uint64(r)])]
                        a = min(a, b) if kind == AND else max(a, b)
                    cells[uint64(halves[uint64(q)])] = a
        elif kind == COPY:
            for q in range(2 * body, 2 * body + 2 * count, 2):
                cells[uint64(halves[uint64(q)])] = cells[uint64(halves[uint64(q + 1)])]
        elif kind == NOT:
            for q in range(2 * body, 2 * body + 2 * count, 2):
                cells[uint64(halves[uint64(q)])] = uint8(TRUE) - cells[uint64(halves[uint64(q + 1)])]
        else:
            _others(kind, count, out, stride, body, code, halves, numbers, truths, texts, lists, 1)


@njit([void(_CODE, _NUMBERS, _TRUTHS, int64)], cache=True, error_model="numpy")
def _copy_common(code: Any, numbers: Any, truths: Any, n: int) -> None:
    """Give all rows what the first has in the registers of what they have in common."""
    at = code[AT_COMMON]
    for k in range(at + 1, at + 1 + code[at]):
        numbers[code[k], 1:n] = numbers[code[k], 0]
    at += 1 + code[at]
    for k in range(at + 1, at + 1 + code[at]):
        truths[code[k], 1:n] = truths[code[k], 0]


@njit(
    [void(_CODE, _ARENA, _TEXTS, _LISTS, int64, int64, int64, boolean, boolean)],
    cache=True,
    error_model="numpy",
)
def run(
    code: NDArray[np.int64],
    arena: NDArray[np.int64],
    texts: NDArray[np.uint64],
    lists: NDArray[np.int64],
    now_us: int,
    room: int,
    n: int,
    packs: bool,
    shares: bool,
) -> None:
    """Evaluate a program over the n rows of a block.

    Args:
        code: The program.
        arena: Slots are read, all else is written.
        texts: Rows of the texts' codes.
        lists: Lists of the rows.
        now_us: The value of `now()`.
        room: Rows that the arena has room for, b.
        n: Rows, at most b.
        packs: Whether the masks are written too.
        shares: Whether all rows have the same in the slots that were said to be common; it is looked at once then.
    """
    if n == 0:
        return
    numbers_end = code[AT_NUMBERS] * room
    cells_end = numbers_end + (code[AT_CELLS] * room >> 3)
    values = arena[:numbers_end]
    cells = arena[numbers_end:cells_end].view(np.uint8)
    masks = arena[cells_end:].view(np.uint64)
    numbers = values.reshape(code[AT_NUMBERS], room)
    truths = cells.reshape(code[AT_CELLS], room)
    halves = code.view(np.int32)
    at_now = code[AT_NOW]
    if at_now >= 0:
        for i in range(n):
            numbers[at_now, i] = now_us
            truths[at_now, i] = 0
    if room == 1:
        eights, flat = cells.view(np.uint64), texts.reshape(texts.size)
        limits = code.view(np.float64)
        _run_one(code, halves, limits, values, numbers, cells, truths, eights, texts, flat, lists, now_us)
        if packs:
            for w in range(code[AT_WORDS]):
                masks[w] = packed(cells, code[AT_TRUTH] + 64 * w)
        return
    at, rows = code[AT_BEGIN], 1 if shares else n
    while True:
        if at == code[AT_EACH] and rows < n:
            _copy_common(code, numbers, truths, n)
            rows = n
        if at >= code[AT_END]:
            break
        kind, count, out, stride, slot = code[at], code[at + 1], code[at + 2], code[at + 3], code[at + 4]
        body = at + HEADER
        at = code[at + 5]
        if kind <= SPREAD_LAST:
            _spread(kind, count, out, slot, body, code, numbers, truths, texts, now_us, rows)
        else:
            _others(kind, count, out, stride, body, code, halves, numbers, truths, texts, lists, rows)
    if packs:
        _pack_many(code, truths, n, masks)


run_now = run.get_overload(run.signatures[0])
"""`run` without the look at its arguments' types that every call of a dispatcher takes; they must be right."""
