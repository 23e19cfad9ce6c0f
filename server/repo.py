"""Loads a repo: Feast definitions, event schemas, policy texts and model definitions.

This is the only module of the server that imports Feast, and it does so while loading, never in a request. Feast's own
machinery imports the definitions; no registry is needed.
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from decision.schema import Catalog
from online.address import parse_address, url_of
from online.errors import ConnectionStringError
from server.errors import Problem, RepoError
from server.feast.converting import Serving, definitions_of, read_registry, snapshot_of
from server.feast.definitions import Definitions
from server.feast.naming import PLAIN, Naming, stored_name
from server.feast.registry_file import registry_file
from server.feast.versions import Versions, computed_views, current_numbers, read_versions, with_versions
from server.feast_objects import Converter, Transform
from streaming.errors import EventSchemaError
from streaming.events import EventSchema

STORE_FILE = "feature_store.yaml"
EVENTS_FILE = "events.yaml"
MAX_TEXT_BYTES = 1 << 20
MAX_TEXT_FILES = 1_000
KEY_SERIALIZATION = 3
Found = TypeVar("Found")

__all__ = ["Problem", "Repo", "RepoError", "load_registered", "load_repo", "load_texts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """A loaded repo.

    Attributes:
        path: Absolute path of the repo.
        catalog: Views and feature services.
        transforms: Pandas functions that turn a frame of events into a stream view's rows, by view; a stream view
            without one takes the event's properties as they are.
        events: Event types and the customer's join key.
        policy_sources: Texts of `policy/*.policy`, by path relative to the repo, in name order.
        model_definitions: Texts of `models/*.yaml`, by path relative to the repo, in name order.
        definitions: What clients of Feast's API can ask for.
        online_store: What `feature_store.yaml` says of Feast's online store, or None where that is not Redis.
        naming: Under which names the store keeps views.
    """

    path: Path
    catalog: Catalog
    transforms: Mapping[str, Transform]
    events: EventSchema
    policy_sources: Mapping[str, str]
    model_definitions: Mapping[str, str]
    definitions: Definitions
    online_store: FeastStore | None
    naming: Naming = PLAIN

    @property
    def key_ttl_s(self) -> int | None:
        """How long an entity lives online after its last write; None is for ever."""
        return None if self.online_store is None else self.online_store.key_ttl_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FeastStore:
    """Feast's Redis, as `feature_store.yaml` names it.

    Attributes:
        key_ttl_s: `key_ttl_seconds`; None is for ever.
    """

    connection_string: str = field(repr=False)
    redis_type: str
    sentinel_master: str
    key_ttl_s: int | None

    @property
    def url(self) -> str:
        """The same store as a URL.

        Raises:
            RepoError: The connection string cannot be understood.
        """
        try:
            return url_of(parse_address(self.connection_string, self.redis_type, self.sentinel_master))
        except ConnectionStringError as error:
            raise RepoError.of(f"online_store.connection_string: {error}", STORE_FILE) from error


def load_repo(path: Path) -> Repo:
    """Load and check the repo at `path`.

    Raises:
        RepoError: Something in it cannot be used; every problem found is listed with file and line where known.
    """
    root = path.resolve()
    if not (root / STORE_FILE).is_file():
        raise RepoError.of(
            f"{root} is no feature repo: it has no {STORE_FILE} (`waypost init DIR` writes one)"
        )
    with _imports_from(root):
        config = _feast_config(root)
        contents = _parse(root)
        versioned = config.registry.enable_online_feature_view_versioning
        versions = _versions(root) if versioned else Versions()
    naming = PLAIN
    if versioned:
        contents = with_versions(contents, versions)
        naming = _naming(contents, _events(root), versions)
    converter = Converter(root, lambda name: locate(root, name), naming)
    catalog = converter.catalog(config.project, contents, versions.views)
    transforms = converter.transforms(contents)
    snapshot = snapshot_of(contents, versions.views)
    definitions = definitions_of(config.project, snapshot, converter, Serving(naming=naming))
    _refuse(converter)
    return Repo(
        path=root,
        catalog=catalog,
        transforms=transforms,
        definitions=definitions,
        naming=naming,
        events=_events(root),
        policy_sources=load_texts(root, "policy/*.policy"),
        model_definitions=load_texts(root, "models/*.yaml"),
        online_store=_feast_store(config.online_store),
    )


def restored(repo: Repo) -> Repo:
    """The repo, its views under the names that the store has for them now; imports nothing of it.

    Raises:
        RepoError: The registry cannot be read.
    """
    if not repo.naming.versioned:
        return repo
    store = _registered(repo.path)
    numbers = {} if store is None else _read_registry(lambda: current_numbers(store))
    names = {
        view.name: stored_name(view.name, numbers.get(view.name, 0))
        for view in repo.catalog.views
        if view.name not in repo.naming.computed
    }
    return replace(repo, catalog=repo.catalog.stored_under(names))


def _versions(root: Path) -> Versions:
    """What the registry says of versions; nothing where nobody has applied the repo yet."""
    store = _registered(root)
    return Versions() if store is None else _read_registry(lambda: read_versions(store))


def _registered(root: Path) -> Any:
    """The registry; None where nobody has applied the repo, and Feast would make an empty one."""
    file = registry_file(root / STORE_FILE)
    return None if file is not None and not file.exists() else _registry_of(root)


def _naming(contents: Any, events: EventSchema, versions: Versions) -> Naming:
    computed = computed_views(contents, events.customer, has_properties=events.has_properties)
    return Naming(versioned=True, computed=computed, current=versions.current)


def load_texts(root: Path, pattern: str) -> dict[str, str]:
    """Read the files of `root` that match `pattern`, by relative path in name order.

    Raises:
        RepoError: A file is larger than `MAX_TEXT_BYTES` or not UTF-8, or there are more than `MAX_TEXT_FILES`.
    """
    paths = sorted(root.glob(pattern))
    if len(paths) > MAX_TEXT_FILES:
        raise RepoError.of(f"{len(paths)} files match {pattern}: at most {MAX_TEXT_FILES} are allowed")
    return {str(path.relative_to(root)): _read_text(path, str(path.relative_to(root))) for path in paths}


def _read_text(path: Path, name: str) -> str:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RepoError.of(f"file is larger than {MAX_TEXT_BYTES} bytes: split it", name)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RepoError.of(f"file is not UTF-8: {error.reason} at byte {error.start}", name) from error


def _events(root: Path) -> EventSchema:
    try:
        return EventSchema.load(root)
    except EventSchemaError as error:
        raise RepoError.of(str(error).removeprefix(f"{root}/"), EVENTS_FILE) from error


def load_registered(path: Path) -> Definitions:
    """What the registry of the repo at `path` holds, as `feast apply` left it.

    Raises:
        RepoError: The registry cannot be read, or holds something that cannot be served.
    """
    root = path.resolve()
    with _imports_from(root):
        store = _registry_of(root)
        snapshot = _read_registry(lambda: read_registry(store))
        versions = _read_registry(lambda: read_versions(store))
        versioned = store.config.registry.enable_online_feature_view_versioning
        serving = Serving(
            naming=_naming(snapshot, _events(root), versions) if versioned else PLAIN,
            while_materializing=bool(getattr(store.registry, "serve_features_while_materializing", False)),
        )
        snapshot = replace(snapshot, versions=versions.views)
        converter = Converter(root, lambda name: locate(root, name), serving.naming)
        definitions = definitions_of(store.project, snapshot, converter, serving)
    _refuse(converter)
    return definitions


def _registry_of(root: Path) -> Any:
    from feast import FeatureStore as Registered

    _feast_config(root)

    def refreshed() -> Registered:
        store = Registered(repo_path=str(root))
        store.refresh_registry()
        return store

    return _read_registry(refreshed)


def _read_registry(read: Callable[[], Found]) -> Found:
    try:
        return read()
    except Exception as error:  # it may be a file, a database or a server, each with errors of its own
        raise RepoError.of(f"the registry cannot be read: {_first_words(error)}", STORE_FILE) from error


def _refuse(converter: Converter) -> None:
    if converter.problems:
        raise RepoError(list(dict.fromkeys(converter.problems)))


def _feast_store(config: Any) -> FeastStore | None:
    if getattr(config, "type", None) != "redis":
        return None
    return FeastStore(
        connection_string=config.connection_string,
        redis_type=config.redis_type.value,
        sentinel_master=config.sentinel_master,
        key_ttl_s=config.key_ttl_seconds or None,
    )


def load_feast_store(path: Path) -> FeastStore | None:
    """Read what the repo at `path` says of Feast's online store, and nothing else of it.

    Raises:
        RepoError: There is no `feature_store.yaml`, or Feast cannot read it.
    """
    root = path.resolve()
    if not (root / STORE_FILE).is_file():
        raise RepoError.of(
            f"{root} is no feature repo: it has no {STORE_FILE} (`waypost init DIR` writes one)"
        )
    return _feast_store(_feast_config(root).online_store)


def _feast_config(root: Path) -> Any:
    from feast.repo_config import load_repo_config

    try:
        config = load_repo_config(root, root / STORE_FILE)
        version = config.entity_key_serialization_version
    except Exception as error:  # Feast has exceptions of many roots for what it finds in this file
        raise RepoError.of(_first_words(error), STORE_FILE) from error
    if version != KEY_SERIALIZATION:
        raise RepoError.of(
            f"set entity_key_serialization_version: {KEY_SERIALIZATION} (it is {version})", STORE_FILE
        )
    return config


def _first_words(error: Exception) -> str:
    """The message without pydantic's pointers to its own pages."""
    lines = str(error).splitlines() or [type(error).__name__]
    return "\n".join(line for line in lines if "errors.pydantic.dev" not in line)


