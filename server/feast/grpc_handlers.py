"""Feast's two gRPC services, as handlers that answer with serialized messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

import grpc

from server.errors import InvalidRequestError
from server.feast.answering import OnlineFeatures
from server.feast.online_request import OnlineRequest, RequestReader
from server.feast.protos import (
    FEATURE_SERVER,
    SERVING,
    GetFeastServingInfoRequest,
    GetFeastServingInfoResponse,
    PushRequest,
    PushResponse,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from server.feast.pushed import Pushed, PushedMessages, PushedTexts
from server.feast.writing import FeatureWriter

SERVICE_NAMES = (SERVING, FEATURE_SERVER)
Behaviour = Callable[[Any, Any], Awaitable[bytes]]
Handler = Any  # grpc.RpcMethodHandler, which is generic in its stub alone


class FeastHandlers:
    """What both services do.

    Args:
        features: Answers reads.
        writer: Takes pushes.
    """

    def __init__(self, features: OnlineFeatures, writer: FeatureWriter) -> None:
        self._features = features
        self._writer = writer
        self._requests = RequestReader()
        self._info: bytes = GetFeastServingInfoResponse(version=version("waypost")).SerializeToString()

    def by_service(self) -> Mapping[str, Mapping[str, Handler]]:
        """The methods of each service by name."""
        online = _unary(self.get_online_features, self._requests.read)
        return {
            SERVING: {
                "GetFeastServingInfo": _unary(
                    self.get_feast_serving_info, GetFeastServingInfoRequest.FromString
                ),
                "GetOnlineFeatures": online,
            },
            FEATURE_SERVER: {
                "GetOnlineFeatures": online,
                "Push": _unary(self.push, PushRequest.FromString),
                "WriteToOnlineStore": _unary(
                    self.write_to_online_store, WriteToOnlineStoreRequest.FromString
                ),
            },
        }

    async def get_feast_serving_info(self, request: Any, context: Any) -> bytes:  # noqa: ARG002 - gRPC's signature
        """The version of this server."""
        return self._info

    async def get_online_features(self, request: OnlineRequest, context: Any) -> bytes:  # noqa: ARG002 - gRPC's signature
        """Features of a service or list, for every row."""
        answer = await self._features.answer(request.asked, request.entities, request.context)
        self._requests.keep(request)
        return answer

    async def push(self, request: Any, context: Any) -> bytes:  # noqa: ARG002 - gRPC's signature
        """One row to every view of a push source."""
        await self._writer.push(request.stream_feature_view, _row(request), request.to)
        done: bytes = PushResponse(status=True).SerializeToString()
        return done

    async def write_to_online_store(self, request: Any, context: Any) -> bytes:  # noqa: ARG002 - gRPC's signature
        """One row to one view."""
        await self._writer.write(request.feature_view_name, _row(request))
        done: bytes = WriteToOnlineStoreResponse(status=True).SerializeToString()
        return done


def _row(request: Any) -> Pushed:
    if request.features and request.typed_features:
        raise InvalidRequestError.of("FIELDS_EXCLUSIVE", "features", "send either features or typed_features")
    if request.typed_features:
        return PushedMessages(request.typed_features)
    return PushedTexts(request.features)


def _unary(behaviour: Behaviour, read: Callable[[bytes], Any]) -> Handler:
    return grpc.unary_unary_rpc_method_handler(behaviour, request_deserializer=read)
