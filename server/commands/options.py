"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.config import ClockKind

Repo = Annotated[Path | None, typer.Option("--repo", help="The feature repo.", show_default="feature_repo")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where data is kept.", show_default="data")]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        help="Your Redis or Valkey, or `feast` for the repo's own; without it one is started here.",
    ),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url", help="The Redis or Valkey to use.", show_default="the one in feature_store.yaml"
    ),
]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
GrpcPort = Annotated[
    int | None, typer.Option("--grpc-port", help="0 picks a free one.", show_default="50051")
]
HttpPort = Annotated[int | None, typer.Option("--http-port", help="0 picks a free one.", show_default="9090")]
Partitions = Annotated[int | None, typer.Option("--partitions", help="Of the log.", show_default="4")]
Clock = Annotated[
    ClockKind | None, typer.Option("--clock", help="What logical time runs on.", show_default="system")
]
Target = Annotated[str, typer.Option("--target", envvar="WAYPOST_TARGET", help="Address of the server.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_TARGET = "127.0.0.1:50051"
