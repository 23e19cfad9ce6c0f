"""Erasing a customer and retiring a view, over all that the online store holds of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from decision.schema import Catalog, Feature, JoinKey, ValueType, View
from online.errors import KeyEncodingError
from online.keys import (
    EntityKeys,
    StoredKey,
    encode_value,
    feature_field,
    key_pattern,
    parse_key,
    timestamp_field,
)
from online.removal import Progress, ViewFields, erase_entities, find_entities, retire_view
from server.errors import ServerError
from streaming.archive import erase_archived
from streaming.entity import SEGMENTS, view_chunks
from streaming.generations import Generations
from streaming.keys import build_key
from streaming.traces import CustomerTraces, Traces
from streaming.unfinished import check_filled

_KEY_TYPES = (ValueType.STRING, ValueType.INT64, ValueType.INT32)


class RemovalError(ServerError):
    """What is to be removed is not known, or cannot be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedKind:
    """What was, or would be, removed from the entities of one set of join keys.

    Attributes:
        join_keys: Their names, sorted.
        entities: How many had anything.
        fields: Fields of Feast's hashes, values and event times.
        state_fields: Fields of Waypost's state.
    """

    join_keys: tuple[str, ...]
    entities: int
    fields: int
    state_fields: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What the online store held of a customer.

    Attributes:
        segments: How many segments the customer was in.
        traces: What the stream held.
        archived: How many events the archive held.
    """

    kinds: tuple[RemovedKind, ...]
    segments: int
    traces: Traces
    archived: int

    @property
    def nothing(self) -> bool:
        return not self.kinds and not self.traces.total and not self.archived


def erase_customer(
    client: redis.Redis,
    catalog: Catalog,
    customer_key: str,
    customer_id: str,
    *,
    archive: Path,
    apply: bool,
    wait_s: float | None,
    progress: Progress,
) -> Erasure:
    """Remove every entity that a customer is part of, and what the stream holds of the customer.

    Args:
        client: The store.
        catalog: The repo's definitions.
        customer_key: Name of the join key of customers.
        customer_id: As text.
        archive: The project's archive of events.
        apply: Whether to remove, or only to count.
        wait_s: How long the materializer may take to apply what was published before; None where none runs.
        progress: Told how far the search is.

    Raises:
        KeyEncodingError: The id does not fit the join key's type.
        RemovalError: No view is keyed by customers, or views are being built from the archive.
        StreamingError: The materializer did not get there, or one stands still; what was removed stays so, as below.
        StoreUnavailableError: The store stopped answering; what was removed stays so, and erasing again goes on.
    """
    traces = CustomerTraces(client, catalog.project, customer_key, customer_id)
    wanted = _of_customer(catalog.project, customer_key, customer_id)

    def remove() -> Erasure:
        tally, segments = _Tally(), 0
        # First of all, so that a build of views that begins meanwhile does not read what is to be forgotten.
        archived = erase_archived(archive, customer_id, apply=apply)
        for keys in _customer_entities(client, catalog, customer_key, customer_id, wanted, progress):
            for erased in erase_entities(client, keys, SEGMENTS, apply=apply):
                tally.add(erased.key, erased.fields, erased.chunks)
                segments += len(json.loads(erased.kept)[1]) if erased.kept else 0
        removed = traces.remove(wanted, apply=apply)
        return Erasure(kinds=tally.kinds(), segments=segments, traces=removed, archived=archived)

    if not apply:
        return remove()
    builds = _builds(client, catalog.project)
    if wait_s is None:
        traces.check_delivered()
    else:
        traces.settle(wait_s)
    traces.outlast_writers(archive)
    erasure = remove()
    if wait_s is not None:
        # What an owner had under way it has said since, or been refused: segment changes and timers of entities that
        # it wrote before they went, and entities that a new owner keeps an earlier one from writing.
        traces.settle(wait_s)
        remove()
    if _builds(client, catalog.project) != builds:
        raise RemovalError(
            "views were built from the archive meanwhile, perhaps with the customer: erase again"
        )
    return erasure


def _builds(client: redis.Redis, project: str) -> int:
    """How many builds of views there have been, while neither one nor a backfill is at work."""
    check_filled(client, project)
    if client.exists(build_key(project)):
        raise RemovalError(
            "views are being built from the archive, and would bring the customer back: erase once `waypost status` "
            "says no more that they are"
        )
    return Generations(client, project).build_count()


def retire(
    client: redis.Redis, catalog: Catalog, view: View, *, apply: bool, progress: Progress
) -> tuple[RemovedKind, ...]:
    """Remove a view from every entity, with Waypost's state of it.

    Args:
        client: The store.
        catalog: For the project.
        view: Its name, join keys and features are all that counts.
        apply: Whether to remove, or only to count.
        progress: Told how far the search is.

    Raises:
        RemovalError: The view is never stored.
        StoreUnavailableError: The store stopped answering; retiring again goes on.
    """
    if view.on_demand:
        raise RemovalError(f"{view.name} is computed on demand and never stored; there is nothing to retire")
    names = tuple(sorted(view.key_names)) or ("__dummy_id",)
    chunks, prefixes = view_chunks(view.name, segments=view.tag("waypost.role") == "segments")
    fields = ViewFields(
        stamp=timestamp_field(view.stored_name),
        fields=tuple(feature_field(view.stored_name, feature.name) for feature in view.features),
        chunks=chunks,
        chunk_prefixes=prefixes,
    )
    tally = _Tally()
    pattern = key_pattern(catalog.project, names)
    for keys in find_entities(
        client, pattern, lambda key: (key.project, key.names) == (catalog.project, names), progress
    ):
        for retired in retire_view(client, keys, fields, apply=apply):
            tally.add(retired.key, retired.fields, retired.chunks)
    return tally.kinds()


def view_to_retire(catalog: Catalog, name: str, keys: Sequence[str], features: Sequence[str]) -> View:
    """Return the view of that name; one that the repo no longer defines is made of its join keys and features.

    Raises:
        RemovalError: The repo does not define it and keys or features are not given, or it does and they are.
    """
    known = catalog.view_by_name.get(name)
    if known is not None:
        if keys or features:
            raise RemovalError(f"the repo defines {name!r}: leave --key and --feature out")
        return known
    if not features:
        raise RemovalError(
            f"the repo defines no view {name!r}. Of one that it no longer defines, name what is stored: "
            "--key for each join key, --feature for each feature"
        )
    return View(
        name=name,
        join_keys=tuple(JoinKey(name=key, value_type=ValueType.STRING) for key in keys),
        features=tuple(Feature(name=feature, value_type=ValueType.STRING) for feature in features),
    )


def _customer_entities(
    client: redis.Redis,
    catalog: Catalog,
    name: str,
    customer_id: str,
    wanted: Callable[[StoredKey], bool],
    progress: Progress,
) -> Iterator[list[bytes]]:
    """Yield the customer's own keys first, of whatever type, and then all that a search finds."""
    types = {key.value_type for view in catalog.views for key in view.join_keys if key.name == name}
    if not types:
        raise RemovalError(
            f"no view of the repo is keyed by {name!r}; name the customers' key in events.yaml"
        )
    encoded = [encode_value(JoinKey(name=name, value_type=kind), customer_id) for kind in sorted(types)]
    own = dict.fromkeys(_own_keys(catalog.project, name, customer_id))
    yield list(own)
    for value in encoded:
        pattern = key_pattern(catalog.project, [name], value)
        for keys in find_entities(client, pattern, wanted, progress):
            yield [key for key in keys if key not in own]


def _own_keys(project: str, name: str, customer_id: str) -> Iterable[bytes]:
    for kind in _KEY_TYPES:
        try:
            yield EntityKeys(project, [JoinKey(name=name, value_type=kind)]).encode({name: customer_id})
        except KeyEncodingError:
            continue


def _of_customer(project: str, name: str, customer_id: str) -> Callable[[StoredKey], bool]:
    def wanted(key: StoredKey) -> bool:
        return (
            key.project == project
            and name in key.names
            and str(key.values[key.names.index(name)]) == customer_id
        )

    return wanted


class _Tally:
    """Counts by set of join keys."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])

    def add(self, key: bytes, fields: int, chunks: int) -> None:
        """Count an entity, if it had anything."""
        if fields or chunks:
            counts = self._counts[parse_key(key).names]
            for place, count in enumerate((1, fields, chunks)):
                counts[place] += count

    def kinds(self) -> tuple[RemovedKind, ...]:
        return tuple(
            RemovedKind(join_keys=names, entities=entities, fields=fields, state_fields=chunks)
            for names, (entities, fields, chunks) in sorted(self._counts.items())
        )
