"""What the values of a repo's stream views depend on, as a digest: another one means that a view is built anew."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from decision.schema import View
from server.repo import Repo
from streaming.generations import Definition


def definitions(repo: Repo) -> dict[str, Definition]:
    """Definitions of the views that the stream computes, by name."""
    return {
        view.name: Definition(
            digest=_digest(repo, view), features=tuple(feature.name for feature in view.features)
        )
        for view in repo.catalog.views
        if view.stream and view.tag("waypost.role") != "segments"
    }


def _digest(repo: Repo, view: View) -> str:
    parts = [
        repo.events.customer,
        *(f"{key.name} {key.value_type.name}" for key in view.join_keys),
        *(f"{feature.name} {feature.value_type.name}" for feature in view.features),
        *(f"{a.feature} {a.column} {a.function} {a.window_s}" for a in view.aggregations),
        str(view.hop_s),
        *_sources(repo.transforms.get(view.name), repo.path, set()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _sources(thing: Any, root: Path, seen: set[int]) -> Iterator[str]:
    """The text of a function and of whatever of the repo it names, without comments; of plain values what they are.

    Nothing of objects whose text could differ from one start to the next.
    """
    if isinstance(thing, (bool, int, float, str, bytes, type(None))):
        yield repr(thing)
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, FunctionType):
        yield from _function_sources(thing, root, seen)
    elif isinstance(thing, ModuleType):
        path = getattr(thing, "__file__", None)
        yield Path(path).read_text() if path and _is_within(path, root) else thing.__name__
    elif isinstance(thing, type):
        file = getattr(sys.modules.get(thing.__module__), "__file__", None)
        yield inspect.getsource(thing) if file and _is_within(file, root) else thing.__qualname__
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from _sources(item, root, seen)
    elif isinstance(thing, (set, frozenset, dict)):
        for item in sorted(thing, key=repr):
            yield from _sources(item, root, seen)
            yield from _sources(thing[item], root, seen) if isinstance(thing, dict) else ()


def _function_sources(function: FunctionType, root: Path, seen: set[int]) -> Iterator[str]:
    if not _is_within(function.__code__.co_filename, root):
        yield f"{function.__module__}.{function.__qualname__}"
        return
    yield _text(function)
    for name in sorted(set(_names(function.__code__))):
        if name in function.__globals__:
            yield from (f"{name} = {source}" for source in _sources(function.__globals__[name], root, seen))
    for cell in function.__closure__ or ():
        yield from _sources(cell.cell_contents, root, seen)


def _names(code: Any) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _names(constant)


def _text(function: FunctionType) -> str:
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, SyntaxError):
        # A lambda in the middle of an expression, or a file that is gone: what it was compiled to tells as much.
        return _compiled(function.__code__)


def _compiled(code: CodeType) -> str:
    """Code as text that is the same at every start: no addresses, no order of a set."""
    return f"{code.co_code.hex()} {code.co_names} {[_constant(item) for item in code.co_consts]}"


def _constant(item: Any) -> str:
    if isinstance(item, CodeType):
        return _compiled(item)
    if isinstance(item, (tuple, frozenset)):
        found = [_constant(part) for part in item]
        return f"{type(item).__name__} {sorted(found) if isinstance(item, frozenset) else found}"
    return repr(item)


def _is_within(file: str, root: Path) -> bool:
    return Path(file).resolve().is_relative_to(root)
