"""The writes of a batch on their way: announced by an intent, then written, beside what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from online.entity_commands import Wanted
from online.entity_line import EntityLine
from online.write import EntityWriter
from streaming.journal import Intent, Part
from streaming.owner import PartitionOwner
from streaming.plan import EntityKind
from streaming.sink import OfflineSink
from streaming.timers import Member
from streaming.writes import PreparedWrites, Written, note_written, send_behind, send_writes


@dataclass(frozen=True, slots=True)
class Sent:
    """Writes on their way.

    Attributes:
        intent: What they were announced by.
        announced: Entries that the index of timers has by the intent.
        written: What became of the writes, and the wall time at which they were done.
        intended: Done once the intent is written down, and what was to be done with it; None where that happens in one
            piece with the writes.
    """

    writes: Sequence[PreparedWrites]
    intent: Intent
    announced: Mapping[Member, int]
    written: Future[tuple[list[Written], int]]
    intended: Future[None] | None = None

    def await_intent(self) -> None:
        """Wait until the intent is written down."""
        (self.intended or self.written).result()


class Sender:
    """Numbers intents, and has them and what they announce written by a thread of its own.

    Args:
        writer: The conditional write.
        owner: The right to write down intents.
        sink: Lays rows out for the offline store.

    Attributes:
        number: Of the last intent.
        created_us: Wall time of its rows; it grows from one to the next.
    """

    def __init__(self, writer: EntityWriter, owner: PartitionOwner, sink: OfflineSink) -> None:
        self._writer = writer
        self._owner = owner
        self._sink = sink
        self._line = EntityLine(writer)
        self._thread = ThreadPoolExecutor(1, "writes")
        self._apart: Future[tuple[list[Written], int]] | None = None
        self.number = 0
        self.created_us = 0

    def watch(self, touched: Iterable[tuple[EntityKind, Sequence[bytes]]]) -> None:
        """Look at entities in the store while it is computed what to write of them; `send` is faster then.

        They are looked at behind what is on its way, but for that which goes over other connections.
        """
        if self._apart is not None and not self._apart.done():
            return
        wanted = [Wanted(keys, kind.stamps) for kind, keys in touched if keys]
        self._line.watch(self._owner.guard, wanted)

    def unwatch(self) -> None:
        """Look no more: nothing is written."""
        self._line.unwatch()

    def send(
        self, writes: Sequence[PreparedWrites], void: Mapping[int, frozenset[Part]], time_us: int
    ) -> Sent:
        """Have it written down what is about to be written, and then written, beside what follows.

        Args:
            writes: What is written.
            void: What did not happen of intents before, by their number.
            time_us: Logical time of the writes.
        """
        intent = self._intent(writes, void, time_us)
        announced = _announced(writes)
        intention = self._owner.intention(intent, announced)
        if self._line.takes(sum(map(len, writes))):
            intended, work = None, partial(self._hear, send_behind(self._line, intention, writes))
        else:
            self._line.unwatch()
            intended = self._thread.submit(self._owner.leave, intention)
            work = partial(self._write, writes, intended)
        written = self._thread.submit(work)
        self._apart = written if intended else None
        sent = Sent(writes, intent, announced, written, intended)
        self.number = intent.number
        note_written(writes)
        return sent

    def close(self) -> None:
        """Wait until nothing is on its way; nothing else may be asked of it then."""
        self._thread.shutdown(cancel_futures=True)
        self._line.close()

    def _write(self, writes: Sequence[PreparedWrites], intended: Future[None]) -> tuple[list[Written], int]:
        intended.result()
        return send_writes(self._writer, writes), time.time_ns() // 1000

    def _hear(self, answer: Callable[[], tuple[bool, list[Written] | None]]) -> tuple[list[Written], int]:
        is_announced, written = answer()
        done_us = time.time_ns() // 1000
        self._owner.check_done(is_announced and written is not None)
        assert written is not None
        return written, done_us

    def _intent(
        self, writes: Sequence[PreparedWrites], void: Mapping[int, frozenset[Part]], time_us: int
    ) -> Intent:
        self.created_us = max(time.time_ns() // 1000, self.created_us + 1)
        rows = self._sink.batch(self.created_us)
        for part in writes:
            for view, values in enumerate(part.values):
                if values is None:
                    continue
                numbers = part.fresh[view].nonzero()[0]
                owners = [part.keys[number] for number in numbers.tolist()]
                rows.add(values, part.places[view, numbers], owners, part.at_us)
        return Intent(
            number=self.number + 1,
            rows=rows.packed,
            changes=tuple(change for part in writes for change in part.changes),
            void=void,
            time_us=time_us,
            created_us=self.created_us,
        )


def _announced(writes: Sequence[PreparedWrites]) -> dict[Member, int]:
    """Entries that the index of timers must have before the writes: those it has no earlier one of."""
    announced: dict[Member, int] = {}
    for part in writes:
        held_us = np.array([state.announced_us for state in part.states], dtype=np.int64)
        for number in np.flatnonzero(part.due_us < held_us).tolist():
            due_us = int(part.due_us[number])
            announced[part.kind.name, part.keys[number]] = due_us
            part.states[number].announced_us = due_us
    return announced
