"""Versions of a registry that can be read in part, or no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from server.feast.versions import read_versions


class _Registry:
    """A registry of one view, of whose three versions the second cannot be unpickled."""

    enable_online_versioning = True

    def __init__(self, *, lost_at: int) -> None:
        self._lost_at = lost_at

    def list_feature_views(self, _project: str, **_: Any) -> list[Any]:
        return [SimpleNamespace(name="stats", current_version_number=2)]

    def list_stream_feature_views(self, _project: str, **_: Any) -> list[Any]:
        return []

    list_on_demand_feature_views = list_stream_feature_views

    def list_feature_view_versions(self, _name: str, _project: str) -> list[dict[str, int]]:
        self._answer(0)
        return [{"version_number": number} for number in range(3)]

    def get_feature_view_by_version(self, name: str, _project: str, number: int, **_: Any) -> str:
        self._answer(number)
        if number == 1:
            raise ModuleNotFoundError("of another Python")
        return f"{name} {number}"

    def _answer(self, number: int) -> None:
        if number >= self._lost_at:
            self._lost_at = 0
            raise ConnectionError("the database is gone")


def _store(lost_at: int) -> Any:
    return SimpleNamespace(project="shop", registry=_Registry(lost_at=lost_at))


def test_a_version_that_cannot_be_read_is_left_out() -> None:
    """The others serve."""
    found = read_versions(_store(lost_at=9))
    assert found.views == {"stats@v0": "stats 0", "stats@v2": "stats 2"}
    assert found.current == {"stats": 2}


@pytest.mark.parametrize("lost_at", [1, 2])
def test_a_registry_lost_half_way_has_not_lost_its_versions(lost_at: int) -> None:
    """It is refused whole, and what was read before goes on serving."""
    with pytest.raises(ConnectionError):
        read_versions(_store(lost_at))
