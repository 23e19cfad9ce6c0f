"""Check Dockerfile, .dockerignore and compose.yaml by their structure: no container engine is needed.

Every problem is printed as FILE: what is wrong; the exit code is 1 if there is one.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from server.config import unknown_variables

ROOT = Path(__file__).resolve().parent.parent
KEYWORDS = frozenset(
    {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL"}
    | {"USER", "VOLUME", "WORKDIR"}
)
DURABLE = (("--appendonly", "yes"), ("--appendfsync", "always"), ("--maxmemory-policy", "noeviction"))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined."""

    keyword: str
    rest: str


def instructions(dockerfile: str) -> list[Instruction]:
    """Parse the text of a Dockerfile; comments and empty lines are dropped."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.strip().split(maxsplit=1)) for line in joined.splitlines()]


def last_stage(parsed: list[Instruction]) -> list[Instruction]:
    """Return what makes the final image."""
    start = max(number for number, instruction in enumerate(parsed) if instruction.keyword == "FROM")
    return parsed[start:]


def dockerfile_problems(text: str, root: Path) -> Iterator[str]:
    """Yield what is wrong with a Dockerfile whose build context is `root`."""
    parsed = instructions(text)
    yield from (f"unknown instruction {each.keyword}" for each in parsed if each.keyword not in KEYWORDS)
    bases = [each.rest.split()[0] for each in parsed if each.keyword == "FROM"]
    if len(bases) < 2:
        yield "one stage only: build tools would end up in the image"
    yield from (f"base image {base} names no version" for base in bases if not is_pinned(base))
    if not any("--require-hashes" in each.rest for each in parsed if each.keyword == "RUN"):
        yield "dependencies are installed without --require-hashes"
    final = last_stage(parsed)
    users = [each.rest for each in final if each.keyword == "USER"]
    if not users or users[-1] in {"root", "0"}:
        yield "the image runs as root: the last stage needs a USER"
    if not any(each.keyword == "HEALTHCHECK" for each in final):
        yield "no HEALTHCHECK in the last stage"
    yield from copy_problems(parsed, root)
    yield from exec_form_problems(final)
    yield from (f"{name} is no setting" for name in unknown_variables(environment_of(parsed)))


def is_pinned(image: str) -> bool:
    """Whether an image reference names a tag other than `latest`, or a digest."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@" in image or (tag != "" and not tag.startswith("latest"))


def copy_problems(parsed: list[Instruction], root: Path) -> Iterator[str]:
    """Yield sources of COPY that are missing or that .dockerignore keeps out of the build context."""
    allowed = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [each.rest for each in parsed if each.keyword == "COPY" and "--from=" not in each.rest]
    for source in (source.rstrip("/") for rest in copies for source in shlex.split(rest)[:-1]):
        if not (root / source).exists():
            yield f"COPY {source}: no such file"
        if source not in allowed:
            yield f"COPY {source}: .dockerignore keeps it out"


def exec_form_problems(final: list[Instruction]) -> Iterator[str]:
    """Yield commands in shell form: a shell in between swallows SIGTERM."""
    for each in final:
        if each.keyword in {"CMD", "ENTRYPOINT"} and not is_list_of_text(each.rest):
            yield f"{each.keyword} is not in exec form"


def is_list_of_text(text: str) -> bool:
    """Whether `text` is a JSON list of strings."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def environment_of(parsed: list[Instruction]) -> dict[str, str]:
    """Return the variables that ENV sets."""
    words = [word for each in parsed if each.keyword == "ENV" for word in shlex.split(each.rest)]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def compose_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a compose file."""
    document: dict[str, Any] = yaml.safe_load(text)
    services: dict[str, dict[str, Any]] = document.get("services", {})
    volumes = document.get("volumes", {})
    if "redis" not in services:
        yield "no service redis"
    for name, service in services.items():
        yield from (f"{name}: {problem}" for problem in service_problems(service, services, volumes))
    words = services.get("redis", {}).get("command", [])
    for option, value in DURABLE:
        if (option, value) not in pairwise(words):
            yield f"redis: without {option} {value} an acknowledged event may be lost"


def service_problems(
    service: dict[str, Any], services: dict[str, Any], volumes: dict[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with one service."""
    if not is_pinned(service.get("image", "")):
        yield "its image names no version"
    yield from (
        f"depends on {other}, which is no service"
        for other in set(service.get("depends_on", ())) - set(services)
    )
    mounted = {entry.partition(":")[0] for entry in service.get("volumes", ())}
    yield from (f"volume {volume} is not declared" for volume in sorted(mounted - set(volumes)))
    yield from (f"{variable} is no setting" for variable in unknown_variables(service.get("environment", {})))


def problems(root: Path) -> list[str]:
    """Return every problem of the deployment files below `root`."""
    dockerfile = dockerfile_problems((root / "Dockerfile").read_text(), root)
    compose = compose_problems((root / "compose.yaml").read_text())
    return [*(f"Dockerfile: {each}" for each in dockerfile), *(f"compose.yaml: {each}" for each in compose)]


if __name__ == "__main__":
    found = problems(ROOT)
    print("\n".join(found) or "deployment files are sound")
    sys.exit(1 if found else 0)
