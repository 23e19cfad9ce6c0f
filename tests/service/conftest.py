"""What tests of services share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.embedded import EmbeddedValkey
from tests.support.valkey import run_valkey


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A store for one module."""
    with run_valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running
