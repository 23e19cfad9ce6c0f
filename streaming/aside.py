"""Events that are put aside: how those that cannot be applied are told from the ones beside them, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from online.errors import KeyEncodingError, ValueEncodeError
from streaming.admit import Admitted
from streaming.errors import TransformError
from streaming.events import EventSchema
from streaming.log import Records
from streaming.owner import DeadLetter
from streaming.recent import MAX_RECENT_IDS
from streaming.timers import Member
from streaming.windows.errors import SumOverflow, ValueRefused

IntArray = npt.NDArray[np.int64]

POISON = (
    ValueRefused,
    SumOverflow,
    TransformError,
    ValueEncodeError,
    KeyEncodingError,
    OverflowError,
    UnicodeEncodeError,
)
"""What one event can cause by its content; it must never stop the events behind it."""
NOT_APPLICABLE = "NOT_APPLICABLE"
"""Why such an event is put aside."""


def refused(attempt: Callable[[IntArray], object], rows: IntArray) -> Iterator[int]:
    """Those of some rows that an attempt at each alone refuses, in order; found by halves.

    An attempt at rows together is refused where one of them would be. It costs no more than what it does, so this is
    for what is done without the store.
    """
    if not len(rows):
        return
    try:
        attempt(rows)
    except POISON:
        if len(rows) == 1:
            yield int(rows[0])
        else:
            half = len(rows) // 2
            yield from refused(attempt, rows[:half])
            yield from refused(attempt, rows[half:])


def around(records: Records, events: Sequence[int]) -> list[Records]:
    """Records cut so that each of some events, by their numbers in order, is alone."""
    rows = records.event_rows[list(events)]
    cuts = sorted({0, len(records), *rows.tolist(), *(rows + 1).tolist()})
    return [records[start:stop] for start, stop in pairwise(cuts)]


def halves(records: Records, due: Sequence[Member]) -> list[tuple[Records, Sequence[Member]]]:
    """Records before what is due; where there is one of both alone, its halves."""
    if len(records) and due:
        return [(records, ()), (Records.none(), due)]
    half, rest = len(records) // 2, len(due) // 2
    return [(records[:half], due[:rest]), (records[half:], due[rest:])]


def letter(records: Records, event: int, reason: str, field_name: str, detail: str) -> DeadLetter:
    """What is put aside of an event, by its number."""
    row = records.event_rows[event]
    return DeadLetter(
        position=int(records.positions[row]),
        reason=reason,
        field=field_name,
        detail=detail,
        arrived_us=int(records.arrived_us[row]),
        event=records.events.texts[event],
    )


def letters(records: Records, admitted: Admitted, schema: EventSchema) -> list[DeadLetter]:
    """What is put aside of a batch's events because of when or how often they came."""
    late = f"arrived more than {schema.lateness_s} s after its event time"
    ahead = f"lies more than {schema.max_future_s} s ahead of the materializer's clock"
    crowded = f"its customer brought {MAX_RECENT_IDS} events within {schema.lateness_s} s already"
    return [
        letter(records, event, *why)
        for events, why in (
            (admitted.crowded, ("CROWDED", "customer_id", crowded)),
            (admitted.late, ("LATE", "event_time", late)),
            (admitted.ahead, ("AHEAD", "event_time", ahead)),
        )
        for event in events.tolist()
    ]
