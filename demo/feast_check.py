"""What Waypost serves over gRPC beside what Feast's own SDK reads from the same store, value by value."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from decision.schema import Catalog, FeatureRef, Value
from online.values import decode_value
from server.values import from_proto
from waypost.features.v1 import features_pb2, features_pb2_grpc

if TYPE_CHECKING:
    from feast import FeatureStore

ROWS_PER_CALL: Final = 500
MAX_SHOWN: Final = 5
_WITHOUT_VALUE: Final = (
    features_pb2.FIELD_STATUS_NULL,
    features_pb2.FIELD_STATUS_NOT_FOUND,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared; `differences` are the first of them, in words."""

    row_count: int
    value_count: int
    present_count: int
    difference_count: int
    differences: tuple[str, ...]


def entity_rows(
    customers: Sequence[str], categories: Sequence[str], offers: Sequence[str], count: int, seed: int = 0
) -> list[dict[str, str]]:
    """Sampled customers, each with a category and an offer."""
    rng = random.Random(seed)
    chosen = rng.sample(list(customers), min(count, len(customers)))
    return [
        {"customer_id": customer, "product_category": rng.choice(categories), "offer_id": rng.choice(offers)}
        for customer in chosen
    ]


def compare(
    target: str, store: FeatureStore, catalog: Catalog, rows: Sequence[Mapping[str, str]]
) -> Comparison:
    """Read every feature service for every row from both sides.

    Args:
        target: A Waypost server.
        store: A Feast store on the same Redis, the repo applied.
        catalog: For the features and their types.
        rows: Join keys of each row.
    """
    differences: list[str] = []
    value_count = present_count = 0
    with grpc.insecure_channel(target) as channel:
        stub = features_pb2_grpc.FeatureServiceStub(channel)
        for service in catalog.services:
            keys = {key for ref in service.features for key in catalog.view_by_name[ref.view].key_names}
            for start in range(0, len(rows), ROWS_PER_CALL):
                chunk = [
                    {name: row[name] for name in sorted(keys)} for row in rows[start : start + ROWS_PER_CALL]
                ]
                ours = _ours(stub, service.name, service.features, chunk)
                feasts = _feasts(store, catalog, service.name, service.features, chunk)
                for ref in service.features:
                    for row, mine, theirs in zip(chunk, ours[ref], feasts[ref], strict=True):
                        value_count += 1
                        present_count += mine is not None
                        if mine != theirs or type(mine) is not type(theirs):
                            differences.append(
                                f"{service.name} {ref} of {row}: {mine!r} here, {theirs!r} in Feast"
                            )
    return Comparison(len(rows), value_count, present_count, len(differences), tuple(differences[:MAX_SHOWN]))


def _ours(
    stub: features_pb2_grpc.FeatureServiceStub,
    service: str,
    refs: Sequence[FeatureRef],
    rows: Sequence[Mapping[str, str]],
) -> dict[FeatureRef, list[Value]]:
    request = features_pb2.GetOnlineFeaturesRequest(feature_service=service)
    for row in rows:
        entity = request.entities.add()
        for name, value in row.items():
            entity.keys[name].string_value = value
    answer = stub.GetOnlineFeatures(request, timeout=60)
    return {
        ref: [
            None if status in _WITHOUT_VALUE else from_proto(value)
            for value, status in zip(column.values, column.statuses, strict=True)
        ]
        for ref, column in zip(refs, answer.columns, strict=True)
    }


def _feasts(
    store: FeatureStore,
    catalog: Catalog,
    service: str,
    refs: Sequence[FeatureRef],
    rows: Sequence[Mapping[str, str]],
) -> dict[FeatureRef, list[Value]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer: Any = store.get_online_features(
            features=store.get_feature_service(service),
            entity_rows=[dict(row) for row in rows],
            full_feature_names=True,
        ).proto
    names = list(answer.metadata.feature_names.val)
    return {
        ref: [
            decode_value(catalog.feature(ref).value_type, value.SerializeToString())
            for value in answer.results[names.index(f"{ref.view}__{ref.feature}")].values
        ]
        for ref in refs
    }
