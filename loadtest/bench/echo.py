"""A bare gRPC server: every call gets the same bytes, and nothing is parsed. What no server in Python can beat."""

from __future__ import annotations

import signal
import sys
from typing import Any

import grpc.aio
import uvloop

from loadtest.bench.features_world import METHOD


async def _serve(port: int, size_bytes: int) -> None:
    answer = bytes(size_bytes)

    async def echo(request: bytes, context: Any) -> bytes:  # noqa: ARG001 - gRPC's signature
        return answer

    service, method = METHOD[1:].split("/")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
