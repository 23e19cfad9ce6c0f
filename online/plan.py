"""What a list of features costs to read: one command per entity, prepared to the byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from decision.schema import Catalog, FeatureRef, JoinKey, ValueType, View
from online.column_kernels import AS_STORED, field_hash
from online.commands import DUMP, WHOLE, Packer
from online.errors import PlanError
from online.keys import US_PER_SECOND, EntityKeys, feature_field, timestamp_field

NEAR_TAG: Final = "waypost.cache"
"""Tag of a view whose entities may be kept in memory: `waypost.cache = near`."""
_NEAR: Final = "near"

_MOST_COMPACT_FIELDS: Final = 512
"""Hashes of more fields are hash tables in the server, where a field costs the same wherever it stands."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldTable:
    """A group's hash fields, as the kernels look them up.

    Attributes:
        fields: uint8: the fields, one behind the other.
        bounds: int64[fields + 1]: where each starts, and where the last one ends.
        table: int64: index of a field by its hash, -1 where there is none; its size is a power of two.
    """

    fields: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    table: NDArray[np.int64]

    @classmethod
    def of(cls, fields: Sequence[bytes]) -> FieldTable:
        joined = np.frombuffer(b"".join(fields), np.uint8).copy()
        bounds = np.cumsum([0, *map(len, fields)], dtype=np.int64)
        table = np.full(1 << (4 * len(fields)).bit_length(), -1, np.int64)
        for slot in range(len(fields)):
            place = field_hash(joined, bounds[slot], bounds[slot + 1]) & (len(table) - 1)
            while table[place] >= 0:
                place = (place + 1) & (len(table) - 1)
            table[place] = slot
        return cls(fields=joined, bounds=bounds, table=table)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadGroup:
    """All features of a plan that hang on the same join keys: one command reads them from one hash.

    Attributes:
        fields: Hash fields, values and timestamps.
        whole: Read by HGETALL (or DUMP) rather than HMGET; see `reads_whole`.
        near: All views of the group may be kept in memory.
        types: Value type of each column.
        columns: int64[columns, 4], see `online.column_kernels.SLOT`.
        views: int64[views, 3], see `online.column_kernels.STAMP`.
        lookup: The fields, for the kernels.
        packer: Packs the command that reads an entity.
        dumper: Packs one that reads it by `DUMP`, whose replies `online.dumps` makes those of HGETALL; None where only
            some fields are read.
        places: int64[columns]: row of the output of each column.
        text_places: Those of columns that hold texts.
        texts_per_row: How many columns these are.
        as_stored: Values are not read.
        slow_per_row: Most values and timestamps of a row that the kernel may leave to Python.
    """

    keys: EntityKeys
    fields: tuple[bytes, ...]
    whole: bool
    near: bool
    types: tuple[ValueType, ...]
    columns: NDArray[np.int64]
    views: NDArray[np.int64]
    lookup: FieldTable
    packer: Packer
    dumper: Packer | None
    places: NDArray[np.int64]
    text_places: tuple[int, ...]
    texts_per_row: int
    as_stored: bool
    slow_per_row: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadPlan:
    """A compiled list of features; immutable, shared by all requests that ask for it.

    Attributes:
        refs: The features in the order asked for.
        types: Their value types.
        views: Their views, each once, in the order of their first features.
        view_of: int64[features], index into `views`.
        groups: One per set of join keys.
        most_copies: How often the feature comes that comes most often; 1 where each comes once.
    """

    refs: tuple[FeatureRef, ...]
    types: tuple[ValueType, ...]
    views: tuple[str, ...]
    view_of: NDArray[np.int64]
    groups: tuple[ReadGroup, ...]
    most_copies: int

    @classmethod
    def compile(cls, catalog: Catalog, refs: Sequence[FeatureRef], *, as_stored: bool = False) -> ReadPlan:
        """Plan the reading of features; several views of one entity become one command.

        Args:
            catalog: The definitions.
            refs: The features; one may come twice.
            as_stored: Leave values as they are stored: statuses, event times and bytes are read, words and objects
                are not, and bytes that are no value of the type go unnoticed; `Columns.doubtful` says which may be
                no value at all.

        Raises:
            PlanError: A view or feature is unknown, a view is on demand, or two features share a hash field.
            KeyEncodingError: A join key has a type that Feast cannot encode.
        """
        grouped: dict[tuple[JoinKey, ...], list[int]] = {}
        for position, ref in enumerate(refs):
            entity = _entity(_stored_view(catalog, ref))
            grouped.setdefault(entity, []).append(position)
        views = tuple(dict.fromkeys(ref.view for ref in refs))
        return cls(
            refs=tuple(refs),
            types=tuple(catalog.feature(ref).value_type for ref in refs),
            views=views,
            view_of=np.array([views.index(ref.view) for ref in refs], np.int64),
            groups=tuple(
                _group(
                    catalog,
                    entity,
                    [(position, refs[position]) for position in positions],
                    views,
                    as_stored=as_stored,
                )
                for entity, positions in grouped.items()
            ),
            most_copies=max(Counter(refs).values(), default=1),
        )


