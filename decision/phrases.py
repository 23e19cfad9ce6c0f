"""What a rule's actions did to an offer, in words."""

from __future__ import annotations

from typing import assert_never

from decision.policy import Action, Boost, Exclude, Include, Pin, Show, TagDecision


def phrase(action: Action, priority: int) -> str:
    """What an action of a rule of that priority did to its offer."""
    match action:
        case Show():
            return f"shows it above scored offers, priority {priority}"
        case Boost(factor=factor):
            return f"multiplies its score by {factor:g} ({'boost' if factor >= 1 else 'bury'})"
        case Include():
            return "makes it eligible"
        case Exclude():
            return "excludes it"
        case Pin(position=position):
            return f"pins it to position {position}"
        case TagDecision(name=name):
            return f"tags the decision {name!r}"
        case _:
            assert_never(action)
