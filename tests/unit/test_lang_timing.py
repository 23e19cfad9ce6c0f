"""When time alone changes a condition."""

from __future__ import annotations

import pytest

from decision.lang.instants import parse_instant
from decision.lang.interpreter import evaluate
from decision.lang.timing import next_flip_us
from decision.schema import Value
from tests.support.lang_world import expression

MINUTE_US = 60_000_000
NOW_US = parse_instant("2026-11-23T12:00:00Z") or 0
ABANDONED = (
    "session.last_cart_at < now() - 30 minutes"
    " AND session.last_cart_at > coalesce(session.last_purchase_at, epoch())"
)


def flip(text: str, row: dict[str, Value], now_us: int = NOW_US) -> int | None:
    return next_flip_us(expression(text), row, now_us)


def test_abandoned_cart_flips_half_an_hour_later() -> None:
    """The first microsecond at which the comparison holds, then never again."""
    row: dict[str, Value] = {"session.last_cart_at": NOW_US}
    at_us = flip(ABANDONED, row)
    assert at_us == NOW_US + 30 * MINUTE_US + 1
    assert evaluate(expression(ABANDONED), row, at_us - 1) is False
    assert evaluate(expression(ABANDONED), row, at_us) is True
    assert flip(ABANDONED, row, at_us) is None


def test_bought_cart_needs_no_timer() -> None:
    """While the other half is FALSE for good, the first half's change does not matter."""
    row: dict[str, Value] = {"session.last_cart_at": NOW_US, "session.last_purchase_at": NOW_US + 1}
    assert flip(ABANDONED, row) is None


def test_missing_value_needs_no_timer() -> None:
    """NULL stays NULL."""
    assert flip(ABANDONED, {}) is None


def test_condition_without_now_never_flips() -> None:
    """Only now() moves."""
    assert flip("i > 3 OR hour(t) = 3", {"v.i": 1, "v.t": NOW_US}) is None


@pytest.mark.parametrize(
    ("text", "after_us"),
    [
        ("now() - t > 1 hour", 60 * MINUTE_US + 1),
        ("now() - t >= 1 hour", 60 * MINUTE_US),
        ("now() - t = 1 hour", 60 * MINUTE_US),
        ("(now() - t) * 2 >= 1 hour", 30 * MINUTE_US),
        ("t - now() < -1 hour", 60 * MINUTE_US + 1),
        ("abs(t + 1 hour - now()) > 10 minutes", 50 * MINUTE_US),
        ("greatest(now(), t + 1 hour) > t + 1 hour", 60 * MINUTE_US + 1),
        ("CASE WHEN now() > t + 5 minutes THEN b ELSE TRUE END", 5 * MINUTE_US + 1),
        ("now() IN (t + 1 minute, t + 2 minutes)", MINUTE_US),
        ("hour(now()) = 13", 60 * MINUTE_US),
        ('hour(now(), "Asia/Kathmandu") = 18', 15 * MINUTE_US),
        ("hour(now() + 30 minutes) = 13", 30 * MINUTE_US),
        ("weekday(now()) = 2", 720 * MINUTE_US),
        ("hour(now() - 1 hour) <> 11", 60 * MINUTE_US),
        ("NOT (now() > t + 1 minute)", MINUTE_US + 1),
        ("(now() > t + 1 minute) IS NULL", None),
    ],
)
def test_flip_is_the_exact_instant(text: str, after_us: int | None) -> None:
    """Comparisons that are linear in now() and date parts of it are solved, not searched."""
    row: dict[str, Value] = {"v.t": NOW_US, "v.b": False}
    assert flip(text, row) == (None if after_us is None else NOW_US + after_us)


def test_flip_crosses_a_daylight_saving_change() -> None:
    """Berlin's clock skips from two to three: two o'clock never comes that night."""
    before_us = parse_instant("2026-03-29T00:30:00Z") or 0
    at_us = flip('hour(now(), "Europe/Berlin") = 3', {}, before_us)
    assert at_us == before_us + 30 * MINUTE_US


def test_flip_far_ahead_is_a_superset() -> None:
    """Beyond the bounded number of looks the answer comes early, and asking again goes on from there."""
    row: dict[str, Value] = {}
    now_us, asked = NOW_US, 0
    condition = expression("month(now()) = 6")
    while evaluate(condition, row, now_us) is False:
        now_us = next_flip_us(condition, row, now_us) or 0
        asked += 1
    assert now_us == parse_instant("2027-06-01T00:00:00Z")
    assert 1 < asked < 10


def test_flip_of_a_moving_value_is_the_next_microsecond() -> None:
    """A value that moves with time changes at once."""
    assert flip("now() - t", {"v.t": 0}) == NOW_US + 1
