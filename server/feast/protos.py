"""Feast's own messages. Importing them imports Feast, which a server has done when it has loaded its repo."""

from __future__ import annotations

from feast.protos.feast.serving.GrpcServer_pb2 import DESCRIPTOR as GRPC_SERVER
from feast.protos.feast.serving.GrpcServer_pb2 import (
    PushRequest,
    PushResponse,
    WriteToOnlineStoreRequest,
    WriteToOnlineStoreResponse,
)
from feast.protos.feast.serving.ServingService_pb2 import DESCRIPTOR as SERVING_SERVICE
from feast.protos.feast.serving.ServingService_pb2 import (
    FieldStatus,
    GetFeastServingInfoRequest,
    GetFeastServingInfoResponse,
    GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
    GetOnlineFeaturesResponseMetadata,
)
from feast.protos.feast.types.Value_pb2 import Map, MapKey, RepeatedValue, Value

__all__ = [
    "FEATURE_SERVER",
    "SERVING",
    "FieldStatus",
    "GetFeastServingInfoRequest",
    "GetFeastServingInfoResponse",
    "GetOnlineFeaturesRequest",
    "GetOnlineFeaturesResponse",
    "GetOnlineFeaturesResponseMetadata",
    "Map",
    "MapKey",
    "PushRequest",
    "PushResponse",
    "RepeatedValue",
    "Value",
    "WriteToOnlineStoreRequest",
    "WriteToOnlineStoreResponse",
]

SERVING = str(SERVING_SERVICE.services_by_name["ServingService"].full_name)
"""What Feast's Java and Go clients call."""
FEATURE_SERVER = str(GRPC_SERVER.services_by_name["GrpcFeatureServer"].full_name)
"""What `feast listen` serves."""
