"""Lines that `waypost publish` takes for events."""

from __future__ import annotations

import pytest

from server.commands.event_lines import BATCH, LineError, batches

GOOD = b'{"eventId": "e1", "eventType": "visit", "customerId": "17"}\n'


def test_lines_become_batches_in_their_order() -> None:
    """Empty lines count as lines and are no events; a mark of the byte order is no part of the first."""
    lines = [
        b"\xef\xbb\xbf" + GOOD,
        b"\n",
        *(GOOD.replace(b"e1", f"e{n}".encode()) for n in range(2, BATCH + 2)),
    ]
    found = [[event.event_id for event in request.events] for request in batches(lines)]
    assert [len(each) for each in found] == [BATCH, 1]
    assert [name for each in found for name in each] == [f"e{n}" for n in range(1, BATCH + 2)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"eventId": "e1"\n', "Expecting ',' delimiter, at character 17"),
        (b"[1]\n", "it is JSON, and no object of an event's fields"),
        (b'"e1"', "it is JSON, and no object"),
        (b'{"eventId": "\xff"}\n', "byte 14 of it is not UTF-8"),
        (b'{"event": "e1"}\n', 'no field named "event"'),
    ],
)
def test_a_line_that_is_no_event_is_told_with_its_place(line: bytes, said: str) -> None:
    """Its number among the lines, and what is wrong within it."""
    with pytest.raises(LineError, match=r"^line 3 is no event: ") as refused:
        list(batches([GOOD, b"\n", line]))
    assert said in str(refused.value)
