"""Settings: defaults, overridden by `WAYPOST_*` environment variables, overridden by command-line options."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from server.errors import ServerError

PREFIX = "WAYPOST_"
OTHER_VARIABLES = frozenset({"WAYPOST_TARGET", "WAYPOST_REDIS"})
"""Variables that clients and feature repos read and the server ignores."""
Port = Annotated[int, Field(ge=0, le=65_535)]


class ConfigError(ServerError):
    """A setting is unknown or out of bounds."""


class ClockKind(StrEnum):
    """What logical time runs on."""

    SYSTEM = "system"
    VIRTUAL = "virtual"


class FeastAnswers(StrEnum):
    """How Feast's API says what is known about a value."""

    PROTO = "proto"
    """As `feast.serving.FieldStatus` is defined: PRESENT, NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE."""
    PYTHON = "python"
    """As Feast's Python server does: everything is PRESENT, and what is missing or null has no value."""


class FeastSource(StrEnum):
    """Where the definitions that Feast's API serves come from."""

    REPO = "repo"
    REGISTRY = "registry"


class Limits(BaseModel):
    """Bounds of requests; a request beyond one is refused with the field's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_message_bytes: Annotated[int, Field(ge=1_024, le=64 << 20)] = 4 << 20
    max_candidates: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    max_context_fields: Annotated[int, Field(ge=1, le=1_000)] = 100
    max_text_bytes: Annotated[int, Field(ge=64, le=1 << 20)] = 4_096
    max_features: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    max_entities: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    max_cells: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """Features times entities of one request: building the answer holds the event loop."""
    max_events: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    max_concurrent_calls: Annotated[int, Field(ge=1, le=100_000)] = 1_000


class Deadlines(BaseModel):
    """How long a call may take. A client's own deadline counts where it is shorter than the cap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_ms: Annotated[int, Field(ge=1, le=60_000)] = 1_000
    cap_ms: Annotated[int, Field(ge=1, le=60_000)] = 10_000
    store_ms: Annotated[int, Field(ge=1, le=60_000)] = 250
    """Most that one read of the online store may take."""
    reserve_ms: Annotated[float, Field(ge=0, le=1_000)] = 5.0
    """Kept back from the store for deciding and answering."""
    shutdown_grace_s: Annotated[float, Field(ge=0, le=300)] = 5.0


class DecisionLogBounds(BaseModel):
    """Bounds of the decision log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_records: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    queue_mib: Annotated[int, Field(ge=1, le=65_536)] = 128
    """About what the records that wait or are being written may take: with all their values, some take 50 KB."""
    flush_ms: Annotated[int, Field(ge=1, le=100)] = 100
    compact_files: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Small files that are merged into one when there are this many."""


class MaterializerBounds(BaseModel):
    """Bounds of a materializer process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_records: Annotated[int, Field(ge=1, le=100_000)] = 32_000
    """Most records of a partition that are applied at once; only those that are there are waited for."""
    checkpoint_interval_s: Annotated[float, Field(ge=0.05, le=600)] = 5.0
    """How often offline rows are written and the checkpoint moves while events flow."""
    merge_interval_s: Annotated[float, Field(ge=0.05, le=86_400)] = 60.0
    """How often small parts of the archive of events are looked for, to be merged into large ones."""
    max_cached_entities: Annotated[int, Field(ge=1_000, le=100_000_000)] = 200_000
    """Entity states in memory, for each partition."""
    max_cached_mib: Annotated[int, Field(ge=1, le=1_000_000)] = 192
    """About what these states may take, for each partition."""
    lease_ms: Annotated[int, Field(ge=200, le=60_000)] = 2_500
    """How long a partition stays with a process that shows no sign of life."""
    http_port: Port = 0
    """Of this process's /metrics; 0 is none, since several processes may share a host."""


