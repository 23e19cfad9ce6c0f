"""What the owner of a partition writes into it: intents, timers, segment changes, the checkpoint.

All writes are on keys of one slot, and hold only while the owner's fencing number is the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from online.guarded import Guard, Guarded, run
from online.write import Announcement
from streaming.advance import SegmentChange
from streaming.errors import LeaseLost
from streaming.journal import Intent
from streaming.lease import PartitionLease
from streaming.positions import SEQUENCE_BITS, pack_position, unpack_position
from streaming.timers import Member, member_text
from streaming.verdicts import Verdict, Verdicts, position_of

Argument = bytes | int
MAX_CHANGES = 100_000
MAX_DEAD_LETTERS = 100_000
LETTERS_AT_ONCE = 500
"""Dead letters of one call: the store does nothing else meanwhile."""
_MEMBERS_PER_COMMAND = 2_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is.

    Attributes:
        position: Of the last record that is applied.
        time_us: Logical time.
        record_count: Records applied since the log began.
        intent: Number of the last intent whose writes are done.
        archived: Events that counted since the log began; behind a checkpoint all of them are in the archive.
        created_us: Wall time at which the last rows were created, as far as it is known.
    """

    position: int = 0
    time_us: int = 0
    record_count: int = 0
    intent: int = 0
    archived: int = 0
    created_us: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be applied.

    Attributes:
        position: Where it stands in the log.
        field: What is wrong with it, or nothing.
        arrived_us: Wall time at which it was published.
        event: The bytes that the log has of it.
    """

    position: int
    reason: str
    field: str
    detail: str
    arrived_us: int
    event: bytes


class PartitionOwner:
    """The bookkeeping of one partition, for the holder of its lease."""

    def __init__(self, client: redis.Redis, lease: PartitionLease) -> None:
        self._client = client
        self.keys = lease.keys
        self.fence = lease.fence
        written = (
            (lease.keys.timers, b"zset"),
            (lease.keys.journal, b"stream"),
            (lease.keys.changes, b"stream"),
            (lease.keys.applied, b"hash"),
            (lease.keys.verdicts, b"zset"),
        )
        types = tuple((name.encode(), kind) for name, kind in written)
        self.guard = Guard(lease.keys.fence.encode(), types)
        self._pending: list[tuple[Argument | str, ...]] = []
        self._noted: dict[bytes, int] = {}

    def checkpoint(self) -> Progress:
        """What is stored: everything up to here is applied and delivered."""
        stored: Any = self._client.hgetall(self.keys.checkpoint)
        names = ("position", "time_us", "record_count", "intent", "archived", "created_us")
        return Progress(*(int(stored.get(name.encode(), 0)) for name in names))

    def undelivered(self, checkpoint: Progress) -> list[Intent]:
        """Intents that no checkpoint has behind it, in order."""
        entries: Any = self._client.xrange(self.keys.journal, min=f"({checkpoint.intent}-0")
        return [Intent.from_fields(int(name.partition(b"-")[0]), fields) for name, fields in entries]

    def log_end(self) -> int:
        """Position of the last record that was ever appended to the partition's log; 0 for none."""
        return self._last_id(self.keys.log)

    def _last_id(self, stream: str) -> int:
        """Position under which something was appended to a stream last, though it be gone since; 0 for none."""
        if not self._client.exists(stream):
            return 0
        found: Any = self._client.xinfo_stream(stream)
        return pack_position(found["last-generated-id"])

    def last_number(self) -> int:
        """The greatest number that an intent, or a segment change, ever had: those to come must be greater."""
        streams = self.keys.journal, self.keys.changes
        return max(self._last_id(stream) >> SEQUENCE_BITS for stream in streams)

    def last_change(self) -> int:
        """Number of the last intent whose segment changes are in their log."""
        entries: Any = self._client.xrevrange(self.keys.changes, count=1)
        return int(entries[0][0].partition(b"-")[0]) if entries else 0

    def intend(self, intent: Intent, timers: Mapping[Member, int]) -> None:
        """Before entities are written: what the writes will bring, and when entities must be looked at again.

        Raises:
            LeaseLost: If another owner has come after this one; so do all that follow.
        """
        self.leave(self.intention(intent, timers))

    def intention(self, intent: Intent, timers: Mapping[Member, int]) -> Announcement:
        """What `intend` will do, and all that waits to be done until then."""
        commands = [
            (b"ZADD", self.keys.timers, b"LT", *chunk)
            for chunk in _flat((due_us, member_text(member)) for member, due_us in timers.items())
        ]
        fields = [part for item in intent.to_fields().items() for part in item]
        pending, self._pending = self._pending, []
        sign = f"{self.fence}:{intent.number}"
        guarded = self._guarded(
            [
                *pending,
                *commands,
                (b"XADD", self.keys.journal, f"{intent.number}-0", *fields),
                (b"SET", self.keys.intended, sign),
            ]
        )
        return Announcement(guarded, self.keys.intended.encode(), sign.encode())

    def leave(self, intention: Announcement) -> None:
        """Write an intent down; in any thread."""
        self.check_done(run(self._client, intention.guarded))

    def check_done(self, reply: object) -> None:
        """See that what needs the newest fencing number was carried out, by its reply.

        Raises:
            LeaseLost: It was not.
        """
        if not reply:
            raise LeaseLost(
                f"another materializer owns partition {self.keys.partition} of project {self.keys.project!r} now"
            )

    def log_changes(
        self, number: int, changes: Sequence[SegmentChange], keys: Sequence[Mapping[str, object]]
    ) -> None:
        """After entities are written: log segments entered and left, with the join keys; done by what comes next."""
        for place, (change, entity) in enumerate(zip(changes, keys, strict=True)):
            self._pending.append(
                (
                    b"XADD", self.keys.changes, b"MAXLEN", b"~", MAX_CHANGES, f"{number}-{place}",
                    b"segment", change.segment, b"entered", int(change.entered), b"at_us", change.at_us,
                    b"entity", json.dumps(entity, ensure_ascii=False),
                )
            )  # fmt: skip

    def conclude(self, settled: Mapping[Member, int], over: Sequence[Member]) -> None:
        """After entities are written: settle timers that were due; done by what comes next."""
        self._pending += [
            (b"ZADD", self.keys.timers, *chunk)
            for chunk in _flat((due_us, member_text(member)) for member, due_us in settled.items())
        ]
        self._pending += [
            (b"ZREM", self.keys.timers, *chunk) for chunk in _flat((member_text(member),) for member in over)
        ]

    def show(self, progress: Progress) -> None:
        """Tell readers how far features are current; done by what comes next."""
        self._pending.append((b"HSET", self.keys.applied, *_fields(progress)))

    def deliver(self) -> None:
        """Do what waits: every call waits for the disk, so an intent takes it along where one comes at once."""
        pending, self._pending = self._pending, []
        if pending:
            self._run(pending)

    def move_checkpoint(self, progress: Progress) -> None:
        """Everything up to here is applied and delivered: forget the intents."""
        self.deliver()
        self._run(
            [
                (b"HSET", self.keys.checkpoint, *_fields(progress)),
                (b"XTRIM", self.keys.journal, b"MINID", f"{progress.intent + 1}-0"),
                *self._forget(progress.position),
            ]
        )

    def publish_stats(self, figures: Mapping[str, float | str]) -> None:
        """Leave figures for `waypost status` and the metrics."""
        self._run([(b"HSET", self.keys.stats, *(str(part) for item in figures.items() for part in item))])

    def verdicts(self, after: int) -> Verdicts:
        """What is noted of records behind a position."""
        noted: Any = self._client.zrange(self.keys.verdicts, 0, -1)
        self._noted = {word: position_of(word) for word in noted}
        return Verdicts(self._noted, after)

    def note(self, verdicts: Iterable[Verdict]) -> None:
        """Before what follows from verdicts is written: note them; done by what comes next."""
        fresh = {verdict.word: verdict.position for verdict in verdicts}
        self._noted |= fresh
        self._pending += [
            (b"ZADD", self.keys.verdicts, *chunk)
            for chunk in _flat((position >> SEQUENCE_BITS, word) for word, position in fresh.items())
        ]

    def _forget(self, until: int) -> list[tuple[Argument | str, ...]]:
        """What removes notes that are about nothing behind a position."""
        gone = [word for word, position in self._noted.items() if position <= until]
        for word in gone:
            del self._noted[word]
        return [(b"ZREM", self.keys.verdicts, *chunk) for chunk in _flat((word,) for word in gone)]

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Put events aside, each under its position in the log; one that ever lay there stays as it is, or gone."""
        last = self._last_id(self.keys.dead_letters)
        commands = [
            (
                b"XADD", self.keys.dead_letters, b"MAXLEN", b"~", MAX_DEAD_LETTERS,
                unpack_position(letter.position),
                b"reason", letter.reason, b"field", letter.field, b"detail", letter.detail,
                b"arrived_us", letter.arrived_us, b"event", letter.event,
            )
            for letter in sorted(letters, key=lambda letter: letter.position)
            if letter.position > last
        ]  # fmt: skip
        pending, self._pending = self._pending, []
        everything = [*pending, *commands]
        for start in range(0, len(everything), LETTERS_AT_ONCE):
            self._run(everything[start : start + LETTERS_AT_ONCE])

    def check(self) -> None:
        """Nothing, but that no other owner has come."""
        self._run([])

    def _run(self, commands: Sequence[tuple[Argument | str, ...]]) -> None:
        self.check_done(run(self._client, self._guarded(commands)))

    def _guarded(self, commands: Sequence[tuple[Argument | str, ...]]) -> Guarded:
        words = [
            tuple([part.encode() if isinstance(part, str) else part for part in command])
            for command in commands
        ]
        return Guarded(self.guard.key, b"%d" % self.fence, words)


def _fields(progress: Progress) -> tuple[Argument, ...]:
    return (
        b"position", progress.position,
        b"time_us", progress.time_us,
        b"record_count", progress.record_count,
        b"intent", progress.intent,
        b"archived", progress.archived,
        b"created_us", progress.created_us,
    )  # fmt: skip


def _flat(groups: Iterable[tuple[Argument, ...]]) -> list[tuple[Argument, ...]]:
    """Arguments of as many commands as it takes: Lua unpacks at most some 8,000."""
    everything = list(groups)
    return [
        tuple(part for group in everything[start : start + _MEMBERS_PER_COMMAND] for part in group)
        for start in range(0, len(everything), _MEMBERS_PER_COMMAND)
    ]
