"""Calling a server from the shell: channel, deadline, errors in words, values from text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import grpc
import typer
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.commands.output import REFUSED, UNREACHABLE, fail
from server.values import timestamp
from waypost.features.v1 import features_pb2

TIMEOUT_S = 10.0


@contextmanager
def channel_to(target: str) -> Iterator[grpc.Channel]:
    """A channel for one command; a failed call becomes a message and an exit code."""
    with grpc.insecure_channel(target) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            raise _failure(error, target) from error


def _failure(error: Any, target: str) -> typer.Exit:
    status = rpc_status.from_call(error)
    if status is None:
        code = UNREACHABLE if error.code() is grpc.StatusCode.UNAVAILABLE else REFUSED
        return fail(f"{target}: {error.code().name}: {error.details()}", code)
    return fail("\n".join([f"{error.code().name}: {status.message}", *details_of(status)]))


def details_of(status: Any) -> list[str]:
    """The details of a `google.rpc.Status` that its message does not say, as lines for people."""
    lines = []
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            lines.append(f"  reason: {info.reason}")
        elif detail.Unpack(bad):
            texts = [f"{item.field}: {item.description}" for item in bad.field_violations]
            lines += [f"  {text}" for text in texts if text not in status.message]
        elif detail.Unpack(retry):
            lines.append(f"  try again after {retry.retry_delay.ToTimedelta().total_seconds():g} s")
    return lines


def key_and_value(text: str, option: str) -> tuple[str, features_pb2.Value]:
    """Read `name=value`.

    The value is JSON (`3`, `2.5`, `true`, `"text"`, `["a"]`, `null`), an instant where it starts with `@`
    (`@2026-01-31T12:00:00Z`), and text where it is neither.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not of the form name=value", param_hint=option)
    if value.startswith("@"):
        return name, features_pb2.Value(timestamp_value=timestamp(instant_us(value[1:], option)))
    try:
        return name, message_of(json.loads(value))
    except json.JSONDecodeError:
        return name, features_pb2.Value(string_value=value)


def instant_us(text: str, option: str) -> int:
    """Microseconds of an RFC 3339 instant."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no instant such as 2026-01-31T12:00:00Z", param_hint=option
        ) from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone: add Z for UTC", param_hint=option)
    return round(moment.timestamp() * 1_000_000)


def message_of(value: object) -> features_pb2.Value:
    """A JSON value as a message; whole numbers are integers."""
    match value:
        case None:
            return features_pb2.Value()
        case bool():
            return features_pb2.Value(bool_value=value)
        case int():
            return features_pb2.Value(int64_value=value)
        case float():
            return features_pb2.Value(double_value=value)
        case list():
            return features_pb2.Value(
                list_value=features_pb2.ValueList(values=[message_of(v) for v in value])
            )
        case _:
            return features_pb2.Value(string_value=value if isinstance(value, str) else json.dumps(value))


def text_of(message: features_pb2.Value) -> str:
    """A value for people; NULL is `–`."""
    kind = message.WhichOneof("kind")
    match kind:
        case None:
            return "–"
        case "timestamp_value":
            return message.timestamp_value.ToJsonString()
        case "list_value":
            return "[" + ", ".join(text_of(item) for item in message.list_value.values) + "]"
        case _:
            value = getattr(message, kind)
            return f"{value:.6g}" if isinstance(value, float) else str(value)
