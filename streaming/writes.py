"""From an update to its one conditional write, and back again once the store has taken it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from online.keys import timestamp_field
from online.pipes import Packed
from online.write import EntityWriter, PackedWrite
from streaming.advance import Update, ViewValues
from streaming.entity import small_fields
from streaming.plan import EntityKind
from streaming.windows.changes import NO_WORDS, pairs_of, words_of


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """One entity's write.

    Attributes:
        kind: The entity's kind.
        update: What it writes.
        fields: The state's small fields as they stand in the store afterwards.
        views: Views whose values differ from what was last written, and the entity's row there.
        write: For the writer.
    """

    kind: EntityKind
    update: Update
    fields: dict[bytes, bytes]
    views: dict[str, tuple[ViewValues, int]]
    write: PackedWrite


def prepare_write(kind: EntityKind, update: Update) -> PreparedWrite:
    """Put an update's write together: changed views, changed state, dropped state."""
    state = update.state
    views, kept = {}, []
    for name, (shown, number) in update.shown.items():
        if state.written.get(name) == shown.words[number]:
            kept.append(timestamp_field(name))
        else:
            views[name] = (shown, number)
    fields = small_fields(state)
    changed = {name: data for name, data in fields.items() if state.stored.get(name) != data}
    dropped = [*state.unwanted, *(name for name in state.stored if name not in fields)]
    if state.recent_ids is not None:
        recent, forgotten = state.recent_ids.take_changes()
        changed |= recent
        dropped += forgotten
    put, drop = [pairs_of(changed)], [words_of(dropped)] if dropped else []
    for change in update.tiles:
        put.append(change.put)
        if change.drop.size:
            drop.append(change.drop)
    values = [Packed(shown.plan.words.count, shown.words[number]) for shown, number in views.values()]
    write = PackedWrite(
        key=update.key,
        revision=state.revision,
        views=tuple(views),
        values=_joined(values),
        kept=words_of(kept),
        state=_joined(put),
        dropped=_joined(drop),
        memory_s=kind.memory_s,
    )
    return PreparedWrite(kind, update, fields, views, write)


def _joined(parts: Sequence[Packed]) -> Packed:
    if not parts:
        return NO_WORDS
    if len(parts) == 1:
        return parts[0]
    return Packed(sum([part.size for part in parts]), b"".join([part.data for part in parts]))


def apply_writes(
    writer: EntityWriter, prepared: Sequence[PreparedWrite]
) -> tuple[list[PreparedWrite], list[PreparedWrite]]:
    """Write, and note on the states of those accepted what the store now holds.

    Returns:
        What was accepted, with the views that readers see now (another writer may have brought a later row of a
        view), and what was refused because the store no longer holds what it was computed from.
    """
    accepted, refused = [], []
    replies = writer.apply_packed([entry.write for entry in prepared])
    for entry, written in zip(prepared, replies, strict=True):
        if written is None:
            refused.append(entry)
            continue
        state = entry.update.state
        state.revision += 1
        state.stored = entry.fields
        state.unwanted = ()
        for name, (shown, number) in entry.views.items():
            state.written[name] = shown.words[number]
        if len(written) < len(entry.views):
            visible = {name: place for name, place in entry.views.items() if name in written}
            accepted.append(replace(entry, views=visible))
        else:
            accepted.append(entry)
    return accepted, refused
