"""Loads definitions in a process of its own, so that Feast's SDK never holds up the one that serves."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dill

from decision.schema import Catalog
from server.config import FeastSource
from server.errors import RepoError
from server.feast.definitions import Definitions
from server.program import Program
from server.repo import importable, load_registered, load_repo

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


async def load_apart(root: Path, source: FeastSource, program: Program) -> Loaded:
    """Load in another process; that process is gone when this returns or is cancelled.

    Args:
        root: The repo.
        source: Its files, or its registry.
        program: As it was when this process began: the other one reads its modules from the disk.

    Raises:
        RepoError: The definitions cannot be used, loading them took longer than `LOAD_TIMEOUT_S`, or the program's
            files are others by now.
    """
    await _refuse_replaced(program)
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
        await _refuse_replaced(program)
        if child.returncode != 0:
            raise RepoError.of(said[-MAX_ERROR_BYTES:].decode(errors="replace").strip())
        return await asyncio.to_thread(_unpacked, root, output.read_bytes())


async def _refuse_replaced(program: Program) -> None:
    if await asyncio.to_thread(program.replaced):
        raise RepoError.of(
            "the program's files have changed since this server started: start it anew for changed definitions to serve"
        )


def _unpacked(root: Path, data: bytes) -> Loaded:
    try:
        with importable(root):
            return cast("Loaded", dill.loads(data))  # noqa: S301 - written by the child above, from the repo's own code
    except Exception as error:  # a function of the repo may refer to anything
        raise RepoError.of(
            f"an on-demand function cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def main(root: str, source: str, output: str) -> int:
    """The child's side: write what is loaded to `output`, or problems to standard error."""
    try:
        loaded = load(Path(root), FeastSource(source))
    except RepoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Path(output).write_bytes(dill.dumps(loaded, recurse=True))
    return 0
