"""The embedded store and the stack around it, when something else is in the way."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from online.store import connect
from server.config import Settings
from server.embedded import EmbeddedStoreError, EmbeddedValkey
from server.supervisor import Stack, StackError
from tests.support.valkey import run_valkey


def test_second_store_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two servers appending to one file would destroy what both acknowledged."""
    with run_valkey(tmp_path) as first:
        with pytest.raises(EmbeddedStoreError, match="in use by another Waypost"):
            EmbeddedValkey(tmp_path).start()
        with connect(first.url) as client:
            client.set("kept", 1)
    with run_valkey(tmp_path) as again, connect(again.url) as client:
        assert client.get("kept") == b"1"


def test_killed_store_comes_back_with_what_it_acknowledged(tmp_path: Path) -> None:
    """On the same folder and port, with every acknowledged write."""
    with run_valkey(tmp_path) as store:
        with connect(store.url) as client:
            for number in range(50):
                client.set(f"k{number}", number)
        url = store.url
        store.kill()
        assert not store.running
        store.start()
        assert store.url == url
        with connect(url) as client:
            assert client.dbsize() == 50


def test_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    """Otherwise the health check would reach the other server, and clients would publish to the wrong shop."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = Settings(repo=tmp_path, data_dir=tmp_path / "data", grpc_port=port, http_port=0)
        stack = Stack(settings)
        with pytest.raises(StackError, match=f"cannot listen on 127.0.0.1:{port}"):
            stack.start_services()
        assert not stack.children
