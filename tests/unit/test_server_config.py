"""Settings: bounded, strict and explained."""

from __future__ import annotations

import pytest

from server.config import ClockKind, ConfigError, describe, load_settings, redacted


def test_environment_overrides_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested setting is spelled with two underscores."""
    monkeypatch.setenv("WAYPOST_CLOCK", "virtual")
    monkeypatch.setenv("WAYPOST_LIMITS__MAX_CANDIDATES", "7")
    settings = load_settings()
    assert settings.clock is ClockKind.VIRTUAL
    assert settings.limits.max_candidates == 7


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says is what counts; an option that is None says nothing."""
    monkeypatch.setenv("WAYPOST_PARTITIONS", "3")
    assert load_settings(partitions=5).partitions == 5
    assert load_settings(partitions=None).partitions == 3


@pytest.mark.parametrize(("name", "value"), [("WAYPOST_PARTITIONS", "0"), ("WAYPOST_GRPC_PORT", "70000")])
def test_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A number out of bounds is refused before anything starts."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: .*, got '{value}'$"):
        load_settings()


def test_a_wrong_option_is_named_as_an_option() -> None:
    """Who typed `--grpc-port` does not look for a variable."""
    with pytest.raises(ConfigError, match=r"^--grpc-port: "):
        load_settings(grpc_port=70_000)


def test_a_group_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of settings may be set whole, as JSON; what is none is refused by its name."""
    monkeypatch.setenv("WAYPOST_LIMITS", "many")
    with pytest.raises(ConfigError, match=r"^WAYPOST_LIMITS: not JSON"):
        load_settings()


def test_unknown_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting is an error, not a silent default."""
    monkeypatch.setenv("WAYPOST_PARTITION", "3")
    with pytest.raises(ConfigError, match=r"^WAYPOST_PARTITION: .* did you mean WAYPOST_PARTITIONS\?$"):
        load_settings()


def test_passwords_are_redacted() -> None:
    """A URL's password never reaches the screen."""
    assert redacted("redis://user:secret@host:6379/0") == "redis://user:***@host:6379/0"
    assert redacted("redis+cluster://:secret@a:1,b:2") == "redis+cluster://:***@a:1,b:2"
    assert redacted("redis+cluster://me:sec@ret@a,[::1]:7001") == "redis+cluster://me:***@a,[::1]:7001"
    assert redacted("redis://[::1]:6379/0") == "redis://[::1]:6379/0"
    assert redacted("host:6379,password=secret,ssl=true") == "host:6379,password=***,ssl=true"
    assert (
        redacted("redis+sentinel://a/m?sentinel_password=secret")
        == "redis+sentinel://a/m?sentinel_password=***"
    )


def test_describe_says_where_values_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is default, environment or option."""
    monkeypatch.setenv("WAYPOST_PARTITIONS", "3")
    sources = {row.name: row.source for row in describe(load_settings(grpc_port=0), frozenset({"grpc_port"}))}
    assert (sources["partitions"], sources["grpc_port"], sources["host"]) == (
        "environment",
        "option",
        "default",
    )
