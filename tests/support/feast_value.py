"""Feast's own `feast.types.Value` messages, without the seconds that importing Feast takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def load_value_pb2() -> ModuleType:
    """Load Feast's generated module from its file; the package around it stays unimported."""
    package = importlib.util.find_spec("feast")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "protos/feast/types/Value_pb2.py"
    spec = importlib.util.spec_from_file_location("feast_value_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
