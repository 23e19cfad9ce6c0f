"""Answers of the server as JSON for machines: what is not there is null, not the epoch or left out."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from waypost.admin.v1 import admin_pb2
from waypost.features.v1 import features_pb2


def message_json(message: Message) -> dict[str, Any]:
    """A message in proto3's JSON, with its default values."""
    fields: dict[str, Any] = MessageToDict(message, always_print_fields_with_no_presence=True)
    return fields


def features_json(response: features_pb2.GetOnlineFeaturesResponse) -> dict[str, Any]:
    """The columns; a value that was never written has no event time."""
    fields = message_json(response)
    for column, sent in zip(fields["columns"], response.columns, strict=True):
        column["eventTimestamps"] = [
            text if stamp.ByteSize() else None
            for text, stamp in zip(column["eventTimestamps"], sent.event_timestamps, strict=True)
        ]
    return fields


def status_json(response: admin_pb2.GetStatusResponse) -> dict[str, Any]:
    """The server's state; a partition on which nothing was applied yet has no watermark."""
    fields = message_json(response)
    for partition, sent in zip(fields["partitions"], response.partitions, strict=True):
        if not sent.watermark.ByteSize():
            partition["watermark"] = None
    return fields
