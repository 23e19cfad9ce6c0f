"""Whole decisions of random policies, compiled from text, against the plain reference of a decision."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings

from decision.bundle import Bundle
from decision.policy import Policy
from tests.oracle.engine_oracle import Answer, Question, answer
from tests.support.decision_differences import differences
from tests.support.decision_mutants import MUTANTS, Mutant, in_place
from tests.support.decision_trials import Trial, bundled, trial_of, trials

TRIALS = 200
"""Policies that mutants are tried on."""
SETTINGS = settings(
    max_examples=max(400, settings().max_examples),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SETTINGS
@given(trials())
def test_decisions_are_the_references(trial: Trial) -> None:
    """All of the answer, and what came of every offer and condition on the way."""
    for question in trial.asked:
        found = list(differences(trial.bundle, question, answer(trial.world, question)))
        assert not found, "\n".join(found)


@dataclass(frozen=True)
class Decided:
    """What the reference decided of one policy."""

    policy: Policy
    bundle: Bundle
    answers: tuple[tuple[Question, Answer], ...]

    @classmethod
    def of(cls, trial: Trial) -> Decided:
        answers = tuple((question, answer(trial.world, question)) for question in trial.asked)
        return cls(trial.policy, trial.bundle, answers)

    def differs(self, mutant: Mutant) -> bool:
        """Whether the mutant decides otherwise, or fails."""
        try:
            bundle = bundled(self.policy) if mutant.plans else self.bundle
            return any(
                next(differences(bundle, question, wanted), None) is not None
                for question, wanted in self.answers
            )
        except (ArithmeticError, LookupError, ValueError):
            return True


@pytest.fixture(scope="module")
def decided() -> list[Decided]:
    """Policies drawn as the test above draws them, the same in every run."""
    draw = random.Random(3)
    return [Decided.of(trial_of(draw.randint)) for _ in range(TRIALS)]


RIGHT = [
    Mutant(mutant.home, mutant.function, mutant.old, mutant.old, mutant.through, mutant.plans)
    for mutant in {
        (mutant.home, mutant.function, mutant.through): mutant for mutant in MUTANTS.values()
    }.values()
]
"""The engine's own functions, as mutants run them."""


@pytest.mark.parametrize("mutant", RIGHT, ids=lambda mutant: f"{mutant.home.__name__}.{mutant.function}")
def test_nothing_differs_without_a_mutant(mutant: Mutant, decided: list[Decided]) -> None:
    """The mutants' deaths are their own."""
    with in_place(mutant):
        assert not any(each.differs(mutant) for each in decided[:10])


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str, decided: list[Decided]) -> None:
    """Some decision tells the mutant from the engine."""
    mutant = MUTANTS[name]
    with in_place(mutant):
        assert any(each.differs(mutant) for each in decided)
