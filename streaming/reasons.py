"""Why an event that was accepted has a letter among the dead."""

from __future__ import annotations

NOT_APPLICABLE = "NOT_APPLICABLE"
"""A function, a join key or windows refuse it."""
CROWDED = "CROWDED"
"""Its customer brought as many events lately as ids are kept."""
LATE = "LATE"
AHEAD = "AHEAD"
PARTLY_APPLIED = "PARTLY_APPLIED"
"""It counts, but for an entity that takes it no more."""