class FeastServing(BaseModel):
    """How Feast's own API is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: FeastAnswers = FeastAnswers.PROTO
    definitions: FeastSource = FeastSource.REPO
    refresh_s: Annotated[float, Field(ge=0, le=86_400)] = 5.0
    """How often the definitions are looked at for changes; 0 never."""


class Settings(BaseSettings):
    """All settings of a process. Nested ones are spelled `WAYPOST_LIMITS__MAX_CANDIDATES`.

    Attributes:
        repo: The feature repo.
        data_dir: Where models, bundles, decisions, offline rows and the embedded store's file live.
        redis_url: The user's own Redis or Valkey; None starts the embedded one.
        host: Address that gRPC and HTTP listen on.
        grpc_port: 0 picks a free one.
        http_port: For /metrics and /health; 0 picks a free one.
        partitions: Partitions of the log; fixed for the life of a data folder.
        clock: What logical time runs on.
        log_max_records: Records that the log holds unapplied before it refuses more, over all partitions.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    repo: Path = Path("feature_repo")
    data_dir: Path = Path("data")
    redis_url: str | None = None
    host: str = "127.0.0.1"
    grpc_port: Port = 50_051
    http_port: Port = 9_090
    partitions: Annotated[int, Field(ge=1, le=1_024)] = 4
    clock: ClockKind = ClockKind.SYSTEM
    log_max_records: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    limits: Limits = Limits()
    deadlines: Deadlines = Deadlines()
    decision_log: DecisionLogBounds = DecisionLogBounds()
    materializer: MaterializerBounds = MaterializerBounds()
    feast: FeastServing = FeastServing()

    @property
    def models_dir(self) -> Path:
        """Where trained models are kept."""
        return self.data_dir / "models"

    @property
    def decisions_dir(self) -> Path:
        """Where the decision log is kept."""
        return self.data_dir / "decisions"

    @property
    def bundles_dir(self) -> Path:
        """Where every bundle that ever decided is kept, for replays."""
        return self.data_dir / "bundles"


def load_settings(**options: Any) -> Settings:
    """Settings from the environment; `options` that are not None win.

    Raises:
        ConfigError: A value is out of bounds, or a `WAYPOST_` variable names no setting.
    """
    unknown = unknown_variables(os.environ)
    if unknown:
        raise ConfigError("\n".join(f"{name}: there is no such setting{_hint(name)}" for name in unknown))
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError("\n".join(_problem(item, given) for item in error.errors())) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        place = PREFIX + field[1].upper() if field else "settings"
        raise ConfigError(f"{place}: not JSON; set its parts one by one, as {place}__NAME") from error


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """`WAYPOST_` variables that name no setting."""
    known = _known_variables()
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def _known_variables() -> frozenset[str]:
    names = {*_flat_names(), *Settings.model_fields}
    return OTHER_VARIABLES | {PREFIX + name.upper() for name in names}


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), _known_variables(), n=1)
    return f"; did you mean {near[0]}?" if near else "; `waypost config show` lists all of them"


def _problem(item: ErrorDetails, options: Mapping[str, Any]) -> str:
    """What is wrong with a setting, under the name by which it was given."""
    place = "__".join(map(str, item["loc"]))
    name = "--" + place.replace("_", "-") if place in options else PREFIX + place.upper()
    return f"{name}: {item['msg']}, got {redacted(item['input'])!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """One effective setting; `source` is `default`, `environment` or `option`, and `value` None where none is set."""

    name: str
    value: str | None
    source: str


def describe(settings: Settings, options: frozenset[str] = frozenset()) -> list[Effective]:
    """Every setting with its value, passwords redacted, and where the value came from."""
    dump = settings.model_dump(mode="json")
    rows = []
    for name in _flat_names():
        value: Any = dump
        for part in name.split("__"):
            value = value[part]
        shown = None if value is None else redacted(value)
        rows.append(Effective(name=name, value=shown, source=_source(name, options)))
    return rows


def redacted(value: Any) -> str:
    """The value as text; the passwords of a store's address become `***`."""
    text = re.sub(r"(password=)[^,&]*", r"\1***", str(value))
    return re.sub(r"(://[^:@/?#]*:)[^/?#]*@", r"\1***@", text)


def _source(name: str, options: frozenset[str]) -> str:
    if name in options:
        return "option"
    variables = {variable.upper() for variable in os.environ}
    names = {PREFIX + name.upper(), PREFIX + name.partition("__")[0].upper()}
    return "environment" if names & variables else "default"


def _flat_names() -> list[str]:
    names: list[str] = []
    for name, info in Settings.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names += [f"{name}__{inner}" for inner in annotation.model_fields]
        else:
            names.append(name)
    return names
