"""Versions of views: what they are called, and under which names the online store keeps them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_VERSION = re.compile(r"[vV](\d{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Under which names the online store keeps views.

    Attributes:
        versioned: Each version of a view apart: `registry.enable_online_feature_view_versioning`.
        computed: Views that Waypost computes. There is one version of each, under the view's own name, because what the
            stream knows of a view outlives its versions.
        current: The versions that the registry serves, by view; of a computed view that one is what there is.
    """

    versioned: bool = False
    computed: frozenset[str] = frozenset()
    current: Mapping[str, int] = field(default_factory=dict)

    def version(self, view: Any) -> int:
        """Feast's number of a view's version; 0 where versions are off."""
        return int(getattr(view, "current_version_number", 0) or 0) if self.versioned else 0

    def stored_as(self, view: Any) -> str:
        """The name of its values in the store, or nothing where that is the view's own."""
        return "" if view.name in self.computed else stored_name(view.name, self.version(view))

    def keeps(self, view: Any) -> bool:
        """Whether the store may have values of this version of a view."""
        return view.name not in self.computed or self.version(view) == self.current.get(view.name, 0)

    @property
    def notice(self) -> str:
        """What is to be known of views that Waypost computes while versions are kept apart; empty where nothing is."""
        if not self.versioned or not self.computed:
            return ""
        views = ", ".join(sorted(self.computed))
        moved = [stored_name(view, self.current.get(view, 0)) for view in sorted(self.computed)]
        lost = ", ".join(filter(None, moved))
        where = f" (now {lost})" if lost else ", once it is not the first"
        return (
            f"registry.enable_online_feature_view_versioning is on: Waypost computes {views} and stores each under its "
            f"own name, where Feast's SDK looks for the name of the version{where}: read them through Waypost"
        )

    def referred(self, projection: Any) -> str:
        """What a feature service takes: a view by its name, or a version of it."""
        number = getattr(projection, "version_tag", None) if self.versioned else None
        return version_key(str(projection.name), number)


PLAIN = Naming()
"""Versions are off."""


def stored_name(view: str, number: int) -> str:
    """What Feast's online stores call a version of a view; nothing where that is the view's own name."""
    return f"{view}_v{number}" if number > 0 else ""


def version_key(view: str, number: int | None) -> str:
    """What a version of a view is called wherever views are found by name: `view@vN`; the view itself for None."""
    return view if number is None else f"{view}@v{number}"


def split_ref(text: str) -> tuple[str, int | None, str]:
    """View, version and feature of `view[@version][:feature]`, as Feast reads it; no feature is the empty text."""
    name, _, feature = text.partition(":")
    view, at, version = name.partition("@")
    match = _VERSION.fullmatch(version)
    if match is not None:
        return view, int(match[1]), feature
    return (view if at and version.lower() in {"", "latest"} else name), None, feature
