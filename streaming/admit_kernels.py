"""The inner loops that tell which events of a batch are in time, and put apart what counts and what does not."""

from __future__ import annotations

from numba import njit, types

from streaming.recent_kernels import SAME

KINDS = 5
"""What counts, what is repeated, crowded, late or ahead."""
TIMELY, LATE, AHEAD = 0, 4, 5
"""What an event is by its time, beside what its id may turn out to be; timely ones are new until something is known."""

_V, _M = types.int64[::1], types.uint8[::1]


@njit(
    [types.UniTuple(types.int64, 3)(_V, _V, _V, types.int64, types.int64, types.int64, _M, _V)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def judge(time_us, event_rows, event_us, now_us, ceiling_us, lateness_us, marks, timely):  # type: ignore[no-untyped-def]
    """Move the clock from record to record, and judge each event by it.

    Args:
        time_us: Logical time of each record.
        event_rows: For each event the number of its record.
        event_us: Time of each event.
        now_us: The clock before the first.
        ceiling_us: It does not move past that, and events may not lie past it.
        lateness_us: How much later than its event time an event may arrive.
        marks: Takes what each event is.
        timely: Takes the numbers of those in time.

    Returns:
        The clock behind the last record, how many events are in time, and 1 where the ceiling decided anything, else 0.
    """
    clock_us, count, event, is_capped = now_us, 0, 0, 0
    for row in range(time_us.shape[0]):
        moved_us = time_us[row]
        if moved_us > ceiling_us:
            moved_us, is_capped = ceiling_us, 1
        if event < event_rows.shape[0] and event_rows[event] == row:
            if event_us[event] > ceiling_us:
                marks[event], is_capped = AHEAD, 1
            else:
                if event_us[event] < max(clock_us, moved_us) - lateness_us:
                    marks[event] = LATE
                else:
                    marks[event] = TIMELY
                    timely[count] = event
                    count += 1
                # Clients may be ahead of the server by what the schema allows; time never runs behind an event.
                moved_us = max(moved_us, event_us[event])
            event += 1
        clock_us = max(clock_us, moved_us)
    return clock_us, count, is_capped


@njit([types.void(_M, _V, _V)], cache=True, nogil=True, boundscheck=False)
def put_apart(marks, order, stops):  # type: ignore[no-untyped-def]
    """Order events by what they are, and among their like as they came.

    Args:
        marks: What each event is.
        order: Takes the numbers of those that count, the repeated, the crowded, the late and those ahead.
        stops: Takes where each of these kinds ends.
    """
    stops[:] = 0
    for i in range(marks.shape[0]):
        stops[max(marks[i] - SAME, 0)] += 1
    place = 0
    for kind in range(stops.shape[0]):
        place += stops[kind]
        stops[kind] = place - stops[kind]
    for i in range(marks.shape[0]):
        kind = max(marks[i] - SAME, 0)
        order[stops[kind]] = i
        stops[kind] += 1
