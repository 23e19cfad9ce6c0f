"""Events that are put aside: how those that cannot be applied are told from the ones beside them, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from online.errors import KeyEncodingError, ValueEncodeError
from streaming.admit import Admitted
from streaming.errors import TransformError
from streaming.events import EventSchema
from streaming.log import Records
from streaming.owner import DeadLetter
from streaming.reasons import AHEAD, CROWDED, CROWDED_DETAIL, FIELDS, LATE
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
MAX_DETAIL_CHARS = 500
"""Of why a letter was put aside; what a function raises is of any length."""


def refused(attempt: Callable[[IntArray], object], rows: IntArray) -> Iterator[tuple[int, Exception]]:
    """Those of some rows that an attempt at each alone refuses, in order, and the errors.

    An attempt at rows together is refused where one of them would be. A few are found by halves; where one follows the
    other, one attempt finds each. An attempt costs no more than what it does, so this is for what is done without the
    store.
    """
    start, size, bad_stop = 0, len(rows), 0
    while start < len(rows):
        if bad_stop > start:
            size = max((bad_stop - start) // 2, 1)
        some = rows[start : start + size]
        try:
            attempt(some)
        except POISON as error:
            bad_stop = start + len(some)
            if len(some) > 1:
                continue
            yield int(some[0]), error
            size = 0
        start += len(some)
        size = max(4 * size, 1)


def halves(records: Records, due: Sequence[Member]) -> list[tuple[Records, Sequence[Member]]]:
    """Both, cut in two."""
    half, rest = len(records) // 2, len(due) // 2
    return [(records[:half], due[:rest]), (records[half:], due[rest:])]


def why(error: Exception) -> str:
    """Why an event cannot be applied, for a reader who has it alone before them."""
    return error.detail if isinstance(error, ValueRefused | SumOverflow) else str(error)


def letter(records: Records, event: int, reason: str, detail: str) -> DeadLetter:
    """What is put aside of an event, by its number."""
    row = records.event_rows[event]
    # An error may say half a character, which UTF-8 cannot hold.
    detail = detail.encode(errors="backslashreplace").decode()
    return DeadLetter(
        position=int(records.positions[row]),
        reason=reason,
        field=FIELDS.get(reason, ""),
        detail=detail if len(detail) <= MAX_DETAIL_CHARS else detail[: MAX_DETAIL_CHARS - 1] + "…",
        arrived_us=int(records.arrived_us[row]),
        event=records.events.texts[event],
    )


def put_aside(admitted: Admitted) -> dict[str, IntArray]:
    """Events of a batch that are put aside because of when or how often they came, by reason."""
    return {CROWDED: admitted.crowded, LATE: admitted.late, AHEAD: admitted.ahead}


def letters(records: Records, admitted: Admitted, schema: EventSchema) -> list[DeadLetter]:
    """What is said of them."""
    said = {
        CROWDED: CROWDED_DETAIL,
        LATE: f"arrived more than {schema.lateness_s} s after its event time",
        AHEAD: f"lies more than {schema.max_future_s} s ahead of the materializer's clock",
    }
    return [
        letter(records, event, reason, said[reason])
        for reason, events in put_aside(admitted).items()
        for event in events.tolist()
    ]
