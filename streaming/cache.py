"""Entity states in memory: a least-recently-used cache over the store, bounded by number and by size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from online.write import EntityWriter
from streaming.entity import EntityState, decode_states
from streaming.plan import EntityKind

Stored = Mapping[bytes, bytes]
"""The fields of a state."""


class Fetch:
    """States on their way from the store; they must be taken.

    Attributes:
        kinds: Names of the kinds of which something was missing.
    """

    def __init__(self, cache: StateCache, missing: Sequence[tuple[EntityKind, list[bytes]]]) -> None:
        keys = [key for _, own in missing for key in own]
        self._cache = cache
        self._missing = missing
        self._stored = cache.writer.ask(keys) if keys else list
        self.kinds = frozenset([kind.name for kind, _ in missing])

    def take(self) -> None:
        """Wait for them, and have them in memory."""
        self._cache.take(self._missing, self._stored())


class StateCache:
    """States of the entities seen lately. A state taken out of the store is as new as its revision says.

    Args:
        writer: For loading.
        partition: The one that the states are read for.
        max_entities: Bound.
        max_bytes: Bound of about the memory that they take.

    Attributes:
        size_bytes: About the memory that they took when it was last shrunk.
        touched_bytes: Of those that were loaded since the shrinking before.
    """

    def __init__(
        self, writer: EntityWriter, partition: int, max_entities: int, max_bytes: int = 2**62
    ) -> None:
        self.writer = writer
        self._partition = partition
        self._max_entities = max_entities
        self._max_bytes = max_bytes
        self._states: OrderedDict[bytes, EntityState] = OrderedDict()
        self._touched: dict[bytes, EntityState] = {}
        self.size_bytes = 0
        self.touched_bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def ask(self, wanted: Iterable[tuple[EntityKind, Iterable[bytes]]]) -> Fetch:
        """Ask the store for what is not in memory of entities of several kinds, in one round trip."""
        states = self._states
        missing = [(kind, [key for key in keys if key not in states]) for kind, keys in wanted]
        return Fetch(self, [(kind, list(dict.fromkeys(keys))) for kind, keys in missing if keys])

    def take(self, missing: Sequence[tuple[EntityKind, list[bytes]]], stored: Sequence[Stored]) -> None:
        """Take what the store has of entities in."""
        start = 0
        for kind, keys in missing:
            own = stored[start : start + len(keys)]
            found = decode_states(own, kind.windows, self._partition)
            self._states.update(zip(keys, found, strict=True))
            self._touched.update(zip(keys, found, strict=True))
            start += len(keys)

    def load(self, kind: EntityKind, keys: Sequence[bytes]) -> list[EntityState]:
        """States of entities of one kind, in order; what is not in memory is read in one round trip."""
        states = self._states
        try:
            found = [states[key] for key in keys]
        except KeyError:
            self.ask([(kind, keys)]).take()
            found = [states[key] for key in keys]
        self._touched.update(zip(keys, found, strict=True))
        return found

    def drop(self, keys: Iterable[bytes]) -> None:
        """Forget states that the store has newer ones of."""
        for key in keys:
            state = self._states.pop(key, None)
            self._touched.pop(key, None)
            if state is not None:
                self._take_off(state)

    def drop_touched(self) -> None:
        """Forget the states that were taken out since the last shrinking: no others can have been changed since."""
        self.drop(list(self._touched))

    def clear(self) -> None:
        """Forget everything."""
        self.drop(list(self._states))

    def shrink(self) -> None:
        """Drop the least recently used beyond the bound; called between batches, when no state is in use."""
        states = self._states
        touched, self._touched = self._touched, {}
        self.touched_bytes = self._weigh(touched.values())
        for key in touched:
            states.move_to_end(key)
        while len(states) > self._max_entities or (states and self.size_bytes > self._max_bytes):
            self._take_off(states.popitem(last=False)[1])

    def _weigh(self, states: Iterable[EntityState]) -> int:
        """Count states for what they take now; returns how much that is."""
        before = after = 0
        for state in states:
            before += state.weighed_bytes
            state.weighed_bytes = size_bytes = state.size_bytes
            after += size_bytes
        self.size_bytes += after - before
        return after

    def _take_off(self, state: EntityState) -> None:
        self.size_bytes -= state.weighed_bytes
        state.weighed_bytes = 0
