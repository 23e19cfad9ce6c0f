"""Why an event that was accepted has a letter among the dead."""

from __future__ import annotations

NOT_APPLICABLE = "NOT_APPLICABLE"
"""A function, a join key or windows refuse it."""
CROWDED = "CROWDED"
CROWDED_DETAIL = "its customer brought as many events lately as ids are kept"
LATE, AHEAD = "LATE", "AHEAD"
"""It came too long after its time by the partition's clock, or too long before it by the materializer's."""
FIELDS = {CROWDED: "customer_id", LATE: "event_time", AHEAD: "event_time"}
"""What is wrong with it, where that is one field."""
PARTLY_APPLIED = "PARTLY_APPLIED"
"""It counts, but for an entity that takes it no more."""
