"""What commands print, on terminals of any width."""

from __future__ import annotations

import json

import pytest
import redis
import typer
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from rich.console import Console

from server.commands import output
from server.commands.calls import details_of

COLUMNS = ("id", "reason", "detail")
ROW = ("refused:1767225600000-0", "REQUIRED_PROPERTY_MISSING", "properties.isbn[0]: is required (string)")


@pytest.mark.parametrize(("width", "drawn"), [(120, True), (80, True), (70, False), (20, False)])
def test_the_column_that_folds_is_there_at_any_width(
    width: int, drawn: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that would leave it a few characters is given line by line, and no cell is cut."""
    monkeypatch.setattr(output, "console", Console(width=width))
    output.table("1 dead letter", COLUMNS, [ROW], folded="detail")
    told = capsys.readouterr().out
    assert ("│" in told) == drawn
    assert all(cell in told for cell in ROW[:2])
    assert all(word in told for word in ROW[2].split())


def test_a_table_of_nothing_has_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    output.table("0 dead letters", COLUMNS, [], folded="detail")
    assert "0 dead letters" in capsys.readouterr().out


def test_an_error_tells_when_to_try_again() -> None:
    """As the server said, beside the reason."""
    status = Status()
    status.details.add().Pack(ErrorInfo(reason="LOG_FULL"))
    status.details.add().Pack(RetryInfo(retry_delay=Duration(nanos=500_000_000)))
    assert details_of(status) == ["  reason: LOG_FULL", "  try again after 0.5 s"]


@pytest.mark.parametrize("width", [120, 20])
def test_what_a_terminal_would_obey_is_spelt_out(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids and details come from whoever publishes: an escape sequence among them must not reach the terminal."""
    monkeypatch.setattr(output, "console", Console(width=width))
    output.table("1 dead letter", COLUMNS, [("\x1b[2J", "LATE", "a\0b\r\x9b")], folded="detail")
    output.say("e\x1b]0;t\x07c\nd")
    told = capsys.readouterr().out
    assert not set(told) & {"\x1b", "\0", "\r", "\x9b", "\x07"}
    assert all(shown in told for shown in ("\\x1b[2J", "\\x00", "\\x0d", "\\x9b", "\\x1b]0;t\\x07c\nd"))


def test_a_terminal_obeys_nothing_of_what_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON escapes the first control characters only; the others begin sequences too."""
    value = {"id": "\x1b[2J\x9b2J\x7f é"}
    output.say_json(value)
    told = capsys.readouterr().out
    assert not set(told) & {"\x1b", "\x9b", "\x7f"}
    assert "é" in told
    assert json.loads(told) == value


def test_ids_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever they would mean to who draws tables."""
    spelt = "shop:key:7 [/x] [red]"
    output.say(spelt)
    output.hint(spelt)
    output.table(f"What {spelt} \x1b]0;t has", ("what", "count"), [(spelt, "1")], folded="what")
    told, hinted = capsys.readouterr()
    assert told.count(spelt) == 3
    assert "\\x1b]0;t" in told
    assert hinted.strip() == spelt


@pytest.mark.parametrize("error", [redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError])
def test_a_store_that_takes_no_writes_is_told_in_a_line(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that is its first writer ends with a message, not with a traceback."""

    @output.reports_errors
    def command() -> None:
        raise error("command not allowed")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == output.REFUSED
    assert capsys.readouterr().err == "the store takes no writes for now: command not allowed\n"
