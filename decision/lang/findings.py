"""What the compiler has to say about a policy, and how it is printed."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from decision.lang.syntax import Span


class Severity(enum.StrEnum):
    """An error keeps the policy from compiling; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Code(enum.StrEnum):
    """Kinds of findings, stable for tools; `docs/rules.md` has a line about each."""

    SYNTAX = "syntax"
    BOUND_EXCEEDED = "bound-exceeded"
    UNKNOWN_FEATURE = "unknown-feature"
    AMBIGUOUS_NAME = "ambiguous-name"
    UNKNOWN_FUNCTION = "unknown-function"
    UNKNOWN_ZONE = "unknown-zone"
    TYPE_MISMATCH = "type-mismatch"
    BAD_ARGUMENT = "bad-argument"
    ON_DEMAND_FEATURE = "on-demand-feature"
    DUPLICATE_NAME = "duplicate-name"
    UNKNOWN_OFFER = "unknown-offer"
    UNKNOWN_PLACEMENT = "unknown-placement"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_SEGMENT = "unknown-segment"
    UNKNOWN_LABEL = "unknown-label"
    UNKNOWN_TAG = "unknown-tag"
    UNKNOWN_KEY = "unknown-key"
    UNKNOWN_ACTION = "unknown-action"
    MISSING_SEGMENT_FIELD = "missing-segment-field"
    MIXED_ENTITIES = "mixed-entities"
    CYCLIC_SEGMENT = "cyclic-segment"
    BAD_CAP_COUNTER = "bad-cap-counter"
    ALWAYS_TRUE = "always-true"
    ALWAYS_FALSE = "always-false"
    UNREACHABLE = "unreachable"
    SHADOWED = "shadowed"
    CONTRADICTORY = "contradictory"
    UNSHOWABLE_OFFER = "unshowable-offer"


WARNINGS = frozenset(
    {
        Code.UNKNOWN_TAG,
        Code.ALWAYS_TRUE,
        Code.ALWAYS_FALSE,
        Code.UNREACHABLE,
        Code.SHADOWED,
        Code.CONTRADICTORY,
        Code.UNSHOWABLE_OFFER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or doubtful.

    Attributes:
        suggestion: What to write instead, or empty.
        span: The text it is about.
    """

    severity: Severity
    code: str
    message: str
    suggestion: str
    span: Span


def finding(code: Code, message: str, span: Span, suggestion: str = "") -> Finding:
    """A finding with the severity of its kind."""
    severity = Severity.WARNING if code in WARNINGS else Severity.ERROR
    return Finding(severity=severity, code=code.value, message=message, suggestion=suggestion, span=span)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest in spelling, as a suggestion, or empty where none is close."""
    best = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean `{best[0]}`?" if best else ""


def render(findings: Iterable[Finding], sources: Mapping[str, str]) -> str:
    """Findings as plain text: place, message, the source line, a caret under it, a suggestion."""
    lines = {file: text.split("\n") for file, text in sources.items()}
    return "\n".join(_render(item, lines.get(item.span.file, [])) for item in findings)


def _render(item: Finding, lines: list[str]) -> str:
    parts = [f"{item.span}: {item.severity}[{item.code}]: {item.message}"]
    if 1 <= item.span.line <= len(lines):
        parts += _excerpt(item.span, lines[item.span.line - 1].rstrip("\r"))
    if item.suggestion:
        parts.append(f"  help: {item.suggestion}")
    return "\n".join(parts) + "\n"


EXCERPT_CHARS_MAX = 160


def _excerpt(span: Span, line: str) -> list[str]:
    """The line and carets under the span; a long line is cut to the part around it."""
    start = span.column - 1
    end = span.end_column - 1 if span.end_line == span.line else len(line)
    cut = max(0, start - EXCERPT_CHARS_MAX // 2) if len(line) > EXCERPT_CHARS_MAX else 0
    shown = line[cut : cut + EXCERPT_CHARS_MAX]
    margin = f"{span.line:>5} | "
    blank = "".join("\t" if mark == "\t" else " " for mark in shown[: start - cut])
    carets = "^" * max(1, min(end - cut, len(shown)) - (start - cut))
    return [margin + shown, " " * 6 + "| " + blank + carets]
