"""Bringing properties into one form before they are checked: case and blanks of strings, units of numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Step = Literal["trim", "lower", "upper"]


class Conversion(BaseModel):
    """A number that comes in several units or currencies, and is kept in one.

    Attributes:
        by: The string property of the same event that names the unit.
        to: The unit that is kept; where `by` is absent the number is taken to be in it.
        factors: What to multiply by, for each other unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str
    to: str
    factors: dict[str, float] = Field(min_length=1, max_length=1_000)

    @model_validator(mode="after")
    def _makes_sense(self) -> Conversion:
        if self.to in self.factors:
            raise ValueError(f"{self.to!r} is the unit that is kept; leave it out of the factors")
        wrong = [unit for unit, factor in self.factors.items() if not 0 < factor < float("inf")]
        if wrong:
            raise ValueError(f"the factor of {wrong[0]!r} must be a positive number")
        return self

    def factor(self, unit: str) -> float | None:
        """What to multiply a number in `unit` by; None for an unknown unit."""
        return 1.0 if unit == self.to else self.factors.get(unit)


def normalized(text: str, steps: tuple[Step, ...]) -> str:
    """A string after the steps, in their order."""
    for step in steps:
        match step:
            case "trim":
                text = text.strip()
            case "lower":
                text = text.lower()
            case "upper":
                text = text.upper()
    return text
