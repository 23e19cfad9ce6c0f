"""FeatureService: reads features of many entities in one round trip."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from decision.schema import Catalog, FeatureRef, JoinKey, Value
from online.errors import PlanError, ReadTooLargeError
from online.read import Columns, OnlineReader, ReadPlan
from server.bounds import NAME_SHOWN, check_count, check_names, check_size
from server.budget import CURRENT
from server.bundles import BundleKeeper
from server.clock import Clock
from server.config import Limits
from server.errors import InvalidRequestError, UnknownResourceError
from server.values import column_to_proto, key_value, timestamp
from waypost.features.v1 import features_pb2, features_pb2_grpc

MAX_PLANS = 256


class FeatureService(features_pb2_grpc.FeatureServiceServicer):
    """Reads what is stored, with a status for every value.

    Args:
        bundles: Gives the catalog that serves.
        reader: The online store.
        clock: Ages are measured against it.
        limits: Bounds of a request.
    """

    def __init__(self, bundles: BundleKeeper, reader: OnlineReader, clock: Clock, limits: Limits) -> None:
        self._bundles = bundles
        self._reader = reader
        self._clock = clock
        self._limits = limits
        self._plans: dict[tuple[str, tuple[FeatureRef, ...]], ReadPlan] = {}

    async def GetOnlineFeatures(  # noqa: N802 - the name in the proto
        self,
        request: features_pb2.GetOnlineFeaturesRequest,
        context: Any,  # noqa: ARG002 - gRPC's signature
    ) -> features_pb2.GetOnlineFeaturesResponse:
        """Read the features of a service or list, for every entity row; columns are in the order of the request."""
        self._check(request)
        catalog = self._bundles.current.bundle.catalog
        refs = requested_refs(request, catalog)
        check_count("features × entities", len(refs) * len(request.entities), self._limits.max_cells)
        keys = join_keys(refs, catalog)
        rows = [entity_row(row.keys, keys, f"entities[{i}]") for i, row in enumerate(request.entities)]
        plan = self._plan(catalog, refs)
        timeout_s = CURRENT.get().for_store_s()
        try:
            (answer,) = await self._reader.replies([(plan, rows)], self._clock.now_us(), timeout_s)
            answer.check_size()
        except ReadTooLargeError as error:
            raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "entities", str(error)) from error
        return features_pb2.GetOnlineFeaturesResponse(columns=list(_columns(answer.columns(), catalog)))

    def _plan(self, catalog: Catalog, refs: tuple[FeatureRef, ...]) -> ReadPlan:
        """The compiled plan of a list; the least recently made is forgotten beyond `MAX_PLANS`."""
        key = (catalog.content_hash, refs)
        if key not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = _compiled(catalog, refs)
        return self._plans[key]

    def _check(self, request: features_pb2.GetOnlineFeaturesRequest) -> None:
        limits = self._limits
        check_count("features", len(request.features), limits.max_features)
        check_count("entities", len(request.entities), limits.max_entities)
        check_size("feature_service", len(request.feature_service), limits.max_text_bytes)
        check_names("features", request.features, limits.max_text_bytes)
        for index, row in enumerate(request.entities):
            check_size(f"entities[{index}]", row.ByteSize(), limits.max_text_bytes)


def _compiled(catalog: Catalog, refs: tuple[FeatureRef, ...]) -> ReadPlan:
    try:
        return ReadPlan.compile(catalog, refs)
    except PlanError as error:
        raise InvalidRequestError.of("FEATURE_NOT_READABLE", "features", str(error)) from error


def requested_refs(
    request: features_pb2.GetOnlineFeaturesRequest, catalog: Catalog
) -> tuple[FeatureRef, ...]:
    """The features that a request asks for, in its order.

    Raises:
        InvalidRequestError: Both or neither of service and list are given, or a feature is malformed or not stored.
        UnknownResourceError: The service, view or feature is not defined.
    """
    if bool(request.feature_service) == bool(request.features):
        reason = "FIELDS_EXCLUSIVE" if request.features else "REQUIRED_FIELD_MISSING"
        raise InvalidRequestError.of(reason, "feature_service", "send either feature_service or features")
    if request.feature_service:
        refs: Sequence[FeatureRef] = _service_refs(request.feature_service, catalog)
    else:
        refs = [_ref(name, f"features[{index}]", catalog) for index, name in enumerate(request.features)]
    return tuple(refs)


def _service_refs(name: str, catalog: Catalog) -> tuple[FeatureRef, ...]:
    service = catalog.service_by_name.get(name)
    if service is None:
        message = f"no feature service {name!r}{_service_hint(name, catalog)}"
        raise UnknownResourceError("UNKNOWN_FEATURE_SERVICE", message, "feature_service", name)
    for ref in service.features:
        _check_readable(ref, "feature_service", catalog)
    return service.features


def _service_hint(name: str, catalog: Catalog) -> str:
    view = catalog.view_by_name.get(name)
    if view is None or not view.features:
        return _hint(name, catalog.service_by_name)
    return f"; {name!r} is a view: ask for its features, such as '{name}:{view.features[0].name}'"


def _ref(name: str, field: str, catalog: Catalog) -> FeatureRef:
    view, colon, feature = name.partition(":")
    if not colon:
        raise InvalidRequestError.of(
            "FIELD_TYPE_MISMATCH", field, f"{name!r} is not of the form view:feature"
        )
    if view not in catalog.view_by_name:
        raise _unknown_feature(name, f"no view {view!r}{_hint(view, catalog.view_by_name)}")
    features = catalog.view_by_name[view].feature_by_name
    if feature not in features:
        raise _unknown_feature(name, f"view {view!r} has no feature {feature!r}{_hint(feature, features)}")
    ref = FeatureRef(view=view, feature=feature)
    _check_readable(ref, field, catalog)
    return ref


def _check_readable(ref: FeatureRef, field: str, catalog: Catalog) -> None:
    if catalog.view_by_name[ref.view].on_demand:
        description = f"{ref.view}:{ref.feature} is computed on demand, not stored: read its inputs"
        raise InvalidRequestError.of("FEATURE_NOT_READABLE", field, description)
    value_type = catalog.feature(ref).value_type
    if value_type.opaque:
        description = (
            f"{ref.view}:{ref.feature} is {value_type.name}: read it by feast.serving.ServingService"
        )
        raise InvalidRequestError.of("FEATURE_NOT_READABLE", field, description)


def _unknown_feature(name: str, message: str) -> UnknownResourceError:
    return UnknownResourceError("UNKNOWN_FEATURE", message, "feature", name)


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def join_keys(refs: Sequence[FeatureRef], catalog: Catalog) -> dict[str, JoinKey]:
    """All join keys of the features' views, by name."""
    views = dict.fromkeys(ref.view for ref in refs)
    return {key.name: key for view in views for key in catalog.view_by_name[view].join_keys}


