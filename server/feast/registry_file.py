"""Where the registry is a file of this machine, as `feature_store.yaml` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml


def registry_file(store_file: Path) -> Path | None:
    """The registry's file; None where it is none, or only Feast could tell."""
    registry = _setting(store_file)
    if isinstance(registry, dict):
        registry = registry.get("path") if registry.get("registry_type", "file") == "file" else None
    if not isinstance(registry, str) or urlparse(registry).scheme or "$" in registry:
        return None
    return store_file.parent / registry


def keeps_versions_apart(store_file: Path) -> bool:
    """Whether each version of a view is stored under a name of its own."""
    registry = _setting(store_file)
    return isinstance(registry, dict) and registry.get("enable_online_feature_view_versioning") is True


def _setting(store_file: Path) -> Any:
    try:
        settings = yaml.safe_load(store_file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return settings.get("registry") if isinstance(settings, dict) else None
