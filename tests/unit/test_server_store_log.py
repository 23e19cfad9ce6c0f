"""A store that does not answer is told once, with the reason, and so is its return."""

from __future__ import annotations

from structlog.testing import capture_logs

from server.store_log import PATIENCE_S, StoreLog


def test_an_outage_is_told_once_with_its_reason_and_its_end() -> None:
    """However many reads fail meanwhile."""
    now = [10.0]
    log = StoreLog(lambda: now[0])
    with capture_logs() as said:
        for error in (None, "wrong password", "not asked: wrong password"):
            log(error)
        now[0] += 2.5
        for error in (None, None):
            log(error)
    assert said == [
        {"event": "store.unanswered", "error": "wrong password", "log_level": "warning"},
        {"event": "store.answers_again", "silent_s": 2.5, "log_level": "info"},
    ]


def test_a_store_that_comes_and_goes_is_told_once_a_minute() -> None:
    """Its return only where its absence was told."""
    now = [0.0]
    log = StoreLog(lambda: now[0])
    with capture_logs() as said:
        for second in range(100):
            now[0] = PATIENCE_S * second / 50
            log("gone")
            log(None)
    assert [line["event"] for line in said] == ["store.unanswered", "store.answers_again"] * 2
