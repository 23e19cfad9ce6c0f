"""The HTTP port against clients that are slow, silent, or never come to an end."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

import server.http
from server.embedded import EmbeddedValkey
from tests.support.clinic import TIMEOUT_S, Clinic, run_clinic

PATIENCE_S = 1
CONNECTIONS = 20


@pytest.fixture(scope="module")
def clinic(store: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A server that waits for no client longer than `PATIENCE_S`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.http, "REQUEST_TIMEOUT_S", PATIENCE_S)
        limits = {"max_concurrent_calls": CONNECTIONS}
        with run_clinic(tmp_path_factory.mktemp("clinic"), store.url, limits=limits) as running:
            yield running


def _connected(clinic: Clinic) -> socket.socket:
    host, _, port = clinic.addresses.http.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def _all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def _health(clinic: Clinic) -> int:
    try:
        with urllib.request.urlopen(f"http://{clinic.addresses.http}/health", timeout=TIMEOUT_S) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost:"], ids=["nothing", "half a head"])
def test_idle_connections_do_not_keep_others_out(clinic: Clinic, sent: bytes) -> None:
    """As many as there may be, and health answers again once their time is over."""
    idle = [_connected(clinic) for _ in range(CONNECTIONS)]
    for connection in idle:
        connection.sendall(sent)
    deadline = time.monotonic() + TIMEOUT_S
    while _health(clinic) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for connection in idle:
        assert _all(connection) == b""
        connection.close()


def test_an_answered_connection_is_idle_whatever_it_sends(clinic: Clinic) -> None:
    """An empty line ends the wait for the next request, and is none."""
    with _connected(clinic) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: here\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 ")
        connection.sendall(b"\r\n")
        assert b"HTTP/1.1" not in _all(connection)


def test_a_head_without_end_is_cut_off(clinic: Clinic) -> None:
    """It is not collected for as long as somebody sends."""
    with _connected(clinic) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"a: b\r\n" * 10_000_000)


def test_a_body_that_does_not_come_is_refused(clinic: Clinic) -> None:
    """The sender is told; it is no incident of the server's."""
    with _connected(clinic) as connection:
        connection.sendall(b'POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"ev')
        head, _, body = _all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504 ")
    error = json.loads(body)["error"]
    assert (error["status"], error["details"][0]["reason"]) == ("DEADLINE_EXCEEDED", "BUDGET_SPENT")


def test_a_connection_serves_many_requests_with_pauses(clinic: Clinic) -> None:
    """What is bounded is the time to a whole head, not a connection's life."""
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    with _connected(clinic) as connection:
        for _ in range(4):
            connection.sendall(request[:20])
            time.sleep(PATIENCE_S * 0.4)
            connection.sendall(request[20:])
            answer = b""
            while not answer.endswith(b"SERVING\n"):
                answer += connection.recv(65_536) or pytest.fail("closed")
            assert answer.startswith(b"HTTP/1.1 200 OK")