def reads_whole(wanted: int, stored: int) -> bool:
    """Whether HGETALL of a hash is cheaper than HMGET of some of its fields.

    Measured on Valkey 9.1 and Redis 7.0 (docs/performance.md): in a compact hash HMGET walks to each field, at some
    (0.28 + 0.0055 · stored) µs of the server's time per field with the parsing of its name, and HGETALL costs 0.29 µs
    per field that is there.
    """
    return stored <= _MOST_COMPACT_FIELDS and wanted * (50 + stored) >= 53 * stored


def _entity(view: View) -> tuple[JoinKey, ...]:
    return tuple(sorted(view.join_keys, key=lambda key: key.name))


def _stored_view(catalog: Catalog, ref: FeatureRef) -> View:
    view = catalog.view_by_name.get(ref.view)
    if view is None:
        raise PlanError(
            f"no feature view {ref.view!r} in project {catalog.project!r}; check the name in {ref}"
        )
    if view.on_demand:
        raise PlanError(f"{ref} is computed on demand and never stored; read its inputs instead")
    if ref.feature not in view.feature_by_name:
        raise PlanError(f"feature view {ref.view!r} has no feature {ref.feature!r}; check the name in {ref}")
    return view


def _group(
    catalog: Catalog,
    entity: tuple[JoinKey, ...],
    refs: Sequence[tuple[int, FeatureRef]],
    places: Sequence[str],
    *,
    as_stored: bool,
) -> ReadGroup:
    slots = _Slots()
    views = [catalog.view_by_name[name] for name in dict.fromkeys(ref.view for _, ref in refs)]
    types = tuple(catalog.feature(ref).value_type for _, ref in refs)
    names = [view.name for view in views]
    columns = [
        (
            slots.take(feature_field(stored, ref.feature), f"{stored}.{ref.feature}"),
            position,
            AS_STORED if as_stored else value_type,
            names.index(ref.view),
        )
        for (position, ref), value_type in zip(refs, types, strict=True)
        for stored in (catalog.view_by_name[ref.view].stored_name,)
    ]
    stamps = [
        (
            slots.take(timestamp_field(view.stored_name), f"{view.stored_name} (timestamp)"),
            places.index(view.name),
            int(view.ttl_s * US_PER_SECOND),
        )
        for view in views
    ]
    fields = tuple(slots.owner_by_field)
    whole = reads_whole(len(fields), _stored_fields(catalog, entity))
    keys = EntityKeys(catalog.project, entity)
    head = WHOLE if whole else b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields))
    text_places = tuple(position for _, position, value_type, _ in columns if value_type == ValueType.STRING)
    return ReadGroup(
        keys=keys,
        fields=fields,
        whole=whole,
        near=all(view.tag(NEAR_TAG) == _NEAR for view in views),
        types=types,
        columns=np.array(columns, np.int64),
        views=np.array(stamps, np.int64),
        lookup=FieldTable.of(fields),
        packer=Packer(keys, head, b"" if whole else _packed(fields)),
        dumper=Packer(keys, DUMP, b"") if whole else None,
        places=np.array([position for _, position, _, _ in columns], np.int64),
        text_places=text_places,
        texts_per_row=len(text_places),
        as_stored=as_stored,
        slow_per_row=len(stamps) + len(columns),
    )


def _stored_fields(catalog: Catalog, entity: tuple[JoinKey, ...]) -> int:
    """How many fields the hash of an entity has once all its views are written."""
    stored = {
        view.stored_name: len(view.features) + 1
        for view in catalog.stored_views
        if not view.on_demand and _entity(view) == entity
    }
    return sum(stored.values())


class _Slots:
    """Gives each hash field one place in the reply, and refuses two owners of one field."""

    def __init__(self) -> None:
        self.owner_by_field: dict[bytes, str] = {}
        self._slot_by_field: dict[bytes, int] = {}

    def take(self, field: bytes, owner: str) -> int:
        known = self.owner_by_field.setdefault(field, owner)
        if known != owner:
            raise PlanError(
                f"{owner} and {known} hash to the same field in Feast's layout; rename one of them"
            )
        return self._slot_by_field.setdefault(field, len(self._slot_by_field))


def _packed(fields: Iterable[bytes]) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in fields])
