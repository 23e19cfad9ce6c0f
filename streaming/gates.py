"""Gates that keep anomalies out of the log: values far from what is usual, and sudden floods of a type of event.

A gate judges by what this process has seen lately, in bounded memory. It learns from everything that comes, also from
what it refuses: what lasts becomes usual.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from streaming.errors import EventRefused

WINDOW = 1_024
"""Values that the quantiles are of."""
REFRESH = 64
"""Values after which the quantiles are taken anew."""
PERIODS = 60
"""Past periods that a rate is compared with."""


class OutlierGate(BaseModel):
    """Refuses a number that lies too far outside the quartiles of the latest values.

    Attributes:
        factor: How many interquartile ranges outside of the quartiles are too far.
        after: Values seen before the gate judges at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = Field(gt=0, le=1e6)
    after: int = Field(default=256, ge=16, le=WINDOW)


class RateGate(BaseModel):
    """Refuses events of a type once there are many times as many as usual in a period.

    Attributes:
        factor: How many times the median of past periods is too many.
        period_s: Length of a period.
        at_least: Events in a period below which the gate never closes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = Field(gt=1, le=1e6)
    period_s: int = Field(default=60, ge=1, le=3_600)
    at_least: int = Field(default=100, ge=1)


@dataclass(slots=True)
class Quantiles:
    """Quartiles of the latest values of one property."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    lower: float = 0.0
    upper: float = 0.0
    _since: int = 0

    def learn(self, value: float) -> None:
        """Take a value in."""
        self.values.append(value)
        self._since += 1
        if len(self.values) >= 2 and (self._since >= REFRESH or len(self.values) < 2 * REFRESH):
            self.lower, _, self.upper = statistics.quantiles(self.values, n=4)
            self._since = 0

    def is_outlier(self, value: float, gate: OutlierGate) -> bool:
        """Whether a value lies too far outside; never before enough were seen, or while all are about the same."""
        spread = self.upper - self.lower
        if len(self.values) < gate.after or spread <= 0:
            return False
        return not self.lower - gate.factor * spread <= value <= self.upper + gate.factor * spread


@dataclass(slots=True)
class Rate:
    """Events of one type by period of logical time."""

    period: int = -1
    count: int = 0
    past: deque[int] = field(default_factory=lambda: deque(maxlen=PERIODS))

    def learn(self, now_us: int, period_s: int) -> None:
        """Count an event."""
        period = now_us // (period_s * 1_000_000)
        if period > self.period >= 0:
            self.past.append(self.count)
            self.past.extend([0] * min(period - self.period - 1, PERIODS))
        if period > self.period:
            self.period, self.count = period, 0
        self.count += 1

    def is_flood(self, gate: RateGate) -> bool:
        """Whether there are too many in this period; never in the first."""
        if not self.past or self.count <= gate.at_least:
            return False
        return self.count > gate.factor * max(statistics.median(self.past), 1)


class Gates:
    """All gates of a schema, and what they have seen.

    Args:
        outliers: By event type and property.
        rates: By event type.
    """

    def __init__(self, outliers: dict[tuple[str, str], OutlierGate], rates: dict[str, RateGate]) -> None:
        self._outliers = {key: (gate, Quantiles()) for key, gate in outliers.items()}
        self._rates = {name: (gate, Rate()) for name, gate in rates.items()}

    def judge(self, event_type: str, properties: Mapping[str, object], now_us: int) -> None:
        """Judge a valid event, and learn from it.

        Raises:
            EventRefused: With reason OUTLIER or RATE_SPIKE.
        """
        if event_type in self._rates:
            gate, rate = self._rates[event_type]
            rate.learn(now_us, gate.period_s)
            if rate.is_flood(gate):
                message = (
                    f"event_type {event_type!r} comes {rate.count} times within {gate.period_s} s, more than "
                    f"{gate.factor:g} times as often as usual; look for its cause, then redrive"
                )
                raise EventRefused("event_type", "RATE_SPIKE", message)
        for name, value in properties.items():
            found = self._outliers.get((event_type, name))
            if found is None or not isinstance(value, (int, float)):
                continue
            outlier, quantiles = found
            is_outlier = quantiles.is_outlier(float(value), outlier)
            quantiles.learn(float(value))
            if is_outlier:
                place = f"properties.{name}"
                message = (
                    f"{place} is {value}, more than {outlier.factor:g} interquartile ranges outside of what is usual "
                    f"({quantiles.lower:g} to {quantiles.upper:g}); redrive it if it is true"
                )
                raise EventRefused(place, "OUTLIER", message)
