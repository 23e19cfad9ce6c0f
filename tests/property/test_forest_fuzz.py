"""The model loader under mutation: whatever the bytes, a ForestError or a forest that scores."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.forest import ForestError, load_forest
from tests.support.forest_models import random_case

SEEDS = (0, 3, 11, 14)
LIMIT_S = 1.0  # of processor time: a busy machine may stall any process
EXAMPLES = 4 * settings().max_examples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Small real models of several kinds, in both formats."""
    boosters = [random_case(seed).booster for seed in SEEDS]
    return [bytes(booster.save_raw(kind)) for booster in boosters for kind in ("ubj", "json")]


def _must_be_safe(data: bytes) -> None:
    """Load within the limit; what loads must score hostile rows without harm."""
    started = time.thread_time()
    try:
        forest = load_forest(data)
    except ForestError:
        assert time.thread_time() - started < LIMIT_S
        return
    width = len(forest.feature_names)
    rows = np.full((9, width), np.nan, np.float32)
    rows[1], rows[2], rows[3], rows[4] = np.inf, -np.inf, 2**24, 31.5
    assert forest.margins(rows).shape == (9, forest.group_count)
    assert len(forest.predict(rows)) == 9


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_forest_loader_survives_changed_bytes(files: list[bytes], data: st.DataObject) -> None:
    """Bytes overwritten, removed, inserted or cut off anywhere never crash, hang or corrupt memory."""
    file = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(file) - 1, 0)))
        piece = data.draw(st.binary(max_size=9))
        match data.draw(st.sampled_from(("overwrite", "insert", "remove", "cut"))):
            case "overwrite":
                file[at : at + len(piece)] = piece
            case "insert":
                file[at:at] = piece
            case "remove":
                del file[at : at + 1 + len(piece)]
            case _:
                del file[at:]
    _must_be_safe(bytes(file))


_NUMBERS = st.sampled_from(
    (-1, 0, 1, 2, 7, 2**31 - 1, -(2**31), 2**63, 1.5, -0.0, 1e39, float("nan"), float("inf"))
)
_VALUES: st.SearchStrategy[Any] = _NUMBERS | st.sampled_from(
    ("", "7", "-1", "[1E0]", "nan", "dart", "multi:softprob", None, True, [], {})
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_forest_loader_survives_changed_fields(files: list[bytes], data: st.DataObject) -> None:
    """Well-formed documents with any field or array element replaced or removed are just as harmless."""
    document = json.loads(data.draw(st.sampled_from(files[1::2])))
    for _ in range(data.draw(st.integers(1, 3))):
        _change_somewhere(document, data)
    _must_be_safe(json.dumps(document).encode())


def _change_somewhere(node: Any, data: st.DataObject) -> None:
    """Walk down at random and replace or remove what is there."""
    while True:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        child = node[key]
        if isinstance(child, dict | list) and child and data.draw(st.integers(0, 5)):
            node = child
            continue
        if data.draw(st.booleans()):
            node[key] = data.draw(_VALUES)
        else:
            del node[key]
        return


@given(st.binary(max_size=200))
def test_forest_loader_survives_noise(noise: bytes) -> None:
    """Bytes without any structure, plain and behind a UBJSON opening, are refused."""
    for data in (noise, b"{L" + noise, b"{i\x07learner" + noise):
        with pytest.raises(ForestError):
            load_forest(data)
