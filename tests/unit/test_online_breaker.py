from __future__ import annotations

from collections.abc import Callable

from online.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, THRESHOLD, Breaker
from online.near import NearCache
from tests.support.resp import framed


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Time, draw: float = 1.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(clock, lambda: draw)
    for _ in range(THRESHOLD):
        assert breaker.closed
        breaker.failure()
    assert not breaker.closed
    assert breaker.opened == 1
    return breaker


def test_an_open_breaker_admits_one_trial_and_only_if_it_may_wait_for_it() -> None:
    """One caller at a time, none whose time ends before the pause does, and everybody after a success."""
    clock = Time()
    breaker = opened(clock)
    assert breaker.admit(clock.now + FIRST_PAUSE_S / 2) is None
    assert breaker.admit(clock.now + 1) is not None
    assert breaker.admit(clock.now + 1) is None
    breaker.end_trial()
    assert breaker.admit(clock.now + 1) is not None
    breaker.success()
    assert breaker.closed


def test_pauses_grow_to_a_bound_and_are_drawn_apart() -> None:
    """Each failure doubles the pause up to the longest, and two processes do not come back together."""
    clock = Time()
    early, late = opened(clock, 0.0), opened(clock, 1.0)
    for _ in range(20):
        early.failure()
        late.failure()
    first, last = early.admit(clock.now + 1), late.admit(clock.now + 1)
    assert first is not None
    assert last is not None
    assert LONGEST_PAUSE_S / 2 <= first < last <= LONGEST_PAUSE_S + 1e-9


def test_the_near_cache_keeps_within_its_bounds() -> None:
    """The oldest leaves first, by number and by bytes; what is larger than the cache is not kept."""
    reply = framed(b"*1\r\n$3\r\nabc\r\n")
    cache = NearCache(max_entries=3, max_bytes=1 << 20)
    for number in range(5):
        assert cache.keep(cache.begin(b"k%d" % number, "n"), b"c%d" % number, reply)
    assert [b"c%d" % number in cache for number in range(5)] == [False, False, True, True, True]
    small = NearCache(max_bytes=2 * cache.size_bytes // 3)
    for number in range(5):
        small.keep(small.begin(b"k%d" % number, "n"), b"c%d" % number, reply)
    assert len(small) == 2
    assert not small.keep(small.begin(b"k", "n"), b"x" * small.size_bytes, reply)


def test_the_near_cache_discards_what_an_invalidation_overtook() -> None:
    """A reply that was on its way when its key changed, or when the connection was lost, is not kept."""
    reply = framed(b"*1\r\n$3\r\nabc\r\n")
    overtakings: tuple[Callable[[NearCache], None], ...] = (
        lambda cache: cache.take_push([b"invalidate", [b"k"]]),
        lambda cache: cache.take_push([b"invalidate", None]),
        lambda cache: cache.lose("node"),
    )
    for overtake in overtakings:
        cache = NearCache()
        fill, other = cache.begin(b"k", "node"), cache.begin(b"k2", "another")
        overtake(cache)
        assert not cache.keep(fill, b"c", reply)
        cache.keep(other, b"c2", reply)
        assert cache.keep(cache.begin(b"k", "node"), b"c", reply)


def test_the_near_cache_drops_all_commands_of_a_key_and_sets_of_them() -> None:
    """Two readings of one entity, and what was put together of them, go with it; others stay."""
    reply = framed(b"*1\r\n$3\r\nabc\r\n")
    cache = NearCache()
    for key, command in ((b"k", b"c1"), (b"k", b"c2"), (b"other", b"c3")):
        cache.keep(cache.begin(key, "node"), command, reply)
    kept = cache.all_of((b"c1", b"c3"))
    assert kept is not None
    assert len(kept.replies) == 2
    assert cache.all_of((b"c1", b"c3")) is kept
    cache.take_push([b"invalidate", [b"k"]])
    assert cache.all_of((b"c1", b"c3")) is None
    assert [command in cache for command in (b"c1", b"c2", b"c3")] == [False, False, True]
    assert cache.all_of((b"c3",)) is not None
