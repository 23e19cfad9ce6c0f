"""Touches: word in the log that somebody else changed features which an entity's segments read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from decision.lang.syntax import references
from decision.policy import Segment
from streaming.timers import Member


class Touch(NamedTuple):
    """An entity to be looked at again.

    Attributes:
        owner: What places it among the partitions: the customer's id, or of other entities their join keys as text.
        member: The entity.
    """

    owner: str
    member: Member


def readers(segments: Iterable[Segment]) -> Mapping[str, str]:
    """By view that segments read, the kind of entity that they belong to; a segment reads only its own entity's."""
    return {
        name.split(".", 1)[0]: ",".join(sorted(segment.join_keys))
        for segment in segments
        for name in references(segment.condition)
        if "." in name
    }
