"""Entity states in memory: a bounded, least-recently-used cache over the store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from online.write import EntityWriter
from streaming.entity import EntityState, decode_state
from streaming.plan import EntityKind


class StateCache:
    """States of the entities seen lately. A state taken out of the store is as new as its revision says."""

    def __init__(self, writer: EntityWriter, max_entities: int) -> None:
        self._writer = writer
        self._max_entities = max_entities
        self._states: OrderedDict[bytes, EntityState] = OrderedDict()

    def load(self, kind: EntityKind, keys: Sequence[bytes]) -> dict[bytes, EntityState]:
        """States of entities of one kind; what is not in memory is read in one round trip."""
        missing = [key for key in keys if key not in self._states]
        for key, fields in zip(missing, self._writer.load(missing) if missing else [], strict=True):
            self._states[key] = decode_state(fields, kind.windows)
        for key in keys:
            self._states.move_to_end(key)
        return {key: self._states[key] for key in keys}

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
