"""Feast's HTTP API, as Feast's Python server speaks it: what `online_store: {type: remote}` of the SDK calls."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import InvalidRequestError
from server.feast.answering import OnlineFeatures
from server.feast.entities import GivenJson
from server.feast.plain import json_of
from server.feast.protos import FieldStatus, GetOnlineFeaturesResponse
from server.feast.pushed import PushedJson
from server.feast.selection import Asked
from server.feast.writing import FeatureWriter, Target
from server.values import micros, timestamp

Columns = dict[str, list[Any]]
Route = Callable[[bytes], Awaitable[bytes]]
_EPOCH = "1970-01-01T00:00:00Z"


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")  # allow_registry_cache and what newer clients add


class _Reading(_Body):
    entities: Columns
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class _Pushing(_Body):
    push_source_name: Annotated[str, Field(min_length=1)]
    df: Columns
    to: str = Target.ONLINE.value


class _Writing(_Body):
    feature_view_name: Annotated[str, Field(min_length=1)]
    df: Columns


class FeastRoutes:
    """The answers of Feast's HTTP server.

    Args:
        features: Answers reads.
        writer: Takes pushes.
    """

    def __init__(self, features: OnlineFeatures, writer: FeatureWriter) -> None:
        self._features = features
        self._writer = writer

    def routes(self) -> Mapping[str, Route]:
        """By path; each takes a POST's body and gives the answer's, both JSON."""
        return {
            "/get-online-features": self.get_online_features,
            "/push": self.push,
            "/write-to-online-store": self.write_to_online_store,
        }

    async def get_online_features(self, body: bytes) -> bytes:
        """Features of a service or list, for every row."""
        request = _parsed(_Reading, body)
        asked = Asked(
            service=request.feature_service or "",
            features=() if request.feature_service else tuple(request.features),
            full_names=request.full_feature_names,
            view_versions=request.include_feature_view_version_metadata,
        )
        data = await self._features.answer(asked, GivenJson("entities", request.entities))
        return response_json(GetOnlineFeaturesResponse.FromString(data))

    async def push(self, body: bytes) -> bytes:
        """Rows to every view of a push source."""
        request = _parsed(_Pushing, body)
        await self._writer.push(request.push_source_name, PushedJson(request.df), request.to)
        return b""

    async def write_to_online_store(self, body: bytes) -> bytes:
        """Rows to one view."""
        request = _parsed(_Writing, body)
        await self._writer.write(request.feature_view_name, PushedJson(request.df))
        return b"null"


def response_json(response: Any) -> bytes:
    """A response as Feast's HTTP server writes it."""
    results = [
        {
            "values": [json_of(value) for value in result.values],
            "statuses": [FieldStatus.Name(status) for status in result.statuses],
            "event_timestamps": [_time_text(stamp) for stamp in result.event_timestamps],
        }
        for result in response.results
    ]
    metadata: dict[str, Any] = {"feature_names": list(response.metadata.feature_names.val)}
    if response.metadata.feature_view_metadata:
        metadata["feature_view_metadata"] = [
            {"name": item.name} | ({"version": item.version} if item.version else {})
            for item in response.metadata.feature_view_metadata
        ]
    return json.dumps({"results": results, "metadata": metadata}, separators=(",", ":")).encode()


def _time_text(stamp: Timestamp) -> str:
    return timestamp(micros(stamp)).ToJsonString() if stamp.seconds or stamp.nanos else _EPOCH


def _parsed(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise InvalidRequestError.of("MESSAGE_MALFORMED", field, first["msg"]) from error
