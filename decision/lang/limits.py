"""Bounds on policy text. What exceeds one is a finding, never a crash or a wait."""

from __future__ import annotations

from typing import Final

SOURCE_CHARS_MAX: Final = 4 * 1024 * 1024
"""Characters in all files together."""
SOURCES_MAX: Final = 1_000
DECLARATIONS_MAX: Final = 20_000
DECLARATION_TOKENS_MAX: Final = 25_000
NAME_CHARS_MAX: Final = 200
STRING_CHARS_MAX: Final = 10_000
JSON_CHARS_MAX: Final = 100_000
NESTING_MAX: Final = 64
"""Open parentheses, and levels of the expression tree."""
IN_ITEMS_MAX: Final = 10_000
JSON_NESTING_MAX: Final = 32
FINDINGS_MAX: Final = 100
"""Findings kept per run; the rest are counted in one last finding."""
SYNTAX_ERRORS_MAX: Final = 50
"""Declarations that may fail to parse before the rest of the text is left unread."""
SYNTAX_ERROR_CHARS_MAX: Final = 50_000
"""Characters in declarations that do not parse, likewise."""
BUCKETS_MAX: Final = 1_000_000
CASES_MAX: Final = 64
"""Alternatives, branches of one CASE, and demands of two rules that cannot both be, that the analysis follows before it
gives up and reports nothing."""
PAIRS_MAX: Final = 20_000
"""Pairs of rules about one offer whose actions are compared."""
PROOFS_MAX: Final = 1_000
"""Pairs of rules with actions in each other's way whose conditions are compared."""
ACTS_MAX: Final = 1_000
"""Pairs of actions of two rules that are compared."""
