"""What holds for every test: hypothesis profiles, quiet libraries, and how processes share the tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
import redis
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from server.feast.type_checks import defer_feasts_checks
from tests.support.reported import REPORTED
from tests.support.valkey import close_opened, emptied, start_valkey

# Deadlines off: the first call of a kernel compiles it, and a shared two-core machine stalls at will.
settings.register_profile(
    "dev", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
# The same examples in every run, so that a red build is red again on the next machine.
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile("nightly", parent=settings.get_profile("dev"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# Feast reports usage over the network unless told not to.
os.environ.setdefault("FEAST_USAGE", "False")
# Tests may import Feast before anything of Waypost's does.
defer_feasts_checks()

KERNELS = (
    "decision.kernels, decision.program.gather, decision.centroids",
    "decision.forest.kernels, online.word_kernels, streaming.windows.kernels, streaming.windows.change_kernels",
)
"""All compiled code, in two parts that take about as long and share nothing."""


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels before there are processes to do so, each for itself and into the same cache."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        commands = ([sys.executable, "-W", "ignore", "-c", f"import {modules}"] for modules in KERNELS)
        for child in [subprocess.Popen(command) for command in commands]:
            child.wait()  # one that fails has said why, and so will the tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that no process is left with one when the other has nothing more to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Hold examples to the modules imported by now.

    Hypothesis draws constants from all that is imported. What a test imports while it runs would change the examples
    of those that follow, and which follow in the same process is different in every run.
    """
    constants = providers._get_local_constants()
    providers._get_local_constants = lambda: constants


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests report."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, lines in getattr(report, "user_properties", ()):
            if name == REPORTED and report.when == "call":
                terminalreporter.section(report.nodeid)
                terminalreporter.write("\n".join([*lines, ""]))


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of the online store on both loops: its sockets meet the loop's own classes."""
    if item.path.name.startswith("test_online"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store for the tests of a module."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Connections of a test do not outlive it."""
    yield
    close_opened()


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    """A connection to the module's store, which is emptied."""
    with emptied(url) as client:
        yield client