def _parse(root: Path) -> Any:
    from feast.repo_operations import parse_repo

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast calls stream views experimental, once for each
            return parse_repo(root)
    except Exception as error:  # a definition file may raise anything while it is imported
        file, line = _blame(root, error)
        raise RepoError.of(f"{type(error).__name__}: {error}", file, line) from error


def _blame(root: Path, error: Exception) -> tuple[str | None, int | None]:
    """The innermost place in the repo that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(root):
        return str(Path(error.filename).relative_to(root)), error.lineno
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(root)]
    if not frames:
        return None, None
    return str(Path(frames[-1].filename).relative_to(root)), frames[-1].lineno


def locate(root: Path, name: str) -> tuple[str | None, int | None]:
    """File and line where the definition of that name starts: a call with `name="…"`, or a decorated function."""
    for path in sorted(root.rglob("*.py")):
        for node in _nodes(path):
            if _defines(node, name):
                return str(path.relative_to(root)), getattr(node, "lineno", None)
    return None, None


def _nodes(path: Path) -> Iterator[ast.AST]:
    try:
        return ast.walk(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError):
        return iter(())


def _defines(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == name and bool(node.decorator_list)
    if not isinstance(node, ast.Call):
        return False
    is_field = isinstance(node.func, ast.Name) and node.func.id in {"Field", "Aggregation"}
    values = [word.value for word in node.keywords if word.arg == "name"]
    return not is_field and any(isinstance(value, ast.Constant) and value.value == name for value in values)


@contextlib.contextmanager
def _imports_from(root: Path) -> Iterator[None]:
    """Be in the repo while it is read: Feast names modules relative to the working directory."""
    previous = Path.cwd()
    with importable(root):
        os.chdir(root)
        try:
            yield
        finally:
            os.chdir(previous)


@contextlib.contextmanager
def importable(root: Path) -> Iterator[None]:
    """Make the repo's modules importable by the names Feast gives them, and forget them afterwards.

    Two repos, or a repo and this program, may use the same name, so modules of that name are put aside meanwhile.
    """
    names = _top_level_names(root)
    clash = sorted(names & sys.stdlib_module_names)
    if clash:
        raise RepoError.of(f"the name shadows Python's own module {clash[0]!r}: rename it", f"{clash[0]}.py")
    aside = {name: module for name, module in sys.modules.copy().items() if name.partition(".")[0] in names}
    _forget(names)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        _forget(names)
        sys.modules.update(aside)


def _top_level_names(root: Path) -> set[str]:
    """Top-level module names of the repo's Python files, as Feast imports them."""
    files = (path.relative_to(root) for path in root.rglob("*.py") if path.name != "__init__.py")
    return {path.parts[0].removesuffix(".py") for path in files if not path.parts[0].startswith(".")}


def _forget(names: set[str]) -> None:
    for name in [name for name in sys.modules.copy() if name.partition(".")[0] in names]:
        del sys.modules[name]
