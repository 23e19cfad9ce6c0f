"""Where text is, and the list that findings are gathered in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property

from decision.lang.findings import Code, Finding, finding
from decision.lang.limits import FINDINGS_MAX
from decision.lang.syntax import Span
from decision.lang.tree import At


class Place:
    """The text of a declaration within its file; turns offsets into spans."""

    def __init__(self, file: str, text: str, lines_before: int = 0) -> None:
        self.file = file
        self.text = text
        self.lines_before = lines_before

    @cached_property
    def _line_starts(self) -> list[int]:
        starts, at = [0], self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def span(self, at: At) -> Span:
        """The span of two offsets."""
        line, column = self._position(at[0])
        end_line, end_column = self._position(max(at))
        return Span(self.file, line, column, end_line, end_column)

    def _position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line + self.lines_before, offset - self._line_starts[line - 1] + 1


class Report:
    """Gathers findings up to a bound; what is beyond it is only counted."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._lost_count = 0
        self.error_count = 0

    @property
    def failed(self) -> bool:
        """Whether anything found is an error."""
        return self.error_count > 0

    @property
    def count(self) -> int:
        """Findings so far."""
        return len(self._kept) + self._lost_count

    def add(self, code: Code, message: str, span: Span, suggestion: str = "") -> None:
        """Add a finding."""
        self.extend((finding(code, message, span, suggestion),))

    def extend(self, findings: Iterable[Finding]) -> None:
        for item in findings:
            self.error_count += item.severity == "error"
            if len(self._kept) < FINDINGS_MAX:
                self._kept.append(item)
            else:
                self._lost_count += 1

    def findings(self) -> tuple[Finding, ...]:
        """What was found, by file and line; a last one says how many more there are."""
        kept = sorted(
            self._kept, key=lambda item: (item.span.file, item.span.line, item.span.column, item.code)
        )
        if self._lost_count:
            message = f"{self._lost_count} more findings are not shown"
            kept.append(finding(Code.BOUND_EXCEEDED, message, kept[-1].span, "mend the first ones"))
        return tuple(kept)