def entity_row(
    sent: Mapping[str, features_pb2.Value], keys: Mapping[str, JoinKey], field: str
) -> dict[str, Value]:
    """One entity's join keys, checked and cast.

    Raises:
        InvalidRequestError: A key is missing, unknown or of another type.
    """
    for name in sent:
        if name not in keys:
            description = (
                f"the features asked for have no such join key{_hint(name, keys)}; they need {sorted(keys)}"
            )
            raise InvalidRequestError.of(
                "UNKNOWN_ENTITY_KEY", f"{field}.keys.{name[:NAME_SHOWN]}", description
            )
    for name in keys:
        if name not in sent:
            raise InvalidRequestError.of(
                "REQUIRED_FIELD_MISSING", f"{field}.keys.{name}", "give the join key a value"
            )
    return {name: key_value(sent[name], key.value_type, f"{field}.keys.{name}") for name, key in keys.items()}


def _columns(columns: Columns, catalog: Catalog) -> Iterable[features_pb2.FeatureColumn]:
    for place, ref in enumerate(columns.refs):
        event_us = columns.event_us[columns.plan.view_of[place]].tolist()
        yield features_pb2.FeatureColumn(
            name=f"{ref.view}:{ref.feature}",
            values=column_to_proto(columns.values(place), catalog.feature(ref).value_type),
            statuses=columns.statuses[place].tolist(),
            event_timestamps=[timestamp(micros) if micros else Timestamp() for micros in event_us],
        )
