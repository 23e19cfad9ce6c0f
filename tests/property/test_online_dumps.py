"""Dumped hashes against the same by HGETALL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from online.dumps import MOST_STRINGS, NO_ROOM, unpack
from online.replies import Replies
from tests.support.dumps import TRAILER, Pairs, compact_dump, entry, large_dump, length, listpack
from tests.support.resp import bulk, framed, hgetall_reply, hmget_reply

texts = st.binary(max_size=9) | st.sampled_from(
    [0, 63, 64, 120, 124, 127, 128, 4_095, 4_096, 16_379, 16_384, 70_000]
).map(lambda size: bytes(size % 251 for _ in range(size)))
hashes = st.lists(st.tuples(texts, texts), max_size=6)


def unpacked(data: bytes) -> tuple[Replies, int]:
    """Read the dumps among replies; how many are odd."""
    replies = framed(data)
    leaves = np.empty((1, 2), np.int64)
    table = np.empty_like(replies.table)
    while True:
        count, odd = unpack(replies.data, replies.leaves, replies.table, leaves, table)
        if count != NO_ROOM:
            return Replies(replies.data, leaves[:count], table), odd
        leaves = np.empty((2 * len(leaves), 2), np.int64)


def strings(replies: Replies, row: int) -> list[bytes | None]:
    """The strings of a reply."""
    _, first, stop, _, _ = replies.table[row].tolist()
    return [
        None if size < 0 else replies.data[start : start + size].tobytes()
        for start, size in replies.leaves[first:stop].tolist()
    ]


@given(st.lists(st.tuples(hashes, st.sampled_from([compact_dump, large_dump])), min_size=1, max_size=4))
def test_dumps_hold_what_hgetall_says(stored: Sequence[tuple[Pairs, Callable[[Pairs], bytes]]]) -> None:
    """Fields and values of whatever sizes, in the order of the server, with other replies between them."""
    parts, wanted = [], []
    for pairs, write in stored:
        parts += [
            bulk(write(pairs)),
            hgetall_reply(pairs),
            hmget_reply([None, b"x"]),
            bulk(None),
            b"$-1\r\n",
            b"-ERR no\r\n",
        ]
        whole = [text for pair in pairs for text in pair]
        wanted += [("%", whole), ("%", whole), ("*", [None, b"x"]), ("%", []), ("%", []), ("-", [b"ERR no"])]
    replies, odd = unpacked(b"".join(parts))
    assert odd == 0
    assert [(chr(replies.table[row, 0]), strings(replies, row)) for row in range(len(replies))] == wanted


@pytest.mark.parametrize(
    "dump",
    [
        b"",
        TRAILER,
        b"\x00" + length(3) + b"abc" + TRAILER,  # a string
        b"\x10" + b"\xc3\x0a\x14" + bytes(10) + TRAILER,  # compressed
        b"\x10" + length(9) + listpack([b"\x05\x01", entry(b"a")]) + TRAILER,  # a number
        b"\x10" + length(10) + listpack([entry(b"a")]) + TRAILER,  # a field without a value
        b"\x10" + length(15) + listpack([entry(b"a"), entry(b"b")])[:-1] + b"\xfe" + TRAILER,  # no end
        b"\x04" + length(1) + b"\xc0\x07" + length(1) + b"a" + TRAILER,  # a number
        b"\x04" + length(2) + length(1) + b"a" + TRAILER,  # cut short
        b"\x04" + length(1) + (length(1) + b"a") * 3 + TRAILER,  # something behind
        b"\x04" + b"\x81" + bytes(8) + TRAILER,  # a length of 64 bits
        b"\x16" + bytes(12) + TRAILER,  # fields that expire
    ],
)
def test_odd_dumps_stay_one_string(dump: bytes) -> None:
    """What is not read is told from what is, and what comes behind it is read."""
    replies, odd = unpacked(bulk(dump) + bulk(compact_dump([(b"f", b"v")])))
    assert odd == 1
    assert chr(replies.table[0, 0]) == "$"
    assert strings(replies, 0) == [dump]
    assert strings(replies, 1) == [b"f", b"v"]


@settings(max_examples=300)
@example(compact_dump([(b"a", b"b")]), [(8, 0xF0)], 0)
@given(
    hashes.flatmap(lambda pairs: st.sampled_from([compact_dump(pairs)[:300], large_dump(pairs)[:300]])),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
)
def test_damaged_dumps_are_read_within_their_bytes(
    dump: bytes, changes: Sequence[tuple[int, int]], cut: int
) -> None:
    """Whatever was changed or is missing, strings are pairs that lie behind each other inside of the dump."""
    damaged = bytearray(dump[: len(dump) - cut])
    for place, byte in changes:
        if place < len(damaged):
            damaged[place] = byte
    replies, odd = unpacked(bulk(bytes(damaged)))
    start, end = replies.table[0, 3:].tolist()
    spans = replies.leaves.tolist()
    assert len(spans) % 2 == 0 or odd
    for at, size in spans:
        assert start <= at
        assert at + size <= end
        start = at + size


def test_full_tables_make_no_dump_odd() -> None:
    """Wherever in a pipeline the room ends, there is more of it, and all dumps are read."""
    pairs = [(b"f%d" % number, b"v") for number in range(33)]
    for before in range(12):
        data = hmget_reply([b"x"] * before) + bulk(compact_dump(pairs)) + bulk(large_dump(pairs))
        replies, odd = unpacked(data)
        assert odd == 0
        assert [len(strings(replies, row)) for row in range(3)] == [before, 66, 66]


def test_dumps_of_too_many_strings_are_odd() -> None:
    """Where each byte is a string, the table stays within its bound, and what comes before and behind is read."""
    pairs = [(b"f", b"v")]
    hostile = b"\x04" + length(MOST_STRINGS // 2) + bytes(MOST_STRINGS) + TRAILER
    replies, odd = unpacked(bulk(compact_dump(pairs)) + bulk(hostile) + bulk(large_dump(pairs)))
    assert odd == 1
    assert [len(strings(replies, row)) for row in range(3)] == [2, 1, 2]
