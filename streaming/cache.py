"""Entity states in memory: a bounded, least-recently-used cache over the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from online.write import EntityWriter
from streaming.entity import EntityState, decode_states
from streaming.plan import EntityKind


class StateCache:
    """States of the entities seen lately. A state taken out of the store is as new as its revision says.

    Args:
        writer: For loading.
        partition: The one that the states are read for.
        max_entities: Bound.
    """

    def __init__(self, writer: EntityWriter, partition: int, max_entities: int) -> None:
        self._writer = writer
        self._partition = partition
        self._max_entities = max_entities
        self._states: OrderedDict[bytes, EntityState] = OrderedDict()

    def fetch(self, wanted: Iterable[tuple[EntityKind, Iterable[bytes]]]) -> None:
        """Read what is not in memory of entities of several kinds, in one round trip."""
        states = self._states
        missing = [(kind, [key for key in dict.fromkeys(keys) if key not in states]) for kind, keys in wanted]
        count = sum(len(keys) for _, keys in missing)
        if not count:
            return
        stored = self._writer.load([key for _, keys in missing for key in keys])
        start = 0
        for kind, keys in missing:
            own = stored[start : start + len(keys)]
            states.update(zip(keys, decode_states(own, kind.windows, self._partition), strict=True))
            start += len(keys)

    def load(self, kind: EntityKind, keys: Sequence[bytes]) -> list[EntityState]:
        """States of entities of one kind, in order; what is not in memory is read in one round trip."""
        self.fetch([(kind, keys)])
        states = self._states
        touch = states.move_to_end
        for key in keys:
            touch(key)
        return [states[key] for key in keys]

    def drop(self, keys: Iterable[bytes]) -> None:
        """Forget states that the store has newer ones of."""
        for key in keys:
            self._states.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()

    def shrink(self) -> None:
        """Drop the least recently used beyond the bound; called between batches, when no state is in use."""
        while len(self._states) > self._max_entities:
            self._states.popitem(last=False)
