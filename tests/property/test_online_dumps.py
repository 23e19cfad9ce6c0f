"""Dumped hashes against the same by HGETALL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from online.dumps import LISTPACK, STRINGS, check, string_at
from online.replies import Replies
from tests.support.dumps import TRAILER, Pairs, compact_dump, entry, large_dump, length, listpack
from tests.support.resp import bulk, framed, hgetall_reply, hmget_reply

texts = st.binary(max_size=9) | st.sampled_from(
    [0, 63, 64, 120, 124, 127, 128, 4_095, 4_096, 16_379, 16_384, 70_000]
).map(lambda size: bytes(size % 251 for _ in range(size)))
hashes = st.lists(st.tuples(texts, texts), max_size=6)


def checked(data: bytes) -> tuple[Replies, int]:
    """Look at the dumps among replies; how many are odd."""
    replies = framed(data)
    return replies, check(replies.data, replies.leaves, replies.table)


def strings(replies: Replies, row: int) -> list[bytes | None]:
    """The strings of a reply."""
    kind, first, stop, _, _ = replies.table[row].tolist()
    spans = replies.leaves[first:stop].tolist()
    if kind in (STRINGS, LISTPACK):
        ((start, size),) = spans
        spans = list(dumped(replies, kind, start, start + size))
    return [None if size < 0 else replies.data[start : start + size].tobytes() for start, size in spans]


def dumped(replies: Replies, kind: int, at: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where the strings of a dump lie."""
    base = replies.data.ctypes.data
    while at < stop:
        start, size, behind = string_at(kind, base + at, base + stop)
        at = behind - base
        yield start - base, size


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
        wanted += [
            (LISTPACK if write is compact_dump else STRINGS, whole),
            (ord("%"), whole),
            (ord("*"), [None, b"x"]),
            (STRINGS, []),
            (STRINGS, []),
            (ord("-"), [b"ERR no"]),
        ]
    replies, odd = checked(b"".join(parts))
    assert odd == 0
    assert [(replies.table[row, 0], strings(replies, row)) for row in range(len(replies))] == wanted


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
    replies, odd = checked(bulk(dump) + bulk(compact_dump([(b"f", b"v")])))
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
    replies, odd = checked(bulk(bytes(damaged)))
    start, end = replies.table[0, 3:].tolist()
    if odd:
        assert strings(replies, 0) == [bytes(damaged)]
        return
    ((first, size),) = replies.leaves.tolist()
    assert start <= first
    assert first + size <= end
    spans = list(dumped(replies, replies.table[0, 0], first, first + size))
    assert len(spans) % 2 == 0
    for at, size in spans:
        assert start <= at
        assert at + size <= end
        start = at + size
