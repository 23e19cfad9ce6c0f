"""From an update to its one conditional write, and back again once the store has taken it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from decision.schema import Value
from online.write import EntityWrite, EntityWriter
from streaming.advance import Update
from streaming.entity import changed_fields, encode_state
from streaming.plan import EntityKind

ViewValues = dict[str, tuple[dict[str, Value], int]]
"""Values by feature and their event timestamp, by view."""


@dataclass(frozen=True, slots=True)
class PreparedWrite:
    """One entity's write.

    Attributes:
        kind: The entity's kind.
        update: What it writes.
        fields: The state's fields as they stand in the store afterwards.
        views: Views whose values differ from what was last written.
        write: For the writer.
    """

    kind: EntityKind
    update: Update
    fields: dict[bytes, bytes]
    views: ViewValues
    write: EntityWrite


def prepare_write(kind: EntityKind, update: Update) -> PreparedWrite:
    """Encode an update: changed views, changed state fields, dropped ones."""
    state = update.state
    fields = encode_state(state, kind.windows)
    changed, dropped = changed_fields(state, fields)
    views = {name: values for name, values in update.values.items() if state.written.get(name) != values}
    plans = [plan for plan in (*kind.views, kind.segments_view) if plan is not None]
    write = EntityWrite(
        key=update.key,
        revision=state.revision,
        views=tuple(plan.online_write(*views[plan.view.name]) for plan in plans if plan.view.name in views),
        kept=tuple(name for name in update.values if name not in views),
        state=changed,
        dropped=dropped,
        memory_s=kind.memory_s,
    )
    return PreparedWrite(kind, update, fields, views, write)


def apply_writes(
    writer: EntityWriter, prepared: Sequence[PreparedWrite]
) -> tuple[list[PreparedWrite], list[PreparedWrite]]:
    """Write, and note on the states of those accepted what the store now holds.

    Returns:
        What was accepted, with the views that readers see now (another writer may have brought a later row of a
        view), and what was refused because the store no longer holds what it was computed from.
    """
    accepted, refused = [], []
    for entry, written in zip(prepared, writer.apply([entry.write for entry in prepared]), strict=True):
        if written is None:
            refused.append(entry)
            continue
        state = entry.update.state
        state.revision += 1
        state.stored = entry.fields
        state.written.update(entry.views)
        visible = {name: values for name, values in entry.views.items() if name in written}
        accepted.append(replace(entry, views=visible))
    return accepted, refused
