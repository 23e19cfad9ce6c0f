"""How a load grows and falls: pass --shape to `python -m loadtest`."""

from __future__ import annotations

from typing import ClassVar

from locust import LoadTestShape


class SteppedShape(LoadTestShape):
    """A load in steps, as a share of `peak_users`; ends after the last."""

    abstract: ClassVar[bool] = True
    peak_users: ClassVar[int] = 40
    steps: ClassVar[tuple[tuple[float, float], ...]] = ()
    """(seconds, share of the peak), one after another."""

    def tick(self) -> tuple[int, float] | None:
        """Return users and spawn rate per second for now; None at the end."""
        left_s = float(self.get_run_time())  # type: ignore[no-untyped-call]  # Locust annotates it in part
        for duration_s, share in self.steps:
            if left_s < duration_s:
                return max(1, round(self.peak_users * share)), self.peak_users
            left_s -= duration_s
        return None


class Ramp(SteppedShape):
    """Up in five steps: where does the latency bend?"""

    abstract = False
    steps = ((20, 0.2), (20, 0.4), (20, 0.6), (20, 0.8), (20, 1.0))


class Spike(SteppedShape):
    """Ten times the load for ten seconds: does it come back?"""

    abstract = False
    steps = ((20, 0.1), (10, 1.0), (30, 0.1))


class Soak(SteppedShape):
    """Half the peak for half an hour: does anything grow?"""

    abstract = False
    steps = ((1_800, 0.5),)


SHAPES: dict[str, type[SteppedShape]] = {"ramp": Ramp, "spike": Spike, "soak": Soak}
