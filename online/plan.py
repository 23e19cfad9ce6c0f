"""What a list of features costs to read: one HMGET per entity, prepared to the byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from decision.schema import Catalog, FeatureRef, JoinKey, Value, View
from online.errors import MissingJoinKeyError, PlanError
from online.keys import US_PER_SECOND, EntityKeys, feature_field, timestamp_field
from online.values import Decoder, decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadColumn:
    """Where one feature of a plan stands in its group's reply, and how it is read.

    Attributes:
        position: Index of the feature in the plan's refs.
        slot: Index of its value in the reply.
        stamp_slot: Index of its view's event timestamp in the reply.
        ttl_us: Age past which it is STALE; 0 is never.
    """

    position: int
    slot: int
    stamp_slot: int
    ttl_us: int
    decode: Decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGroup:
    """All features of a plan that hang on the same join keys: one HMGET reads them from one hash.

    Attributes:
        fields: Hash fields in the order of the reply.
        stamp_slots: Indices of the event timestamps in the reply.
        head: The packed command up to the key.
        tail: The packed command behind the key.
    """

    keys: EntityKeys
    columns: tuple[ReadColumn, ...]
    fields: tuple[bytes, ...]
    stamp_slots: tuple[int, ...]
    head: bytes
    tail: bytes

    def command(self, row: Mapping[str, Value]) -> bytes | None:
        """Pack the HMGET of a row's entity; None where the row lacks a join key.

        Raises:
            KeyEncodingError: A join key's value does not fit its type.
        """
        try:
            key = self.keys.encode(row)
        except MissingJoinKeyError:
            return None
        return b"%b$%d\r\n%b\r\n%b" % (self.head, len(key), key, self.tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """A compiled list of features; immutable, shared by all requests that ask for it.

    Attributes:
        refs: The features in the order asked for.
        groups: One per set of join keys.
    """

    refs: tuple[FeatureRef, ...]
    groups: tuple[ReadGroup, ...]

    @classmethod
    def compile(cls, catalog: Catalog, refs: Sequence[FeatureRef]) -> ReadPlan:
        """Plan the reading of features; several views of one entity become one command.

        Raises:
            PlanError: A view or feature is unknown, a view is on demand, or two features share a hash field.
            KeyEncodingError: A join key has a type that Feast cannot encode.
        """
        grouped: dict[tuple[JoinKey, ...], list[int]] = {}
        for position, ref in enumerate(refs):
            view = _stored_view(catalog, ref)
            entity = tuple(sorted(view.join_keys, key=lambda key: key.name))
            grouped.setdefault(entity, []).append(position)
        groups = tuple(
            _group(
                catalog,
                EntityKeys(catalog.project, entity),
                [(position, refs[position]) for position in positions],
            )
            for entity, positions in grouped.items()
        )
        return cls(refs=tuple(refs), groups=groups)


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


def _group(catalog: Catalog, keys: EntityKeys, refs: Sequence[tuple[int, FeatureRef]]) -> ReadGroup:
    slots = _Slots()
    columns = tuple(_column(catalog, slots, position, ref) for position, ref in refs)
    fields = tuple(slots.owner_by_field)
    return ReadGroup(
        keys=keys,
        columns=columns,
        fields=fields,
        stamp_slots=tuple(dict.fromkeys(column.stamp_slot for column in columns)),
        head=b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields)),
        tail=_packed(fields),
    )


def _column(catalog: Catalog, slots: _Slots, position: int, ref: FeatureRef) -> ReadColumn:
    view = catalog.view_by_name[ref.view]
    return ReadColumn(
        position=position,
        slot=slots.take(feature_field(ref.view, ref.feature), str(ref)),
        stamp_slot=slots.take(timestamp_field(ref.view), f"{ref.view} (timestamp)"),
        ttl_us=int(view.ttl_s * US_PER_SECOND),
        decode=decoder(view.feature_by_name[ref.feature].value_type),
    )


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
