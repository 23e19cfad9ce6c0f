"""Whole decisions of random policies, compiled from text, against the plain reference of a decision."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.support.decision_differences import differences
from tests.support.decision_trials import Trial, trials

TRIALS = 250
SETTINGS = settings(
    max_examples=max(TRIALS, settings().max_examples),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@given(trials())
def test_decisions_are_the_references(trial: Trial) -> None:
    """All of the answer, and what came of every offer and condition on the way."""
    for question in trial.asked:
        found = list(differences(trial, question))
        assert not found, "\n".join(found)
