"""Exit 0 if the server in this container says SERVING: the image's health check.

WAYPOST_GRPC_PORT names the port, as it does for the server itself.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 2.0


def is_serving(target: str) -> bool:
    """Ask the standard health service of `target`; an unreachable server is not serving."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            sys.stderr.write(f"{target}: {error}\n")
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    port = os.environ.get("WAYPOST_GRPC_PORT", "50051")
    sys.exit(0 if is_serving(f"127.0.0.1:{port}") else 1)
