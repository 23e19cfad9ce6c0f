"""The inner loops that find what is news of views, and write how far entities are applied."""

from __future__ import annotations

from numba import njit, types

from online.write_kernels import put_bytes, put_decimal, put_little

_BYTES = types.uint8[::1]
_READ = types.Array(types.uint8, 1, "C", readonly=True)
_BOOLS = types.boolean[::1]
_V, _T = types.int64[::1], types.int64[:, ::1]
_INT, _VOID = types.int64, types.void
_TIME_BYTES, _SOURCE_BYTES = 8, 20


@njit(
    [_VOID(_V, _V, _T, _INT, _T, _V, _INT, _T, _BOOLS, _T)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def find_news(entities, number_of, known, view, spans, digests, kept_bytes, places, fresh, written):  # type: ignore[no-untyped-def]
    """Tell which rows of a view are news to their entities; of the others the first word alone is written.

    Args:
        entities: Of each row, numbered as `number_of` is.
        number_of: The number under which an entity is written, or -1.
        known: Digests of what was last written, shape (entities, views).
        view: Number of the view.
        spans: Of each row, shape (4, rows), as `online.words.Spans` has them but for the entity; becomes so.
        digests: Of each row.
        kept_bytes: Size of the first word.
        places: Takes the row of each entity, shape (views, entities).
        fresh: Takes whether it is news, for this view.
        written: Takes its digest, shape (entities, views).
    """
    for row in range(entities.shape[0]):
        number = number_of[entities[row]]
        spans[0, row] = number
        if number < 0:
            continue
        places[view, number] = row
        written[number, view] = digests[row]
        fresh[number] = digests[row] != known[number, view]
        if not fresh[number]:
            spans[2, row] = spans[1, row] + kept_bytes
            spans[3, row] = 1


@njit(
    [_VOID(_READ, _T, _INT, _READ, _V, _BYTES, _V)],
    cache=True,
    nogil=True,
    boundscheck=False,
)
def put_positions(name, applied, partition, others, other_at, out, row_at):  # type: ignore[no-untyped-def]
    """Write how far each entity is applied: a name and, as a word, what `streaming.entity.positions_field` makes.

    Args:
        name: As a word.
        applied: Time, position and mark of each; shape (entities, 3).
        partition: Whose these are, or -1 where only the time counts.
        others: Those of other partitions, one entity's after another's.
        other_at: Where each one's begin; one more at the end.
        out: Room for everything.
        row_at: Takes where each row begins; one more at the end.
    """
    at = 0
    own_bytes = _TIME_BYTES if partition < 0 else _TIME_BYTES + _SOURCE_BYTES
    for row in range(applied.shape[0]):
        row_at[row] = at
        at = put_bytes(out, at, name, 0, name.shape[0])
        out[at] = 36
        at = put_decimal(out, at + 1, own_bytes + other_at[row + 1] - other_at[row])
        out[at], out[at + 1] = 13, 10
        at = put_little(out, at + 2, applied[row, 0], 8)
        if partition >= 0:
            at = put_little(out, at, partition, 4)
            at = put_little(out, at, applied[row, 1], 8)
            at = put_little(out, at, applied[row, 2], 8)
        at = put_bytes(out, at, others, other_at[row], other_at[row + 1])
        out[at], out[at + 1] = 13, 10
        at += 2
    row_at[applied.shape[0]] = at
