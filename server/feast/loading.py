"""Loads definitions in a process of its own, so that Feast's SDK never holds up the one that serves."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlparse

import dill
import yaml

from decision.schema import Catalog
from server.config import FeastSource
from server.errors import RepoError
from server.feast.definitions import Definitions
from server.repo import STORE_FILE, importable, load_registered, load_repo

LOAD_TIMEOUT_S = 120.0
MAX_ERROR_BYTES = 16_384
_CHILD = "import sys; from server.feast.loading import main; sys.exit(main(*sys.argv[1:]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load brought.

    Attributes:
        catalog: What decisions and Waypost's own reads work on; None where the registry was read, which they do not.
    """

    definitions: Definitions
    catalog: Catalog | None = None


def load(root: Path, source: FeastSource) -> Loaded:
    """Load in this process.

    Raises:
        RepoError: The definitions cannot be used.
    """
    if source is FeastSource.REGISTRY:
        return Loaded(definitions=load_registered(root))
    repo = load_repo(root)
    return Loaded(definitions=repo.definitions, catalog=repo.catalog)


async def load_apart(root: Path, source: FeastSource) -> Loaded:
    """Load in another process; that process is gone when this returns or is cancelled.

    Raises:
        RepoError: The definitions cannot be used, or loading them took longer than `LOAD_TIMEOUT_S`.
    """
    with tempfile.TemporaryDirectory(prefix="waypost-") as folder:
        output = Path(folder) / "definitions"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", _CHILD, str(root), source.value, str(output),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                _, said = await child.communicate()
        except TimeoutError:
            raise RepoError.of(f"the definitions were not loaded within {LOAD_TIMEOUT_S:.0f} s") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise RepoError.of(said[-MAX_ERROR_BYTES:].decode(errors="replace").strip())
        return await asyncio.to_thread(_unpacked, root, output.read_bytes())


def _unpacked(root: Path, data: bytes) -> Loaded:
    try:
        with importable(root):
            return cast("Loaded", dill.loads(data))  # noqa: S301 - written by the child above, from the repo's own code
    except Exception as error:  # a function of the repo may refer to anything
        raise RepoError.of(
            f"an on-demand function cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def fingerprint(root: Path, source: FeastSource) -> str | None:
    """A digest that changes whenever the definitions may have changed; None where only loading them would tell."""
    if source is FeastSource.REPO:
        files = sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)
    else:
        registry = _registry_file(root)
        if registry is None:
            return None
        files = [registry]
    digest = hashlib.sha256()
    for path in (root / STORE_FILE, *files):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        digest.update(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\0{stat.st_ino}\n".encode())
    return digest.hexdigest()


def _registry_file(root: Path) -> Path | None:
    """The registry's file, where it is one on this machine."""
    try:
        settings = yaml.safe_load((root / STORE_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    registry = settings.get("registry") if isinstance(settings, dict) else None
    if isinstance(registry, dict):
        registry = registry.get("path") if registry.get("registry_type", "file") == "file" else None
    if not isinstance(registry, str) or urlparse(registry).scheme or "$" in registry:
        return None
    return root / registry


def main(root: str, source: str, output: str) -> int:
    """The child's side: write what is loaded to `output`, or problems to standard error."""
    try:
        loaded = load(Path(root), FeastSource(source))
    except RepoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Path(output).write_bytes(dill.dumps(loaded, recurse=True))
    return 0
