"""python -m loadtest: a short headless load on a server of its own, or on --target; exit code 1 where it failed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from loadtest.server import own_server

ROOT = Path(__file__).resolve().parent.parent
SHAPE_NAMES = ("ramp", "spike", "soak")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("--target", help="host:port of a running server; without it, one is started")
    parser.add_argument(
        "--repo", type=Path, default=ROOT / "feature_repo", help="what the started server serves"
    )
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--shape", choices=SHAPE_NAMES, help="grow and fall instead of a constant load")
    parser.add_argument("--max-p99-ms", type=float, default=500.0, help="fail if Decide's p99 is higher")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "load.html")
    return parser.parse_args(arguments)


def locust_command(options: argparse.Namespace, target: str) -> list[str]:
    """Return the command that loads `target`."""
    load = [
        "--users",
        str(options.users),
        "--spawn-rate",
        str(options.users),
        "--run-time",
        f"{options.seconds}s",
    ]
    return [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--headless"),
        *("--host", target, "--html", str(options.report), "--only-summary", "--stop-timeout", "5"),
        *("--max-p99-ms", str(options.max_p99_ms)),
        *([] if options.shape else load),
    ]


def main(arguments: list[str]) -> int:
    """Run the load and return Locust's exit code."""
    options = parse(arguments)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({"LOAD_SHAPE": options.shape} if options.shape else {})
    server: AbstractContextManager[str] = (
        nullcontext(options.target) if options.target else own_server(options.repo)
    )
    with server as target:
        code = subprocess.run(locust_command(options, target), env=environment, check=False).returncode
    print(f"report: {options.report}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
