"""Calls that are opened and whose request does not come, or comes late."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from server.calls import Border
from server.config import Deadlines, Limits, Settings
from server.embedded import EmbeddedValkey
from server.errors import RequestError
from server.metrics import Metrics
from server.waiting import Waiting
from tests.support.clinic import TIMEOUT_S, Clinic, refusal, run_clinic
from tests.support.raw_http2 import raw_http2
from waypost.decision.v1 import decision_pb2

DECIDE = "/waypost.decision.v1.DecisionService/Decide"
METHODS = (
    DECIDE,
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/waypost.segments.v1.SegmentService/WatchSegments",
    "/feast.serving.ServingService/GetOnlineFeatures",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
PLACES = 20
REQUEST = decision_pb2.DecideRequest(placement="portal_banner", customer_id="7")


@pytest.fixture(scope="module")
def impatient(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server that waits for no request longer than 0.2 s."""
    deadlines = Deadlines(default_ms=200, cap_ms=200)
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url, deadlines=deadlines) as running:
        yield running


@pytest.fixture(scope="module")
def small(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server of few places, with more patience than any test has."""
    options = {
        "deadlines": Deadlines(default_ms=30_000, cap_ms=60_000),
        "limits": Limits(max_concurrent_calls=PLACES),
    }
    with run_clinic(tmp_path_factory.mktemp("clinic"), store.url, **options) as running:
        yield running


@pytest.mark.parametrize("sent", [b"", b"\x00\x00\x00"], ids=["nothing", "half a message"])
@pytest.mark.parametrize("method", METHODS)
def test_a_call_whose_request_does_not_come_is_ended(impatient: Clinic, method: str, sent: bytes) -> None:
    """Of whatever kind the method is; the connection and its other calls go on."""
    with raw_http2(impatient.addresses.grpc, TIMEOUT_S) as client:
        streams = {client.open(method) for _ in range(3)}
        for stream in streams if sent else ():
            client.send(stream, sent)
        client.wait_ended(3)
        assert client.ended == streams


@pytest.mark.parametrize("method", [DECIDE, "/grpc.health.v1.Health/Check"])
def test_calls_that_bring_nothing_keep_nobody_out(small: Clinic, method: str) -> None:
    """Many more than there are places: those that have waited longest go, and every request is answered."""
    with raw_http2(small.addresses.grpc, TIMEOUT_S) as client:
        opened = [client.open(method) for _ in range(5 * PLACES)]
        client.wait_ended(4 * PLACES)
        assert client.ended == set(opened[: 4 * PLACES])
        for _ in range(2 * PLACES):
            assert small.decisions.Decide(REQUEST, timeout=TIMEOUT_S).offers


def test_a_request_that_comes_late_is_answered(small: Clinic) -> None:
    """A call is open, others come and go, and then it sends its request."""
    with raw_http2(small.addresses.grpc, TIMEOUT_S) as client:
        late = client.open(DECIDE)
        for _ in range(2 * PLACES):
            assert small.decisions.Decide(REQUEST, timeout=TIMEOUT_S).offers
        data = REQUEST.SerializeToString()
        client.send(late, struct.pack(">BI", 0, len(data)) + data, last=True)
        client.wait_ended(1)
        assert client.ended == {late}


@pytest.mark.parametrize("method", METHODS[:-1])
def test_a_call_without_a_request_is_refused(small: Clinic, method: str) -> None:
    """It says at once that none will come; as the method has one, it is told so."""
    channel: Any = small.channel
    if method.rpartition("/")[2].startswith("Watch"):
        answers = channel.stream_stream(method)(iter(()), timeout=TIMEOUT_S)
    else:
        answers = iter([channel.stream_unary(method).future(iter(()), timeout=TIMEOUT_S)])
    with pytest.raises(grpc.RpcError) as caught:
        next(answers).result()
    assert refusal(caught.value).info.reason == "MESSAGE_MALFORMED"


SLOW = "waypost.test.Slow"


class Slow:
    """A method that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.told = asyncio.Event()

    async def wait(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002 - gRPC's signature
        """Answer with the request."""
        self.asked.release()
        await self.told.wait()
        return request


@contextlib.asynccontextmanager
async def serving(slow: Slow, places: int) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of so many places."""
    server = grpc.aio.server()
    border: Any = Border(server, Settings(limits=Limits(max_concurrent_calls=places)), Metrics())
    handler: Any = grpc.unary_unary_rpc_method_handler(slow.wait, request_deserializer=bytes)
    border.add_registered_method_handlers(SLOW, {"Wait": handler})
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, border)
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def test_calls_beyond_the_places_are_refused_until_one_is_free() -> None:
    """With a reason and a time to try again; health answers all the while."""
    slow = Slow()
    async with serving(slow, 2) as channel:
        wait: Any = channel.unary_unary(f"/{SLOW}/Wait")
        calls = [wait(b"early", timeout=TIMEOUT_S) for _ in range(2)]
        for _ in calls:
            await slow.asked.acquire()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wait(b"beyond", timeout=TIMEOUT_S)
        refused = refusal(caught.value)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.info.reason == "TOO_MANY_CALLS"
        assert error_details_pb2.RetryInfo in refused.details
        check: Any = health_pb2_grpc.HealthStub(channel)
        answer = await check.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        slow.told.set()
        await asyncio.gather(*calls)
        assert await wait(b"late", timeout=TIMEOUT_S) == b"late"


class Call:
    """A call of which the test says when its request comes, and that ends as gRPC's do."""

    def __init__(self) -> None:
        self.request: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ended = False

    async def read(self) -> bytes:
        """The request; an error once the call has ended."""
        data = await self.request
        if self.ended:
            raise grpc.aio.AbortError
        return data

    async def end(self, context: Any, error: RequestError, seconds: float) -> None:  # noqa: ARG002
        """End it."""
        self.ended = True
        raise grpc.aio.AbortError


async def test_a_request_that_comes_while_its_call_is_ended_is_not_carried_out() -> None:
    """The client is told that it was refused, so nothing may have come of it."""
    waiting = Waiting(limit=1, patience_s=TIMEOUT_S)
    first, second = Call(), Call()
    reading = asyncio.create_task(waiting.request(first, first.end))
    await asyncio.sleep(0)
    first.request.set_result(b"late")
    second.request.set_result(b"in time")
    assert await waiting.request(second, second.end) == b"in time"
    with pytest.raises(grpc.aio.AbortError):
        await reading
    assert first.ended
