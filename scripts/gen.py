"""Generate the client package `waypost` from `protos/`.

python scripts/gen.py [FOLDER]    writes FOLDER/waypost (default: this repository's)
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
INIT = '"""Generated from protos/{package} by `make gen`."""\n'


def proto_paths() -> list[str]:
    """Return the project's own proto files, relative to `protos/`, in a stable order."""
    protos = ROOT / "protos"
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def run_protoc(output: Path) -> None:
    """Write messages, services and their type stubs below `output`; exit where protoc refuses."""
    well_known = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'protos'}",
            f"-I{ROOT / 'third_party'}",
            f"-I{well_known}",
            *(f"--{plugin}_out={output}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *proto_paths(),
        ]
    )
    if status != 0:
        raise SystemExit(status)


def make_package(package: Path) -> None:
    """Make every folder a regular package, and mark the whole as typed."""
    folders = [package, *(path for path in package.rglob("*") if path.is_dir())]
    for folder in folders:
        (folder / "__init__.py").write_text(
            INIT.format(package=folder.relative_to(package.parent).as_posix())
        )
    (package / "py.typed").touch()


def main(output: Path) -> None:
    """Replace `output`/waypost."""
    package = output / "waypost"
    shutil.rmtree(package, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    run_protoc(output)
    make_package(package)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
