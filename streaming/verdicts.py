"""What was judged by more than the log tells, noted until the checkpoint is behind it.

A record that is read again after a crash must be judged as it was, for what came behind it may be applied. Repetition
follows from what the store has of the customer, and lateness from the log as far as time moves by it. Three judgements
do not: how far time may move hangs on the system's clock; what windows refuse on states that have gone on since; and
for how many ids of a customer there is room on which of them were forgotten meanwhile. So these are written down before
anything that follows from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from streaming.admit import Admitted
from streaming.log import Records
from streaming.reasons import CROWDED, CROWDED_DETAIL, NOT_APPLICABLE, PARTLY_APPLIED

LEFT_OUT = (NOT_APPLICABLE, CROWDED, PARTLY_APPLIED)
"""For these reasons there are letters by more than the log tells, whatever the clock says."""
_CEILING, _REACHED = "CEILING", "REACHED"


class Verdict(NamedTuple):
    """One judgement as the store keeps it.

    Attributes:
        word: What it says.
        position: The last one that it is about.
    """

    word: bytes
    position: int


class _Ceiling(NamedTuple):
    """Time was not to move past a moment, while records from one position to another were judged."""

    first: int
    last: int
    most_us: int


def leaving_out(reason: str, position: int, detail: str) -> Verdict:
    """The event there is passed over when it is read again; the detail is for its letter."""
    return Verdict(f"{reason}:{position}:{detail}".encode(), position)


def position_of(word: bytes) -> int:
    """The last position that a word of the store is about."""
    name, first, rest = word.decode().split(":", 2)
    return int(rest.split(":")[0] if name == _CEILING else first)


class Verdicts:
    """What is known to be judged behind the checkpoint.

    Args:
        words: As the store has them.
        after: Position of the checkpoint.

    Attributes:
        reached_us: Time had come so far when something was found to be late.
    """

    def __init__(self, words: Iterable[bytes] = (), after: int = 0) -> None:
        self.reached_us = 0
        self._ceilings: list[_Ceiling] = []
        self._left_out: dict[str, dict[int, str]] = {reason: {} for reason in LEFT_OUT}
        for word in words:
            name, rest = word.decode().split(":", 1)
            if name == _CEILING:
                self._ceilings.append(_Ceiling(*map(int, rest.split(":"))))
            elif name == _REACHED:
                self.reached_us = max(self.reached_us, int(rest.split(":")[1]))
            else:
                position, detail = rest.split(":", 1)
                self._left_out[name][int(position)] = detail
        self._ceilings.sort()
        self.forget(after)

    @property
    def are_none(self) -> bool:
        """Whether nothing is known."""
        return not self._ceilings and not any(self._left_out.values())

    def of(self, records: Records, admitted: Admitted) -> Iterator[Verdict]:
        """What must be noted of a batch before it is applied; the batch is judged so from now on."""
        if admitted.ceiling_us is not None:
            ceiling = _Ceiling(int(records.positions[0]), int(records.positions[-1]), admitted.ceiling_us)
            if ceiling not in self._ceilings:
                self._ceilings = sorted([*self._ceilings, ceiling])
                word = ":".join([_CEILING, *map(str, ceiling)])
                yield Verdict(word.encode(), ceiling.last)
        if len(admitted.late):
            last = int(records.positions[-1])
            yield Verdict(f"{_REACHED}:{last}:{admitted.now_us}".encode(), last)
        for position in records.event_positions[admitted.crowded].tolist():
            self._left_out[CROWDED][position] = CROWDED_DETAIL
            yield leaving_out(CROWDED, position, CROWDED_DETAIL)

    def told(self, records: Records) -> Records:
        """The first of some records, as many as are judged under one ceiling."""
        if not len(records):
            return records
        first = int(records.positions[0])
        for ceiling in self._ceilings:
            if first <= ceiling.last:
                stop = ceiling.last if ceiling.first <= first else ceiling.first - 1
                return records[: int(np.searchsorted(records.positions, stop, "right"))]
        return records

    def left_out(self, records: Records, reason: str) -> dict[int, str]:
        """Events that are dealt with already, by number, with the detail of their letters, for one reason."""
        own = self._left_out[reason]
        if not own:
            return {}
        places = records.event_positions
        events = np.isin(places, list(own)).nonzero()[0]
        return {event: own[int(places[event])] for event in events.tolist()}

    def ceiling_us(self, records: Records) -> int | None:
        """What time was not to move past when the first of some records was judged, if that is noted."""
        if not len(records):
            return None
        first = int(records.positions[0])
        return next(
            (ceiling.most_us for ceiling in self._ceilings if ceiling.first <= first <= ceiling.last), None
        )

    def forget(self, until: int) -> None:
        """Forget what is about nothing behind a position: it is not judged again."""
        if self.are_none:
            return
        self._ceilings = [ceiling for ceiling in self._ceilings if ceiling.last > until]
        for name, positions in self._left_out.items():
            self._left_out[name] = {
                position: detail for position, detail in positions.items() if position > until
            }
