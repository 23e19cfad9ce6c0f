"""From an update to its one conditional write, and back again once the store has taken it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        update: What it writes.
        fields: The state's fields as they stand in the store afterwards.
        views: Views whose values differ from what was last written.
        write: For the writer.
    """

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
    online: dict[bytes, bytes] = {}
    for plan in (*kind.views, kind.segments_view):
        if plan is not None and plan.view.name in views:
            online |= plan.online_fields(*views[plan.view.name])
    write = EntityWrite(
        key=update.key, revision=state.revision, values=online, state=changed, dropped=dropped
    )
    return PreparedWrite(update, fields, views, write)


def apply_writes(
    writer: EntityWriter, prepared: Sequence[PreparedWrite]
) -> tuple[list[PreparedWrite], list[bytes]]:
    """Write, and note on the states of those accepted what the store now holds.

    Returns:
        What was accepted, and the keys of what was refused because its revision had moved on.
    """
    accepted, refused = [], []
    for entry, done in zip(prepared, writer.apply([entry.write for entry in prepared]), strict=True):
        if not done:
            refused.append(entry.update.key)
            continue
        state = entry.update.state
        state.revision += 1
        state.stored = entry.fields
        state.written.update(entry.views)
        accepted.append(entry)
    return accepted, refused
